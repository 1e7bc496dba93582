rule prepare_dataset:
    input:
        plan=local(f"{RESULTS}/plan/stages/prepare.json"),
    output:
        DATASET,
        description=DESCRIPTION,
    log:
        f"{RESULTS}/logs/prepare_dataset.log",
    benchmark:
        f"{RESULTS}/timings/prepare_dataset.tsv"
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output.description, parent=True),
    shell:
        "exec cifar-report prepare-dataset --stage {input.plan} --output {params.folder} --resources resources > {log} 2>&1"
