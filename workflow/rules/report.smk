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
    log:
        f"{RESULTS}/logs/render_report.log",
    benchmark:
        f"{RESULTS}/timings/render_report.tsv"
    conda:
        "../../environment.yml"
    params:
        results=subpath(output[0], parent=True),
    shell:
        "exec {input.script} report {params.results} {output} > {log} 2>&1"


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
        "exec cifar-report pages --stage {input.plan} --results {params.results} --templates workflow/report"
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
    shell:
        "exec snakemake all --nolock --configfile {input.config} --report {output}"
        " --report-html-stylesheet-path {input.style} > {log} 2>&1"
