# What the rules need to know of the study.
import json

from cifar_report.runs.machine import gpu_visible
from cifar_report.study.kinds import KINDS

STORE = "results/.store"

# Slurm names a job's GPUs in this variable: a job without it has none, also where its node has some.
if workflow.remote_exec and "SLURM_JOB_ID" in os.environ:
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# Inputs marked `ancient` are large, or sources. Time stamps say nothing of them: the digests in dataset.json, run.json
# and the plan stand for them.
TRAINING_SPLITS = [
    f"{RESULTS}/dataset/{split}-{part}.npy"
    for split in ("train", "validation")
    for part in ("images", "labels")
]
DATASET = [
    *TRAINING_SPLITS,
    f"{RESULTS}/dataset/test-images.npy",
    f"{RESULTS}/dataset/test-labels.npy",
]
DESCRIPTION = f"{RESULTS}/dataset/dataset.json"
SEARCH = [f"{RESULTS}/search.csv"] if STUDY.searches else []


def run_files(*names, variants=tuple(STUDY.variants)):
    """These files of every run of the study."""
    return [
        f"{RESULTS}/runs/{variant}/seed-{seed}/{name}"
        for variant in variants
        for seed in STUDY.variants[variant].seeds
        for name in names
    ]


def trial_files(search, *names):
    """These files of every trial of a grid; of a search that draws its trials, their list stands for them."""
    if STUDY.searches[search].halving:
        return [f"{RESULTS}/search/{search}/trials.json"]
    return [
        f"{RESULTS}/search/{search}/{trial}/{name}"
        for trial in STUDY.searches[search].trials()
        for name in names
    ]


def evaluation_gpus(wildcards):
    """For trained networks that are shown further images."""
    return max(gpus(KINDS[v.settings["kind"]]) for v in STUDY.variants.values())


def gpus(kind):
    """How many GPUs a run of this kind takes: one where there is one and PyTorch would use it.

    Of the machine that hands jobs to a cluster that says nothing: its profile tells how many GPUs there are, and
    Snakemake asks for no more. MLPs, which are short, leave them to others there.
    """
    if workflow.local_exec or workflow.remote_exec:
        return int(kind.backend == "torch" and gpu_visible())
    return int(kind.backend == "torch" and not kind.short)


NAMES = figure_names(plan.stage_settings(STUDY)["figures"])
FIGURES = [f"{RESULTS}/figures/{name}.pdf" for name in NAMES]


def caption(name):
    """A caption of the HTML report, which write_pages makes; Snakemake takes relative paths from the rule's file."""
    return str(Path(f"{RESULTS}/html/{name}.rst").absolute())


TITLES = {
    "summary": "Accuracies",
    "costs": "Costs",
    "claims": "Claims",
    "search": "Searches",
    "equations": "Equations",
}


def table(path):
    """A table, as a page or as the file that others read; the HTML report has a switch between the two."""
    name = Path(path).stem
    return report(
        path,
        caption=caption(name),
        category="Claims" if name == "claims" else "Tables",
        labels={
            "table": TITLES[name],
            "as": "page" if path.endswith(".html") else "raw file",
        },
    )


TABLED = [
    name
    for name in TITLES
    if {"search": STUDY.searches, "claims": STUDY.claims}.get(name, True)
]
PAGES = [f"{RESULTS}/html/{name}.html" for name in TABLED]
CAPTIONS = [
    f"{RESULTS}/html/{name}.rst"
    for name in ("workflow", "report", *TABLED, *(f"figures/{name}" for name in NAMES))
]
STYLE = f"{RESULTS}/html/style.css"
SHIFTED = [name for name in STUDY.shifts["variants"] if name in STUDY.variants]
FLIPPED = [name for name in STUDY.flipped if name in STUDY.variants]
BY_BATCH_STATISTICS = [
    name for name in STUDY.by_batch_statistics if name in STUDY.variants
]
TRIALS = [
    path
    for search in STUDY.searches
    for path in trial_files(search, "run.json", "curve.csv")
]
# Event files for TensorBoard, where the study asks for them: one job, as each file takes milliseconds.
EVENTS = [
    f"{RESULTS}/tensorboard/{variant}/seed-{seed}/events.out.tfevents"
    for variant in STUDY.variants
    for seed in STUDY.variants[variant].seeds
    if STUDY.tensorboard
]


def variant_threads(wildcards):
    return STUDY.variants[wildcards.variant].settings["threads"]


def variant_gpus(wildcards):
    return gpus(run_kind(wildcards))


def trial_threads(wildcards):
    return STUDY.searches[wildcards.search].trials()[wildcards.trial].settings.threads


def halving_threads(wildcards):
    search = STUDY.searches[wildcards.search]
    return search.base["threads"] * search.halving.workers


def trial_gpus(wildcards):
    return gpus(run_kind(wildcards))


def run_kind(wildcards):
    """The kind of model of a variant, or of all trials of a search."""
    if "variant" in wildcards.keys():
        return KINDS[STUDY.variants[wildcards.variant].settings["kind"]]
    return KINDS[STUDY.searches[wildcards.search].base["kind"]]


# What a run takes, where a scheduler wants to know. One that needs more is tried again with more, and goes on from its
# checkpoint.
def run_memory(wildcards, attempt):
    return run_kind(wildcards).memory_mb * attempt


def run_minutes(wildcards, attempt):
    return run_kind(wildcards).minutes * attempt


def short_runs(wildcards):
    """The group in which a run may share a job of a cluster, where the profile says with how many (`group-components`).

    Runs that wait for a search, and its trials, are groups of their own: no job of a group waits for another one in it.
    """
    if "variant" not in wildcards.keys():
        name = "trials"
    else:
        name = "tuned" if STUDY.variants[wildcards.variant].search else "runs"
    grouped = name in workflow.group_settings.group_components
    return name if grouped and run_kind(wildcards).short else None


def selected_settings(wildcards):
    search = STUDY.variants[wildcards.variant].search
    return f"{RESULTS}/search/{search}/selected.yaml" if search else []


def all_trials(wildcards):
    return trial_files(wildcards.search, "run.json")


def drawing(name):
    """A figure as the HTML report shows it; Snakemake asks for its title when it makes that report."""

    def labels(wildcards, output):
        index = json.loads(Path(output.index).read_text())
        title = next(f["title"] for f in index if f["name"] == name)
        # Snakemake takes what stands in braces for a wildcard, unless it is no word: a word joiner is not seen.
        return {"figure": title.replace("{", "{\u2060")}

    groups = {
        "curves": "Learning curves",
        "search": "Searches",
        "interactions": "Searches",
        "batch": "Searches",
    }
    return report(
        f"{RESULTS}/figures/{name}.svg",
        caption=caption(f"figures/{name}"),
        category="Figures",
        subcategory=groups.get(name.partition("-")[0], "Comparison and errors"),
        labels=labels,
    )


DRAWINGS = [drawing(name) for name in NAMES]
