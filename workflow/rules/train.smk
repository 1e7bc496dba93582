# The number of threads is a setting, which the plan passes on: `--cores 1` lowers {threads}, and must change no bit.
# The longest begin first (`priority`), so that no core waits for the last one alone.
# How many seeds or trials share a process is the machine's affair: a resource, set in profiles/, and no reason to rerun.
rule train_variant:
    input:
        ancient(DATASET),
        plan=local(f"{RESULTS}/plan/{{variant}}.json"),
        dataset=DESCRIPTION,
        selected=selected_settings,
    output:
        run=f"{RESULTS}/runs/{{variant}}/seed-{{seed}}/run.json",
        curve=f"{RESULTS}/runs/{{variant}}/seed-{{seed}}/curve.csv",
        model=f"{RESULTS}/runs/{{variant}}/seed-{{seed}}/model.safetensors",
        logits=f"{RESULTS}/runs/{{variant}}/seed-{{seed}}/test-logits.npy",
    log:
        f"{RESULTS}/logs/train_variant/{{variant}}-seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/timings/train_variant/{{variant}}-seed-{{seed}}.tsv"
    priority: run_minutes
    group:
        short_runs
    conda:
        "../../environment.yml"
    threads: variant_threads
    resources:
        gpu=variant_gpus,
        cpus_per_task=variant_threads,
        mem_mb=run_memory,
        runtime=run_minutes,
        seeds_per_job=1,
    params:
        dataset=subpath(input.dataset, parent=True),
        folder=subpath(output.run, parent=True),
        store=STORE,
        stage=f"{RESULTS}/plan/stages/summarise.json",
    shell:
        "exec cifar-report train-variant --plan {input.plan} --dataset {params.dataset} --seed {wildcards.seed}"
        " --stage {params.stage} --seeds-per-job {resources.seeds_per_job}"
        " --store {params.store} --output {params.folder} --selected {input.selected} > {log} 2>&1"


rule train_trial:
    input:
        ancient(TRAINING_SPLITS),
        plan=local(f"{RESULTS}/plan/search/{{search}}/{{trial}}.json"),
        dataset=DESCRIPTION,
    output:
        run=f"{RESULTS}/search/{{search}}/{{trial}}/run.json",
        curve=f"{RESULTS}/search/{{search}}/{{trial}}/curve.csv",
    log:
        f"{RESULTS}/logs/train_trial/{{search}}-{{trial}}.log",
    benchmark:
        f"{RESULTS}/timings/train_trial/{{search}}-{{trial}}.tsv"
    priority: run_minutes
    group:
        short_runs
    conda:
        "../../environment.yml"
    threads: trial_threads
    resources:
        gpu=trial_gpus,
        cpus_per_task=trial_threads,
        mem_mb=run_memory,
        runtime=run_minutes,
        seeds_per_job=1,
    params:
        dataset=subpath(input.dataset, parent=True),
        folder=subpath(output.run, parent=True),
        store=STORE,
        stage=f"{RESULTS}/plan/select/{{search}}.json",
    shell:
        "exec cifar-report train-trial --plan {input.plan} --dataset {params.dataset}"
        " --stage {params.stage} --seeds-per-job {resources.seeds_per_job}"
        " --store {params.store} --output {params.folder} > {log} 2>&1"


# One job, which draws and trains all trials of the search: how many there are, and which, is known only then. Their
# folders are no declared outputs; the list names them, and whoever reads them reads what it lists.
rule search_halving:
    input:
        ancient(TRAINING_SPLITS),
        plan=local(f"{RESULTS}/plan/halving/{{search}}.json"),
        dataset=DESCRIPTION,
    output:
        f"{RESULTS}/search/{{search}}/trials.json",
    log:
        f"{RESULTS}/logs/search_halving/{{search}}.log",
    benchmark:
        f"{RESULTS}/timings/search_halving/{{search}}.tsv"
    conda:
        "../../environment.yml"
    threads: halving_threads
    resources:
        gpu=trial_gpus,
        cpus_per_task=halving_threads,
    params:
        dataset=subpath(input.dataset, parent=True),
        folder=subpath(output[0], parent=True),
        store=STORE,
    shell:
        "exec cifar-report search-halving --stage {input.plan} --dataset {params.dataset}"
        " --store {params.store} --output {params.folder} > {log} 2>&1"


rule select_trial:
    input:
        all_trials,
        plan=local(f"{RESULTS}/plan/select/{{search}}.json"),
    output:
        f"{RESULTS}/search/{{search}}/selected.yaml",
    log:
        f"{RESULTS}/logs/select_trial/{{search}}.log",
    benchmark:
        f"{RESULTS}/timings/select_trial/{{search}}.tsv"
    localrule: True  # on a cluster too: seconds
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output[0], parent=True),
    shell:
        "exec cifar-report select-trial --stage {input.plan} --search {params.folder} --output {output} > {log} 2>&1"
