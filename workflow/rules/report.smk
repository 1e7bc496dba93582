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
            f"{RESULTS}/report.pdf", caption="../report/report.rst", category="Report"
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


# Snakemake's own report of this study; called from inside it, so without its lock and with the same configuration.
rule render_html:
    input:
        rules.all.input,
        local(ancient(plan.sources("html"))),
        plan=local(f"{RESULTS}/plan/stages/html.json"),
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
        "exec snakemake all --nolock --configfile {input.config} --report {output} > {log} 2>&1"
