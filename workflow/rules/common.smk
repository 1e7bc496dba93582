# What several rules need to know of the study.
from cifar_report.provenance import gpu_visible

STORE = "results/.store"
DATASET = [
    f"{RESULTS}/dataset/{split}-{part}.npy"
    for split in ("train", "validation", "test")
    for part in ("images", "labels")
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
    """These files of every trial of a search."""
    return [
        f"{RESULTS}/search/{search}/{trial}/{name}"
        for trial in STUDY.searches[search].trials()
        for name in names
    ]


def gpus(kind):
    """How many GPUs a run of this kind takes: one where there is one and PyTorch would use it."""
    return int(kind.startswith("torch") and gpu_visible())


REPORT_SOURCES = sorted(
    str(path) for path in Path("report").rglob("*") if path.suffix in (".tex", ".bib")
)
