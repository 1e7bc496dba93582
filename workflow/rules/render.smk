rule draw_figures:
    input:
        run_files("run.json", "curve.csv"),
        ancient(run_files("model.safetensors", "test-logits.npy")),
        TRIALS,
        SEARCH,
        ancient(DATASET),
        [f"{RESULTS}/shifts.csv"] if SHIFTED else [],
        plan=local(f"{RESULTS}/plan/stages/figures.json"),
        dataset=DESCRIPTION,
    output:
        FIGURES,
        DRAWINGS,
        index=f"{RESULTS}/figures/figures.json",
    log:
        f"{RESULTS}/logs/draw_figures.log",
    benchmark:
        f"{RESULTS}/timings/draw_figures.tsv"
    conda:
        "../../environment.yml"
    params:
        results=subpath(output.index, ancestor=2),
    shell:
        "exec cifar-report draw-figures --stage {input.plan} --results {params.results} > {log} 2>&1"


rule check_equations:
    input:
        local(ancient(plan.sources("equations") + plan.sources("report"))),
        plan=local(f"{RESULTS}/plan/stages/equations.json"),
    output:
        checks=f"{RESULTS}/equations.json",
        passed=f"{RESULTS}/tables/equations.tex",
    log:
        f"{RESULTS}/logs/check_equations.log",
    benchmark:
        f"{RESULTS}/timings/check_equations.tsv"
    conda:
        "../../environment.yml"
    shell:
        "exec cifar-report check-equations --stage {input.plan} --kept results/.equations --checks {output.checks}"
        " --output {output.passed} > {log} 2>&1"


rule write_tables:
    input:
        run_files("run.json", "curve.csv"),
        ancient(run_files("test-logits.npy")),
        SEARCH,
        ancient([f"{RESULTS}/dataset/test-{part}.npy" for part in ("images", "labels")]),
        plan=local(f"{RESULTS}/plan/stages/tables.json"),
        dataset=DESCRIPTION,
        summary=f"{RESULTS}/summary.csv",
        flips=f"{RESULTS}/flips.csv",
        batch_statistics=f"{RESULTS}/batch-statistics.csv",
        agreement=f"{RESULTS}/agreement.csv",
        figures=f"{RESULTS}/figures/figures.json",
        claims=f"{RESULTS}/claims.json",
    output:
        numbers=f"{RESULTS}/numbers.tex",
        traced=f"{RESULTS}/numbers.json",
        tables=[f"{RESULTS}/tables/{name}.tex" for name in TABLES],
    log:
        f"{RESULTS}/logs/write_tables.log",
    benchmark:
        f"{RESULTS}/timings/write_tables.tsv"
    conda:
        "../../environment.yml"
    params:
        results=subpath(output.numbers, parent=True),
    shell:
        "exec cifar-report write-tables --stage {input.plan} --results {params.results} > {log} 2>&1"


rule render_report:
    input:
        local(ancient(plan.sources("report"))),
        FIGURES,
        rules.write_tables.output,
        rules.test_claims.output,
        rules.check_equations.output,
        plan=local(f"{RESULTS}/plan/stages/report.json"),
        script=local(ancient("workflow/scripts/render-report")),
    output:
        report(
            f"{RESULTS}/report.pdf",
            caption=caption("report"),
            category="Report",
            labels={"document": "The finished report"},
        ),
        source=f"{RESULTS}/source.tar.gz",
    log:
        f"{RESULTS}/logs/render_report.log",
    benchmark:
        f"{RESULTS}/timings/render_report.tsv"
    conda:
        "../../environment.yml"
    params:
        results=subpath(output[0], parent=True),
    shell:
        "cifar-report check-digests {input} > {log} 2>&1"
        "; workflow/scripts/bash -c 'exec {input.script} report {params.results} {output} >> {log} 2>&1'"
        # LaTeX may cut a character in two, and Snakemake shows no log that is not UTF-8.
        " || {{ iconv -c -f UTF-8 -t UTF-8 {log} > {log}.tmp || true; mv {log}.tmp {log}; exit 1; }}"
        "; grep '^Warning: ' {log} >&2 || true"
        "; exec cifar-report keep-digests {output} >> {log} 2>&1"


# What Snakemake's own report shows of this study: tables as pages, and captions that tell what was found.
rule write_pages:
    input:
        local(ancient(plan.sources("html"))),
        rules.summarise_runs.output,
        SEARCH,
        DESCRIPTION,
        plan=local(f"{RESULTS}/plan/stages/html.json"),
        claims=rules.test_claims.output.claims,
        figures=rules.draw_figures.output.index,
        checks=rules.check_equations.output.checks,
    output:
        [table(page) for page in PAGES],
        CAPTIONS,
        STYLE,
    log:
        f"{RESULTS}/logs/write_pages.log",
    benchmark:
        f"{RESULTS}/timings/write_pages.tsv"
    conda:
        "../../environment.yml"
    params:
        results=subpath(output[0], ancestor=2),
        output=subpath(output[0], parent=True),
    shell:
        "exec cifar-report write-pages --stage {input.plan} --results {params.results} --templates workflow/report"
        " --output {params.output} > {log} 2>&1"


report: caption("workflow")


# Snakemake's own report of this study; called from inside it, so without its lock and with the same configuration.
rule render_html:
    input:
        rules.all.input,
        CAPTIONS,
        style=STYLE,
        config=local(f"{RESULTS}/plan/config.yaml"),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/render_html.log",
    benchmark:
        f"{RESULTS}/timings/render_html.tsv"
    conda:
        "../../environment.yml"
    params:
        shown=[*SEARCH, *(f"{RESULTS}/figures/{name}.svg" for name in NAMES)],
    shell:
        "exec > {log} 2>&1; cifar-report check-digests {input} {params.shown}"
        "; workflow/scripts/bash -c 'exec snakemake all --nolock --configfile {input.config}"
        " --report {output} --report-stylesheet {input.style}'; exec cifar-report keep-digests {output}"


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
            "exec cifar-report write-events --stage {input.plan} --runs {params.results}/runs"
            " --output {params.results}/tensorboard > {log} 2>&1"
