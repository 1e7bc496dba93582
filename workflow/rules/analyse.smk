rule summarise_runs:
    input:
        run_files("run.json", "curve.csv"),
        plan=local(f"{RESULTS}/plan/stages/summarise.json"),
    output:
        summary=table(f"{RESULTS}/summary.csv"),
        costs=table(f"{RESULTS}/costs.csv"),
    log:
        f"{RESULTS}/logs/summarise_runs.log",
    benchmark:
        f"{RESULTS}/timings/summarise_runs.tsv"
    conda:
        "../../environment.yml"
    params:
        results=subpath(output.summary, parent=True),
    shell:
        "exec cifar-report summarise-runs --stage {input.plan} --runs {params.results}/runs"
        " --summary {output.summary} --costs {output.costs} > {log} 2>&1"


rule tabulate_search:
    input:
        TRIALS,
        plan=local(f"{RESULTS}/plan/stages/search.json"),
    output:
        table(f"{RESULTS}/search.csv"),
    log:
        f"{RESULTS}/logs/tabulate_search.log",
    benchmark:
        f"{RESULTS}/timings/tabulate_search.tsv"
    conda:
        "../../environment.yml"
    params:
        results=subpath(output[0], parent=True),
    shell:
        "exec cifar-report tabulate-search --stage {input.plan} --search {params.results}/search --output {output} > {log} 2>&1"


rule measure_shifts:
    input:
        ancient(DATASET),
        run_files("run.json", "curve.csv", variants=SHIFTED),
        ancient(run_files("model.safetensors", variants=SHIFTED)),
        plan=local(f"{RESULTS}/plan/stages/shifts.json"),
        dataset=DESCRIPTION,
    output:
        f"{RESULTS}/shifts.csv",
    log:
        f"{RESULTS}/logs/measure_shifts.log",
    benchmark:
        f"{RESULTS}/timings/measure_shifts.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=evaluation_gpus,
    params:
        results=subpath(output[0], parent=True),
        dataset=subpath(input.dataset, parent=True),
    shell:
        "exec cifar-report measure-shifts --stage {input.plan} --runs {params.results}/runs --dataset {params.dataset}"
        " --output {output} > {log} 2>&1"


rule measure_flips:
    input:
        ancient(DATASET),
        run_files("run.json", "curve.csv", variants=FLIPPED),
        ancient(run_files("model.safetensors", "test-logits.npy", variants=FLIPPED)),
        plan=local(f"{RESULTS}/plan/stages/flips.json"),
        dataset=DESCRIPTION,
    output:
        f"{RESULTS}/flips.csv",
    log:
        f"{RESULTS}/logs/measure_flips.log",
    benchmark:
        f"{RESULTS}/timings/measure_flips.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=evaluation_gpus,
    params:
        results=subpath(output[0], parent=True),
        dataset=subpath(input.dataset, parent=True),
    shell:
        "exec cifar-report measure-flips --stage {input.plan} --runs {params.results}/runs --dataset {params.dataset}"
        " --output {output} > {log} 2>&1"


rule measure_batch_statistics:
    input:
        ancient(DATASET),
        run_files("run.json", "curve.csv", variants=BY_BATCH_STATISTICS),
        ancient(run_files("model.safetensors", variants=BY_BATCH_STATISTICS)),
        plan=local(f"{RESULTS}/plan/stages/batch-statistics.json"),
        dataset=DESCRIPTION,
    output:
        f"{RESULTS}/batch-statistics.csv",
    log:
        f"{RESULTS}/logs/measure_batch_statistics.log",
    benchmark:
        f"{RESULTS}/timings/measure_batch_statistics.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=evaluation_gpus,
    params:
        results=subpath(output[0], parent=True),
        dataset=subpath(input.dataset, parent=True),
    shell:
        "exec cifar-report measure-batch-statistics --stage {input.plan} --runs {params.results}/runs"
        " --dataset {params.dataset} --output {output} > {log} 2>&1"


rule measure_agreement:
    input:
        ancient(TRAINING_SPLITS),
        plan=local(f"{RESULTS}/plan/stages/agreement.json"),
        dataset=DESCRIPTION,
    output:
        f"{RESULTS}/agreement.csv",
    log:
        f"{RESULTS}/logs/measure_agreement.log",
    benchmark:
        f"{RESULTS}/timings/measure_agreement.tsv"
    conda:
        "../../environment.yml"
    params:
        dataset=subpath(input.dataset, parent=True),
    shell:
        "exec cifar-report measure-agreement --stage {input.plan} --dataset {params.dataset} --output {output} > {log} 2>&1"


rule test_claims:
    input:
        run_files("run.json", "curve.csv"),
        ancient(run_files("test-logits.npy")),
        TRIALS,
        SEARCH,
        ancient(DATASET),
        DESCRIPTION,
        plan=local(f"{RESULTS}/plan/stages/claims.json"),
        claims=local(ancient(STUDY.claims)) if STUDY.claims else [],
        shifts=f"{RESULTS}/shifts.csv",
        agreement=f"{RESULTS}/agreement.csv",
    output:
        claims=(
            table(f"{RESULTS}/claims.json")
            if STUDY.claims
            else f"{RESULTS}/claims.json"
        ),
        table=f"{RESULTS}/tables/claims.tex",
        text=f"{RESULTS}/tables/claims-text.tex",
        changed=f"{RESULTS}/tables/changed-rules.tex",
        lines=f"{RESULTS}/tables/verdicts.tex",
    log:
        f"{RESULTS}/logs/test_claims.log",
    benchmark:
        f"{RESULTS}/timings/test_claims.tsv"
    conda:
        "../../environment.yml"
    params:
        results=subpath(output.claims, parent=True),
    shell:
        "exec cifar-report test-claims --stage {input.plan} --results {params.results} --claims {input.claims}"
        " > {log} 2>&1"
