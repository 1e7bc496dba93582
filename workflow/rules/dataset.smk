rule prepare_dataset:
    input:
        plan=f"{RESULTS}/plan/stages/prepare.json",
    output:
        DATASET,
        description=DESCRIPTION,
    params:
        folder=subpath(output.description, parent=True),
    log:
        f"{RESULTS}/logs/prepare_dataset.log",
    benchmark:
        f"{RESULTS}/timings/prepare_dataset.tsv"
    conda:
        "../../environment.yml"
    shell:
        "exec cifar-report prepare --stage {input.plan} --output {params.folder} --resources resources > {log} 2>&1"
