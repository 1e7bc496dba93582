# What several rules need to know of the study.
from cifar_report.provenance import gpu_visible

STORE = "results/.store"

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


def gpus(kind):
    """How many GPUs a run of this kind takes: one where there is one and PyTorch would use it."""
    return int(kind.startswith("torch") and gpu_visible())


def variant_threads(wildcards):
    return STUDY.variants[wildcards.variant].settings["threads"]


def variant_gpus(wildcards):
    return gpus(STUDY.variants[wildcards.variant].settings["kind"])


def trial_threads(wildcards):
    return STUDY.searches[wildcards.search].trials()[wildcards.trial].threads


def halving_threads(wildcards):
    search = STUDY.searches[wildcards.search]
    return search.base["threads"] * search.halving.workers


def trial_gpus(wildcards):
    return gpus(STUDY.searches[wildcards.search].base["kind"])


def selected_settings(wildcards):
    search = STUDY.variants[wildcards.variant].search
    return f"{RESULTS}/search/{search}/selected.yaml" if search else []


def all_trials(wildcards):
    return trial_files(wildcards.search, "run.json")


NAMES = figure_names(plan.documents(STUDY)["stages/figures"]["settings"])
FIGURES = [f"{RESULTS}/figures/{name}.pdf" for name in NAMES]


def drawing(name):
    """A figure as the HTML report shows it."""
    path = f"{RESULTS}/figures/{name}.svg"
    return report(
        path,
        caption="../report/figures.rst",
        category="Figures",
        labels={"figure": name},
    )


DRAWINGS = [drawing(name) for name in NAMES]
SHIFTED = [name for name in STUDY.shifts["variants"] if name in STUDY.variants]
FLIPPED = [name for name in STUDY.flipped if name in STUDY.variants]
TRIALS = [
    path
    for search in STUDY.searches
    for path in trial_files(search, "run.json", "curve.csv")
]
