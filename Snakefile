# The study of config.yaml: data, runs, numbers, report. `snakemake all` makes the PDF, `snakemake report` the HTML too.
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, update_config

from cifar_report.analysis.claims import file as claims
from cifar_report.study import config as studies
from cifar_report.study import plan
from cifar_report.base.errors import InputError
from cifar_report.rendering.figures import names as figure_names
from cifar_report.rendering.tables import TABLES

min_version("9.27")


if not Path.cwd().samefile(workflow.basedir):
    raise WorkflowError(
        f"{Path.cwd()}: is not the folder of {workflow.main_snakefile}; call snakemake there, without --directory (-d)"
    )


configfile: "config.yaml"


try:
    studies.check_files([Path("config.yaml"), *workflow.config_settings.configfiles])
    for entry in workflow.config_settings.config_args or ():
        update_config(config, studies.from_command_line(entry))
    STUDY = studies.load(config)
    RESULTS = f"results/{STUDY.name}"
    if STUDY.claims:
        claims.load(Path(STUDY.claims), STUDY.catalogue)
except InputError as error:
    raise WorkflowError(str(error)) from None


include: "workflow/rules/guard.smk"


try:
    write_plan()
except InputError as error:
    raise WorkflowError(str(error)) from None


shell.executable(str(Path(workflow.basedir, "workflow/scripts/bash")))


onstart:
    require_lock()
    tell_superseded()
    tell_of_store()
    tell_of_tex()


onsuccess:
    name_reports()


onerror:
    logger.info(
        "The same command goes on from here: finished runs are kept, the others resume from their last checkpoint."
    )


wildcard_constraints:
    variant="|".join(STUDY.variants),
    search="|".join(STUDY.searches) or "none",
    seed=r"\d+",
    trial="[0-9a-f]{16}",


include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.pdf",
        f"{RESULTS}/summary.csv",
        f"{RESULTS}/costs.csv",
        f"{RESULTS}/claims.json",
        PAGES,
        EVENTS,


rule report:
    input:
        rules.all.input,
        f"{RESULTS}/report.html",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/render.smk"


check_places()
