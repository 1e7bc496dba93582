# Event files for TensorBoard, where the study asks for them: one job, as each file takes milliseconds.
EVENTS = [
    f"{RESULTS}/tensorboard/{variant}/seed-{seed}/events.out.tfevents"
    for variant in STUDY.variants
    for seed in STUDY.variants[variant].seeds
    if STUDY.tensorboard
]

if EVENTS:

    rule write_events:
        input:
            run_files("run.json", "curve.csv"),
            plan=local(f"{RESULTS}/plan/stages/events.json"),
        output:
            EVENTS,
        log:
            f"{RESULTS}/logs/write_events.log",
        benchmark:
            f"{RESULTS}/timings/write_events.tsv"
        conda:
            "../../environment.yml"
        params:
            results=subpath(output[0], ancestor=4),
        shell:
            "exec cifar-report events --stage {input.plan} --runs {params.results}/runs"
            " --output {params.results}/tensorboard > {log} 2>&1"
