"""Each table and number of the report, on a small study written by hand: the rows by hand and by SciPy.

Three variants: `mlp` with four seeds, whose first diverged, `mlp-best` like it with the seeds 0 to 2, and `vgg` with
one. Test accuracies are in eighths or given outright, so that what is shown can be computed on paper.
"""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from sklearn.metrics import recall_score

from cifar_report.analysis import summary
from cifar_report.analysis.measurements import AGREEMENT, BATCH_STATISTICS, FLIPS
from cifar_report.base.files import array_digest, read_json, to_json
from cifar_report.data import datasets
from cifar_report.rendering import tables
from cifar_report.rendering.numbers import _common_numbers as common_texts
from cifar_report.rendering.numbers import _run_numbers as number_texts
from cifar_report.rendering.numbers import numbers, numbers_as_latex
from cifar_report.runs.finished import Run
from cifar_report.study.settings import Settings
from cifar_report.training.splits import Split, subset

CLASSES = ["cat & dog", "frog", "ship"]
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2])
COMMON = {
    "kind": "numpy-mlp",
    "optimiser": "sgd",
    "learning_rate": 0.002,
    "steps": 60,
    "batch_size": 4,
    "preprocessing": "mean-image",
    "evaluate_every": 10,
    "evaluation_images": 5,
    "threads": 1,
    "hidden": (100,),
    "slope": 0.02,
}
BEST = COMMON | {
    "kind": "torch-mlp",
    "optimiser": "adam",
    "learning_rate": 0.1,
    "hidden": (7, 5),
    "batch_norm": "torch",
}
VGG = {name: value for name, value in COMMON.items() if name not in ("hidden", "slope")} | {"kind": "torch-vgg"}
SETTINGS = {"mlp": COMMON, "mlp-best": BEST | {"initial_std": 0.5, "steps": 80}, "vgg": VGG | {"flip": True}}
# Of each completed seed: accuracy of test, training and validation; the others diverged.
TEST = {"mlp": {1: 0.40, 2: 0.44, 3: 0.48}, "mlp-best": {0: 0.90, 1: 0.50, 2: 0.60}, "vgg": {0: 0.75}}
TRAIN = {"mlp": {1: 0.52, 2: 0.60, 3: 0.62}, "mlp-best": {0: 0.95, 1: 0.7, 2: 0.8}, "vgg": {0: 0.96}}
SEEDS = {"mlp": [0, 1, 2, 3], "mlp-best": [0, 1, 2], "vgg": [0]}
ORIGINAL = {"mlp": 0.466, "mlp-best": None, "vgg": 0.81}


def run(name, seed, folder):
    done = seed in TEST[name]
    settings = Settings(**SETTINGS[name])
    accuracy = {"train": TRAIN, "validation": {}, "test": TEST}
    final = {
        split: {
            "loss": 1.25 + seed / 8 + (split == "test") if done else None,
            "accuracy": of.get(name, {}).get(seed, 0.1),
        }
        for split, of in accuracy.items()
        if split != "validation" or name == "vgg"
    }
    along = {0: 0.1, 40: 0.3 + seed / 100, 50: 0.32 + seed**2 / 100, 60: final["test"]["accuracy"]}
    rows = [
        (step, 4 * step, split, (2.0 if split == "test" else 1.5) + seed / 4 + step / 100, value)
        for step, value in along.items()
        for split in final
    ]
    record = {
        "status": "completed" if done else "diverged",
        "settings": settings.full(),
        "final": final,
        "samples_seen": settings.steps * settings.batch_size if done else 40,
        "parameters": {"mlp": 307, "mlp-best": 1234, "vgg": 56789}[name],
        "forward_flops": {"mlp": 614, "mlp-best": 2468, "vgg": 1e6}[name],
        "seconds": 2.0 + seed,
        "peak_memory_mb": 100.0 + seed,
        "device": {"type": "cpu", "cpu": "A & B"} if name != "vgg" else {"type": "cuda", "cpu": "C", "gpu": "H"},
        "threads": 1 if name != "vgg" else 2,
        "versions": {"python": "3", "numpy": "2", "torch": "9"},
        "commit": {"hash": {"vgg": "b" * 40}.get(name, "a" * 40), "time": {"vgg": 7}.get(name, 9), "dirty": False},
        "evaluation_subsets": {split: {"images": 5, "of": 8} for split in final},
    }
    path = folder / "runs" / name / f"seed-{seed}"
    path.mkdir(parents=True)
    np.save(path / "test-logits.npy", logits(seed))
    return Run(
        name, seed, record, pd.DataFrame(rows, columns=["step", "samples_seen", "split", "loss", "accuracy"]), path
    )


def logits(seed):
    return np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32) + np.eye(3, dtype=np.float32)[LABELS]


@pytest.fixture
def runs(tmp_path):
    return {name: [run(name, seed, tmp_path) for seed in seeds] for name, seeds in SEEDS.items()}


@pytest.fixture
def facts(runs):
    flips = [
        ("mlp", s, 8, 1.0, 0.9, TEST["mlp"][s], TEST["mlp"][s] + gain) for s, gain in ((1, 0.02), (2, 0.05), (3, 0.02))
    ]
    batches = [("vgg", 0, 8, 32, 8, 0.7, 0.75)]
    tables_of = pd.DataFrame(flips, columns=FLIPS), pd.DataFrame(batches, columns=BATCH_STATISTICS)
    return summary.facts(runs, LABELS, *tables_of)


STAGE = {
    "study": "a_study",
    "variants": [
        {"name": name, "label": label, "seeds": SEEDS[name], "search": None, "original_test_accuracy": ORIGINAL[name]}
        for name, label in (("mlp", "MLP_1"), ("mlp-best", "MLP, best"), ("vgg", "VGG"))
    ],
    "like": {"mlp-best": "mlp"},
    "main": ["mlp", "vgg"],
    "report": {"title": "T & U", "author": "A_B", "best": {"mlp": ["mlp-best"], "vgg": ["vgg-best"]}, "copy": "JPEGs"},
    "reproduces": "practical",
    "agreement": 1,
    "ablations": {},
    "recipes": {},
}


def cells(text):
    """The rows of a LaTeX table without its head, cell by cell."""
    _, breaks, rows = text.partition(r"\endhead")
    lines = [line for line in (rows or text).splitlines() if "&" in line][0 if breaks else 1 :]
    return [[cell.strip() for cell in line.removesuffix(r"\\").replace(r"\&", "\0").split("&")] for line in lines]


def head(text):
    return [
        cell.strip() for cell in next(line for line in text.splitlines() if "&" in line).removesuffix(r"\\").split("&")
    ]


def half(values):
    """Of Student's 95 % interval, in points."""
    values = list(values)
    return 100 * stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)


def percent(value, digits=2):
    return f"{100 * value:.{digits}f}"


def test_the_summary_and_its_table(runs, monkeypatch):
    """Seeds that diverged are counted and enter no mean; SD is of one run, SE of the images, ± of the mean."""
    monkeypatch.setattr(summary, "load_runs", lambda folder, variants: runs)
    table, costs = summary.summarise(STAGE, None)
    mlp = list(TEST["mlp"].values())
    low, high = stats.t.interval(0.95, 2, loc=0.44, scale=stats.sem(mlp))
    nan = pytest.approx(math.nan, nan_ok=True)
    best = [0.9, 0.5, 0.6]
    limits = stats.t.interval(0.95, 2, 2 / 3, stats.sem(best))
    approx = pytest.approx
    assert table.astype(object).values.tolist() == [
        ["mlp", "numpy", 307, 60, 4, 3, *map(approx, (0.44, 0.04, low, high, 0.58)), nan, 0.466, 1],
        ["mlp-best", "torch", 1234, 80, 4, 3, *map(approx, (2 / 3, stats.tstd(best), *limits, 2.45 / 3)), nan, nan, 0],
        ["vgg", "torch", 56789, 60, 4, 1, 0.75, nan, nan, nan, 0.96, 0.1, 0.81, 0],
    ]
    assert costs.astype(object).values.tolist() == [
        ["mlp", 3.5, pytest.approx((240 / 4 + 240 / 5) / 2), 103.0, 1, "A & B"],
        ["mlp-best", 3.0, pytest.approx(320 / 3), 102.0, 1, "A & B"],
        ["vgg", 2.0, 120.0, 100.0, 2, "H"],
    ]
    text = tables.summary_table(STAGE, table, 8)
    assert head(text) == [
        *("Variant", "{Parameters}", "{Images seen}", "{Seeds}", "{Test}", r"{$\pm$}", "{SD}", "{SE}", "{Original}")
    ]
    error, of_best = stats.binom(8, 0.44).std() / 8, math.sqrt(2 / 3 / 3 / 8)
    assert cells(text) == [
        [r"MLP\_1", "307", "240", r"3\rlap{$^{-1}$}", "44.00", f"{half(mlp):.2f}", "4.00", percent(error), "46.6"],
        ["MLP, best", "1234", "320", "3", "66.67", f"{half(best):.2f}", "20.82", percent(of_best), "{--}"],
        ["VGG", "56789", "240", "1", "75.00", "{--}", "{--}", percent(math.sqrt(0.75 * 0.25 / 8)), "81.0"],
    ]
    unprinted = tables.summary_table(STAGE, table.assign(original_test_accuracy=math.nan), 8)
    assert head(unprinted) == head(text)[:-1] and [len(row) for row in cells(unprinted)] == [8] * 3


def test_the_table_of_splits(facts):
    """Losses of the completed seeds; the gap is training minus test, of each seed; the calibration error by hand."""
    text = tables.splits_table(STAGE, facts)
    names = ("Variant", "{Training loss}", "{Test loss}", "{Training}", "{Test}", "{Gap}", r"{$\pm$}", "{ECE}")
    assert head(text) == list(names)

    def ece(seeds):
        return f"{calibration_error(seeds):.2f}"

    gaps = [0.52 - 0.40, 0.60 - 0.44, 0.62 - 0.48]
    assert cells(text) == [
        [r"MLP\_1", "1.500", "2.500", "58.00", "44.00", "14.00", f"{half(gaps):.2f}", ece([1, 2, 3])],
        ["MLP, best", "1.375", "2.375", "81.67", "66.67", "15.00", f"{half([0.05, 0.2, 0.2]):.2f}", ece([0, 1, 2])],
        ["VGG", "1.250", "2.250", "96.00", "75.00", "21.00", "{--}", ece([0])],
    ]


def test_the_table_of_differences_pairs_the_seeds_that_both_completed(facts):
    """Seed 0 of `mlp` diverged, so that seeds 1 and 2 are left: 0.50 - 0.40 and 0.60 - 0.44."""
    text = tables.differences_table(STAGE, facts)
    assert head(text) == ["Variant", "Compared with", "What is different", "{Pairs}", "{Difference}", r"{$\pm$}"]
    changed = r"7 settings (\cref{tab:settings})"
    assert cells(text) == [["MLP, best", r"MLP\_1", changed, "2", "13.00", f"{half([0.10, 0.16]):.2f}"]]
    few = summary.facts({"mlp": facts["mlp"].runs, "mlp-best": facts["mlp"].runs, "vgg": facts["vgg"].runs})
    assert cells(tables.differences_table(STAGE, few))[0][2:] == ["nothing", "3", "0.00", "0.00"]
    assert tables.differences_table(STAGE | {"like": {}}, facts).startswith("% No variant is like another")
    apart = cells(tables.differences_table(STAGE | {"like": {"vgg": "mlp"}}, facts))  # seed 0, which diverged in one
    assert apart == [["VGG", r"MLP\_1", r"4 settings (\cref{tab:settings})", "0", "{--}", "{--}"]]


def test_the_table_of_classes_is_scikit_learns_recall(facts):
    means = {
        name: np.mean([recall_score(LABELS, logits(s).argmax(axis=1), average=None) for s in TEST[name]], axis=0)
        for name in ("mlp", "vgg")
    }
    text = tables.classes_table(STAGE, facts, CLASSES)
    assert head(text) == ["Class", *(rf"{{\parbox[b]{{17mm}}{{\raggedleft {name}}}}}" for name in (r"MLP\_1", "VGG"))]
    expected = [[percent(means[name][c], 1) for name in ("mlp", "vgg")] for c in range(3)]
    assert [row[1:] for row in cells(text)] == expected
    assert [row[0] for row in cells(text)] == ["cat \0 dog", "frog", "ship"]


def test_of_many_classes_those_are_shown_that_the_last_model_has_the_lowest_accuracy_in(facts):
    names = [f"c{i}" for i in range(22)]
    accuracy = np.linspace(1, 0.5, 22)
    accuracy[0] = 0.1
    for name in ("mlp", "vgg"):
        facts[name].__dict__["class_accuracy"] = accuracy if name == "vgg" else accuracy[::-1]
    assert [row[0] for row in cells(tables.classes_table(STAGE, facts, names))] == ["c0", *names[3:]]


def test_the_table_of_flips_is_paired_by_seed(facts):
    text = tables.flips_table(STAGE, facts)
    assert head(text) == ["Variant", "{Seeds}", "{Test}", "{With flips}", "{Gain}", r"{$\pm$}"]
    gain = half([0.02, 0.05, 0.02])
    assert cells(text) == [[r"MLP\_1", "3", "44.00", "47.00", "3.00", f"{gain:.2f}"]]
    assert tables.flips_table(STAGE, {"vgg": facts["vgg"]}).startswith("% No variant is measured")


def test_the_table_of_agreement_has_the_largest_of_each_pair():
    rows = [
        ("mlp", "vgg", 0, step, 1, 1, loss, gradient, "t", 6 - step, step, 2, 30)
        for step, loss, gradient in ((0, 1e-7, 2e-5), (1, 3e-6, 1e-6), (2, 2e-7, 4e-6))
    ]
    text = tables.agreement_table(STAGE, pd.DataFrame(rows, columns=AGREEMENT))
    assert cells(text) == [[r"MLP\_1", "VGG", "3", r"\num{3.0e-06}", r"\num{2.0e-05}", "4", "2", "6", "90"]]
    assert tables.agreement_table(STAGE, pd.DataFrame(columns=AGREEMENT)).startswith("% No two implementations")


def test_the_table_of_settings(runs):
    text = tables.settings_table(STAGE, runs, tables.common(summary.facts(runs)))
    names = ("Variant", "Hidden units", "Optimiser", "{Rate}", "{Steps}", "{Batch}", "Initial weights", "Seeds")
    assert head(text) == list(names)
    assert cells(text) == [
        [r"MLP\_1", "100", "SGD", "0.002", "60", "4", "PyTorch's", "0--3"],
        [
            r"MLP, best\newline with batch norm (torch)",
            "7, 5",
            "Adam",
            "0.1",
            "80",
            "4",
            r"$\varsigma = \num{0.5}$",
            "0--2",
        ],
        [r"VGG\newline with flips", "a VGG", "SGD", "0.002", "60", "4", "PyTorch's", "0"],
    ]
    other = runs["mlp-best"][0].record
    other["settings"] = other["settings"] | {"slope": 0.4}
    apart = cells(tables.settings_table(STAGE, runs, tables.common(summary.facts(runs))))
    assert [re.search("slope.*?}|$", row[0])[0] for row in apart] == [r"slope \num{0.02}", r"slope \num{0.4}", ""]


def test_the_table_of_provenance_joins_what_is_alike(runs):
    text = tables.provenance_table(STAGE, runs)
    assert head(text) == ["Device", "Threads and versions", "Again", "Variants"]
    versions = "Python 3, NumPy 2, PyTorch 9"
    assert cells(text) == [
        ["A \0 B", f"1 thread, {versions}", "same bits", r"MLP\_1; MLP, best"],
        ["H", f"2 threads, {versions}", "statistics", "VGG"],
    ]


def test_what_computed_a_variant_is_told_once_in_the_order_of_its_name(runs):
    for each, cpu in zip(runs["mlp"], ("D", "B", "C", "B"), strict=True):
        each.record["device"] = {"type": "cpu", "cpu": cpu}
    ((devices, versions, *_),) = cells(tables.provenance_table(STAGE, {"mlp": runs["mlp"]}))
    assert (devices, versions) == ("B; C; D", "1 thread, Python 3, NumPy 2, PyTorch 9")


def test_the_table_of_layers_sums_parameters_and_operations(runs):
    text = tables.layers_table(runs, (3, 32, 32), 10)
    rows = cells(text)
    assert head(text) == ["Layer", "Output", "{Parameters}", "{Operations}"]
    assert rows[0] == [
        r"convolution 3×3, ReLU",
        r"64$\times$32$\times$32",
        str(3 * 9 * 64 + 64),
        str(2 * 27 * 64 * 1024),
    ]
    assert rows[-1][:2] == [r"\midrule in all", ""]
    for column in (2, 3):
        assert int(rows[-1][column]) == sum(int(row[column]) for row in rows[:-1])
    assert tables.layers_table({"mlp": runs["mlp"]}, (3, 32, 32), 10).startswith("% The study runs no")


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"test-images": rng.integers(0, 256, (8, 3, 2, 2), dtype=np.uint8), "test-labels": LABELS}
    (tmp_path / "dataset").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / f"dataset/{name}.npy", array)
    digests = {f"{split}-{part}": f"{split}{part}" * 9 for split in datasets.SPLITS for part in ("images", "labels")}
    said = {
        "name": "my_data",
        "source": "digits",
        "class_names": CLASSES,
        "counts": {"train": 20, "validation": 4, "test": 8},
        "shape": [3, 2, 2],
        "sha256": digests | {name: array_digest(array) for name, array in arrays.items()},
    }
    return datasets.Dataset(tmp_path / "dataset", datasets.Description.model_validate(said))


def test_every_number_of_the_text(facts, data):
    """By hand from the study above; those of the statistics by SciPy."""
    entries = numbers(STAGE, facts, data, None, [], [])
    texts = {key: entry["text"] for key, entry in entries.items() if not key.startswith("sources.")}

    def of(prefix):
        return {key.removeprefix(prefix): text for key, text in texts.items() if key.startswith(prefix)}

    def percents(value, values=()):
        limits = f" +- {half(values):.2f}" if len(values) > 1 else ""
        return rf"\qty{{{100 * value:.2f}{limits}}}{{\percent}}"

    def in_points(value, values=()):
        return percents(value, values).replace(r"\qty", r"\num").replace(r"{\percent}", " percentage points")

    test, train = (np.array(list(each["mlp"].values())) for each in (TEST, TRAIN))
    digest = array_digest(np.load(data.folder / "test-images.npy"))[:12]
    assert of("data.") == {
        "name": r"my\_data",
        "note": "The images are JPEGs; accuracies on the original files may differ by an unknown amount.",
        "copy": "Ours are of JPEGs.",
        "classes": r"\num{3}",
        "class-names": r"cat \& dog, frog, ship",
        "shape": r"3 \times 2 \times 2",
        "inputs": r"\num{12}",
        "pixels": r"2 \times 2",
        "colours": "colour",
        "train-images": r"\num{20}",
        "validation-images": r"\num{4}",
        "test-images": r"\num{8}",
        "held-out": r"\num{4}",
        "training-images": r"\num{24}",
        "digest": f"train-images trainimagest, validation-images validationim, test-images {digest}",
        "chance": r"\qty{37.5}{\percent}",
    }
    words = "a multilayer perceptron whose back-propagation is written by hand in NumPy, the same network in PyTorch"
    assert of("study") | of("report") | of("runs") | of("commit") == {
        "": r"commits \texttt{bbbbbbb}, \texttt{aaaaaaa}",  # by their times
        ".short": r"\texttt{aaaaaaa} and 1 earlier",
        ".note": "without uncommitted changes",
        ".variants": r"\num{3} variants",
        ".originals": r"\num{2}",
        ".runs": r"\num{8} runs",
        ".diverged": r"\num{1}",
        ".seeds": r"\num{1} to \num{4} seeds",
        ".several": "yes",
        ".accuracies": rf"Mean test accuracies go from {percents(0.44, test)} (``MLP\_1'') "
        f"to {percents(0.75)} (``VGG'').",
        ".networks": f"{words}, batch normalisation and a convolutional network after VGG",
        ".title": r"T \& U",
        ".author": r"A\_B",
        ".mlp": r"\num{7}",
        ".vgg": r"\num{1}",
        ".numpy": r"\num{4}",
        ".torch": r"\num{4}",
    }
    error = 0.04 * math.sqrt(4 / 3)  # of one new run: s sqrt(1 + 1/3)
    reach = stats.t.ppf(0.975, 2) * error
    p = 2 * stats.t.sf((0.466 - 0.44) / error, 2)
    mlp = of("mlp.")
    noise = {key: mlp.pop(key) for key in list(mlp) if key.startswith("noise")}
    spread = [mlp.pop(f"last-spread{end}") for end in ("", "-largest")]
    assert mlp == {
        "label": r"MLP\_1",
        "original": r"\qty{46.6}{\percent}",
        "seeds": r"\num{3}",
        "diverged": r"\num{1}",
        "parameters": r"\num{307}",
        "steps": r"\num{60}",
        "batch-size": r"\num{4}",
        "learning-rate": r"\num{0.002}",
        "images-seen": r"\num{240}",
        "hidden": "100",
        "forward-flops": r"\num{6.1e+02}",
        "training-flops": r"\num{4.4e+05}",  # 3 times 614 times 240
        "evaluation-images": r"\num{5}",
        "train-accuracy": percents(0.58, train),
        "train-loss": r"\num{1.500}",
        "test-accuracy": percents(0.44, test),
        "test-loss": r"\num{2.500}",
        "gap": in_points(0.14, train - test),
        "test-accuracy-binomial": percents(math.sqrt(0.44 * 0.56 / 8)),
        "test-accuracy-std": r"\num{4.00} percentage points",
        "prediction": rf"\num{{{44 - 100 * reach:.1f}}} to \qty{{{44 + 100 * reach:.1f}}}{{\percent}}",
        "prediction-low": rf"\qty{{{44 - 100 * reach:.1f}}}{{\percent}}",
        "prediction-high": rf"\qty{{{44 + 100 * reach:.1f}}}{{\percent}}",
        "prediction-half": rf"\num{{{100 * reach:.1f}}}",
        "compatible": "compatible",
        "detectable": r"\num{26.1}",  # 6.53 s: with 80 % power, by simulation in test_compatibility.py
        "p": rf"\num{{{p:.3f}}}",
        "next-reaches": rf"\qty{{{50 * p:.1f}}}{{\percent}}",
        "reached": r"\num{1}",
        "ece": rf"\qty{{{calibration_error([1, 2, 3]):.1f}}}{{\percent}}",
        "test-accuracy-flipped": percents(0.47, test + np.array([0.02, 0.05, 0.02])),
        "flip-gain": in_points(0.03, [0.02, 0.05, 0.02]),
        "first-loss": r"\num{2.5}",
        **first_loss(np.load(data.folder / "test-images.npy").astype(np.float64)),
    }
    # Noise: of seeds 1 to 3 at steps 40 and 50, 0.31, 0.32, 0.33 and 0.33, 0.36, 0.41, without the mean of each step.
    rest = np.array([[-1, -11 / 3], [0, -2 / 3], [1, 13 / 3]]) / 100
    within = ((rest - rest.mean(axis=1, keepdims=True)) ** 2).sum() / 2
    between = 2 * (rest.mean(axis=1) ** 2).sum() / 2
    tails = np.array([0.975, 0.025])
    along = 100 * np.sqrt([within, *(2 * within / stats.chi2.ppf(tails, 2))])
    excess = (between - within * stats.f.ppf(tails, 2, 2)) * 2 / (2 * stats.chi2.ppf(tails, 2))
    levels = 100 * np.sqrt(np.maximum([(between - within) / 2, *excess], 0))
    ends = ("", "-low", "-high")
    assert noise == {
        "noise-from": r"\num{40}",
        "noise-to": r"\num{50}",
        "noise-images": r"\num{5}",
        **{f"noise-along{end}": rf"\num{{{value:.2f}}}" for end, value in zip(ends, along, strict=True)},
        **{f"noise-between{end}": rf"\num{{{value:.2f}}}" for end, value in zip(ends, levels, strict=True)},
    }
    # The last fifth: step 50, and the last step on five images, drawn as those of the curve are.
    chosen = subset(Split(np.zeros((8, 1)), LABELS), 5)
    last = [np.mean(logits(seed)[chosen].argmax(axis=1) == LABELS[chosen]) for seed in (1, 2, 3)]
    spreads = 100 * np.abs(np.array(last) - [0.33, 0.36, 0.41])
    assert spread == [rf"\num{{{spreads.mean():.1f}}}", rf"\num{{{spreads.max():.1f}}}"]

    best = of("mlp-best.")
    assert {"original", "prediction", "noise-from", "due-loss", "flip-gain", "last-spread"} & best.keys() == set()
    assert best["difference"] == in_points(0.13, [0.10, 0.16])
    assert (best["hidden"], best["learning-rate"], best["training-flops"]) == ("7, 5", r"\num{0.1}", r"\num{2.4e+06}")
    vgg = of("vgg.")
    assert {key: text for key, text in vgg.items() if "batch-statistics" in key} == {
        "batch-statistics-accuracy": r"\qty{70.00}{\percent}",
        "batch-statistics-difference": r"\num{-5.00} percentage points",
        "batch-statistics-batch": r"\num{8}",  # there are no more images
    }
    assert (vgg["validation-accuracy"], vgg["test-accuracy"]) == (percents(0.1), percents(0.75))
    assert vgg["gap"] == in_points(0.21)
    assert {"prediction", "test-accuracy-std", "difference", "due-loss"} & vgg.keys() == set()
    assert of("compatibility") == {
        "": r"\num{1} accuracy",
        ".compatible": r"\num{1}",
        ".joint": r"\qty{95.0}{\percent}",
    }
    assert (
        best["initial-deviation"] == r"\num{0.5}" and not {"mlp.initial-deviation", "layers.batch-norm"} & texts.keys()
    )
    assert (texts["settings.slope"], texts["settings.train-on"]) == (r"slope \num{0.02}", "trained on training images")
    counts = {"noise": 1, "best": 1, "flips": 1, "differences": 1, "agreement": 1, "calibration.bins": 15}
    assert {key: texts[key] for key in counts} == {key: rf"\num{{{count}}}" for key, count in counts.items()}
    assert texts["provenance.differs"] == r"\num{2}" and "provenance" not in texts and texts["practical"] == "yes"


def calibration_error(seeds):
    """In per cent, the mean over seeds: 15 bins of confidence, open below (Guo et al. 2017)."""
    each = []
    for seed in seeds:
        shares = special.softmax(logits(seed).astype(np.float64), axis=1)
        confidence, right = shares.max(axis=1), shares.argmax(axis=1) == LABELS
        table = pd.DataFrame({"confidence": confidence, "right": right, "bin": pd.cut(confidence, np.arange(16) / 15)})
        bins = table.groupby("bin", observed=True)
        each.append((bins["right"].mean() - bins["confidence"].mean()).abs() @ bins.size() / 8)
    return 100 * np.mean(each)


def first_loss(images):
    """What is due of 100 hidden units, a slope of 0.02, three classes and twelve pixels (eq:initial-logits)."""
    differences = (images - images.mean(axis=0)).reshape(8, 12)
    squares = (differences**2).sum(axis=1)
    deviation = np.sqrt(1 / 300 + (1 + 0.02**2) / (18 * 12) * (1 + squares)).mean()
    largest = 3 / (2 * math.sqrt(math.pi))  # the mean of the largest of three standard normal numbers
    return {
        "pixel-deviation": rf"\num{{{np.sqrt(squares / 12).mean():.1f}}}",
        "logit-deviation": rf"\num{{{deviation:.1f}}}",
        "largest-logit": rf"\num{{{largest:.2f}}}",
        "due-loss": rf"\num{{{deviation * largest:.1f}}}",
        "uniform-loss": r"\num{1.1}",  # log 3
    }


def test_numbers_name_the_runs_that_they_are_the_mean_of(facts, data):
    entries = numbers(STAGE, facts, data, None, [], [])
    done = [f"runs/mlp/seed-{seed}/run.json" for seed in (1, 2, 3)]
    assert entries["mlp.test-accuracy"]["files"] == entries["mlp.test-accuracy"]["runs"] == done
    every = [f"runs/{name}/seed-{seed}/run.json" for name, seeds in SEEDS.items() for seed in seeds]
    assert entries["study.runs"]["files"] == entries["commit"]["files"] == every and "runs" not in entries["study.runs"]
    assert entries["mlp.diverged"]["files"] == every[:4] and entries["mlp.parameters"]["files"] == every[:1]
    assert entries["mlp-best.difference"]["files"] == every[4:7] + every[:4]
    assert entries["compatibility"]["files"] == every[:4] + every[7:] + ["batch-statistics.csv"]
    assert entries["data.classes"]["files"] == ["dataset/dataset.json"]
    assert entries["flips"]["files"] == ["flips.csv"]
    logits_of_all = [file.replace("run.json", "test-logits.npy") for file in every[1:]]
    sources = {
        key.removeprefix("sources.tables/"): entry["files"] for key, entry in entries.items() if "sources." in key
    }
    assert sources == {
        "summary": ["summary.csv"],
        "compatibility": entries["compatibility"]["files"],
        "splits": every + logits_of_all,
        "differences": every,
        "classes": [*logits_of_all[:3], logits_of_all[-1]],
        "best": every[:7],
        "flips": ["flips.csv"],
        "agreement": ["agreement.csv"],
        "noise": [name for file in done for name in (file, file.replace("run.json", "curve.csv"))],
        "settings": [every[0], every[4], every[7]],
        "layers": every[7:],
        "search": [],
        "ablations": [],
        "recipes": [],
        "search-figures": ["figures/figures.json"],
        "figures": ["figures/figures.json"],
        "provenance": every,
    }
    lines = numbers_as_latex(entries, {name: each.runs for name, each in facts.items()}).splitlines()
    assert lines[0] == "% SOURCE_DATE_EPOCH 9" and r"\setresult{mlp.seeds}{\num{3}}" in lines


def test_every_number_of_a_variant_names_the_files_that_it_is_from(facts, data):
    """By hand, of one with four runs, of which the first diverged."""
    entries = numbers(STAGE, facts, data, None, [], [])
    found: dict[str, set[str]] = {}
    for key, entry in entries.items():
        variant, _, name = key.partition(".")
        if variant == "mlp":
            files = " ".join(file.removeprefix("runs/mlp/") for file in entry["files"])
            found.setdefault(files, set()).add(name)

    def of(*files, seeds=(1, 2, 3)):
        return " ".join(f"seed-{seed}/{file}" for seed in seeds for file in files)

    limits = ("", "-low", "-high")
    reached = {"compatible", "detectable", "p", "next-reaches", "reached"}
    assert found == {
        "plan/stages/tables.json": {"label", "original"},
        of("run.json", seeds=range(4)): {"seeds", "diverged"},
        of("run.json", seeds=[0]): {"parameters", "steps", "batch-size", "learning-rate", "images-seen", "hidden"}
        | {"forward-flops", "training-flops", "evaluation-images"},
        of("run.json"): {f"{split}-{metric}" for split in ("train", "test") for metric in ("accuracy", "loss")}
        | {"gap", "test-accuracy-binomial", "test-accuracy-std", "prediction-half"}
        | {f"prediction{end}" for end in limits}
        | reached,
        of("test-logits.npy"): {"ece"},
        "flips.csv": {"test-accuracy-flipped", "flip-gain"},
        of("run.json", "curve.csv"): {"noise-from", "noise-to", "noise-images", "first-loss"}
        | {f"noise-{which}{end}" for which in ("along", "between") for end in limits},
        of("test-logits.npy", "curve.csv"): {"last-spread", "last-spread-largest"},
        "dataset/test-images.npy": {"pixel-deviation", "logit-deviation", "largest-logit", "due-loss", "uniform-loss"},
    }
    measured = pd.DataFrame([("mlp", s, 8, 32, 8, 0.4, 0.5) for s in (1, 2, 3)], columns=BATCH_STATISTICS)
    facts |= {"mlp": dataclasses.replace(facts["mlp"], by_batch_statistics=measured)}
    entries = numbers(STAGE, facts, data, None, [], [])
    assert entries["mlp.prediction"]["files"] == ["batch-statistics.csv"]
    assert entries["mlp.prediction-evaluated"]["files"] == of("run.json").replace("seed", "runs/mlp/seed").split()


def test_a_study_that_reproduces_nothing_has_no_practical(facts, data):
    assert numbers(STAGE, facts, data, None, [], [])["practical"]["text"] == "yes"
    assert "practical" not in numbers(STAGE | {"reproduces": ""}, facts, data, None, [], [])
    assert numbers_as_latex({}, {}) == "% SOURCE_DATE_EPOCH 0\n"


def columns_of(text):
    """Of each table its environment, its columns, and the cells of its head."""
    for environment, spec, row in re.findall(
        r"\\begin\{(tabularx?|xltabular)\}(.*?)\n *\\toprule(.*?)\\\\\n", text, re.DOTALL
    ):
        bare = re.sub(r"(>|@)\{(?:[^{}]|\{[^{}]*\})*\}|\{\\textwidth\}|[{}]", "", spec)
        yield environment, re.findall(r"S\[[^]]*\]|[lcrX]", bare), re.split(r"(?<!\\)&", row)


def test_lists_of_figures():
    figures = [{"name": n} for n in ("curves-a", "curves-b", "curves-c", "samples", "search-x", "own", "batch-size")]
    assert tables.search_figure_list(figures) == "\\resultfigure{search-x}\n\\resultfigure{batch-size}\n"
    assert tables.figure_list(figures) == (
        "\\curve{curves-a}\\hfill\n\\curve{curves-b}\n\\par\\bigskip\n\\curve{curves-c}\n\\resultfigure{own}\n"
    )
    assert tables.figure_list(figures, ["b"]) == "\\curve{curves-a}\\hfill\n\\curve{curves-c}\n\\resultfigure{own}\n"


def trials(*rows, search="grid"):
    """(rate, seed, accuracy, loss, selected, rung, status)."""
    columns = ["learning_rate", "seed", "validation_accuracy", "validation_loss", "selected", "rung", "status"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(trial=[f"t{i}" for i in range(len(rows))], step=10 * table["rung"], curve="", search=search)


SEARCH = trials(
    ("0.10", 0, 0.50, 1.0, False, 1, "completed"),
    ("0.10", 1, 0.60, 1.0, False, 1, "completed"),
    ("0.20", 0, 0.70, 1.0, True, 1, "completed"),
    ("0.20", 1, 0.72, 1.0, True, 1, "completed"),
    ("0.30", 0, 0.90, 1.0, False, 1, "completed"),
    ("0.30", 1, 0.10, math.nan, False, 1, "diverged"),
)


def test_the_table_of_a_search_has_the_best_means_and_their_spread():
    text = tables.search_table(SEARCH)
    assert text.startswith("\\code{grid}\\par\\smallskip\n")
    assert head(text) == ["Learning rate", "{Validation}", "{SD}"]
    bold = r"\bfseries "
    rows = [["0.3", "90.0", "nan"], [f"{bold}0.2", f"{bold}71.0", f"{bold}1.4"], ["0.1", "55.0", "7.1"]]
    assert cells(text) == rows
    assert cells(tables.search_table(SEARCH, best=2)) == rows[:2]
    assert tables.search_table(None).startswith("% The study has no search")
    assert tables.search_table(SEARCH, ["grid"]).startswith("% The study has no search")


def test_the_table_of_a_halving_begins_with_its_longest_rung():
    halving = trials(
        ("0.1", 0, 0.90, 1.0, False, 1, "completed"),
        ("0.2", 0, 0.80, 1.0, False, 1, "completed"),
        ("0.1", 0, 0.60, 1.0, True, 2, "completed"),
        search="drawn",
    )
    text = tables.search_table(halving)
    assert head(text) == ["Learning rate", "Steps", "{Validation}"]
    assert cells(text) == [
        [r"\bfseries 0.1", r"\bfseries 20", r"\bfseries 60.0"],
        ["0.1", "10", "90.0"],
        ["0.2", "10", "80.0"],
    ]
    both = tables.search_table(pd.concat([SEARCH, halving]))
    assert both.count(r"\begin{tabular}") == 2 and "\\par\\bigskip\n\\code{grid}" in both


def test_numbers_of_searches_ablations_claims_and_figures(facts, data):
    halving = trials(
        ("0.1", 0, 0.90, 1.0, False, 1, "completed"),
        ("0.2", 0, 0.80, 1.0, False, 1, "completed"),
        ("0.1", 0, 0.60, 1.0, True, 2, "completed"),
        search="drawn",
    )
    taken_out = trials(
        *(("0.1", seed, value, 1.0, False, 1, "completed") for seed, value in enumerate((0.60, 0.63, 0.61))),
        *(("0.2", seed, value, 1.0, False, 1, "completed") for seed, value in enumerate((0.55, 0.59, 0.55))),
        search="parts",
    )
    stage = STAGE | {"ablations": {"parts": {"configurations": ["whole", "rate"]}}, "recipes": {"log": {}}}
    part = {"id": "own", "unit": "points", "estimate": 0.06, "ci95_low": 0.035, "ci95_high": 0.085, "verdict": None}
    lacking = part | {"id": "other", "estimate": None}
    claims = [
        {"id": "one", "verdict": "supported", "sampled": True, "changed": {}, "parts": [part, lacking]},
        {"id": "two", "verdict": "untested", "sampled": True, "changed": None, "parts": []},
        {"id": "three", "verdict": "supported", "sampled": False, "changed": None, "parts": []},
    ]
    figure = {
        "name": "f",
        "title": "T_1",
        "caption": "5 % less, or -3 of a-b",
        "facts": {"a-b": "1 %"},
        "sources": ["s.csv"],
    }
    entries = numbers(stage, facts, data, pd.concat([SEARCH, halving, taken_out]), claims, [figure])
    texts = {key: entry["text"] for key, entry in entries.items()}

    def of(prefix):
        return {key.removeprefix(prefix): text for key, text in texts.items() if key.startswith(prefix)}

    # Each seed of the grid chooses among 0.10 and 0.20, as 0.30 diverged once; the other seed tells what it is worth.
    assert of("search.grid.") == {
        "trials": r"\num{6}",
        "configurations": r"\num{3}",
        "rungs": r"\num{1}",
        "first-steps": r"\num{10}",
        "worst-validation-accuracy": r"\qty{55.0}{\percent}",
        "seeds": r"\num{2}",
        "worst": r"learning rate 0.1 (\qty{55.0}{\percent}) and learning rate 0.2 (\qty{71.0}{\percent})",
        "selection-bias": r"\num{0.0} percentage points",
        "selection-bias-low": r"\num{-2.0}",
        "selection-bias-high": r"\num{2.0} percentage points",
    }
    assert of("search.drawn.") == {
        "trials": r"\num{3}",
        "configurations": r"\num{2}",
        "rungs": r"\num{2}",
        "first-steps": r"\num{10}",
        "worst-validation-accuracy": r"\qty{80.0}{\percent}",
        "seeds": r"\num{1}",
    }
    assert texts["search.listed"] == r"\num{9} trials"  # neither ablations nor recipes
    assert (texts["search.trials"], texts["ablations"], texts["recipes"]) == (r"\num{15}", r"\num{1}", r"\num{1}")
    differences = [0.05, 0.04, 0.06]  # one comparison over common seeds: Student's paired interval
    assert of("ablations.") == {"parts.rate": rf"\num{{5.00 +- {half(differences):.2f}}} percentage points"}
    assert of("claims") == {
        "": r"\num{3} claims",
        **{f".{verdict}": rf"\num{{{count}}}" for verdict, count in zip(VERDICTS, (2, 0, 0, 0, 1), strict=True)},
        ".sampled": r"\num{1}",
        ".changed": r"\num{1}",
        ".one.verdict": "supported",
        ".one.own": r"\num{6.0} percentage points (\qty{95}{\percent} interval \num{3.5} to \num{8.5})",
        ".two.verdict": "untested",
        ".three.verdict": "supported",
    }
    assert texts["figures.f"] == r"5\,\% less, or $-$3 of a-b" and texts["alternative.f"] == r"T\_1. a b: 1 \%"
    assert entries["sources.f"]["files"] == ["s.csv"] and entries["claims"]["files"] == ["claims.json"]
    assert entries["search.grid.trials"]["files"] == entries["sources.tables/search"]["files"] == ["search.csv"]


VERDICTS = ("supported", "refuted", "mixed", "inconclusive", "untested")


@pytest.mark.parametrize(
    ("name", "seeds", "said"),
    [
        ("vgg", r"\num{1} seed", r"``VGG'' classifies \qty{75.00}{\percent} correctly."),
        (
            "mlp",
            r"\num{4} seeds",
            r"``MLP\_1'' classifies \qty{44.00 +- 9.94}{\percent} correctly.",
        ),
    ],
)
def test_a_study_of_one_variant_says_what_it_reaches(facts, name, seeds, said):
    stage = STAGE | {"variants": [variant for variant in STAGE["variants"] if variant["name"] == name]}
    texts = common_texts(stage, {name: facts[name]})
    assert (texts["study.accuracies"], texts["study.seeds"], "study.several" in texts) == (
        f"Of the test images, {said}",
        seeds,
        name == "mlp",
    )


def test_what_a_study_of_one_machine_says_of_it(runs):
    """One origin is told whole; commits that are unknown, and changes that were not committed, are told too."""
    of_mlp = {"mlp": summary.Facts(runs["mlp"])}
    texts = number_texts(of_mlp["mlp"].runs)
    said = r"A \& B (1 thread, Python 3, NumPy 2, PyTorch 9), and give the same bits again."
    assert texts["provenance"] == f"All were trained on {said}" and "provenance.differs" not in texts
    assert (texts["commit"], texts["commit.short"]) == (r"commit \texttt{aaaaaaa}", r"\texttt{aaaaaaa}")
    for run_ in runs["mlp"]:
        run_.record["commit"] = {"hash": None, "time": None, "dirty": True}
    texts = number_texts(runs["mlp"])
    assert (texts["commit"], texts["commit.short"]) == ("commit none", "none")
    assert texts["commit.note"] == "with changes that were not committed"
    assert numbers_as_latex({}, runs) == "% SOURCE_DATE_EPOCH 9\n"
    assert numbers_as_latex({}, {"mlp": runs["mlp"]}) == "% SOURCE_DATE_EPOCH 0\n"


def misfits(text):
    """Numbers of a table that its aligned columns have no room for: `+2.1` has a sign, two digits and one decimal."""
    found = []
    for spec, body in re.findall(
        r"\\begin\{(?:tabularx?|xltabular)\}(.*?)\n\\toprule(.*?)\\bottomrule", text, re.DOTALL
    ):
        spec = re.sub(r"(>|@)\{(?:[^{}]|\{[^{}]*\})*\}|\{\\textwidth\}|[{}]", "", spec)
        columns = re.findall(r"S\[table-format=([+\d.]+)[^]]*\]|([lcrX])", spec)
        for row in re.split(r"\\\\(?:\n|$)", body):
            for cell, (room, _) in zip(re.split(r"(?<!\\)&", row), columns, strict=False):
                if room and (number := re.match(r"(?:\\bfseries )?([+-]?)(\d+)\.?(\d*)", cell.strip())):
                    whole, _, decimals = room.lstrip("+").partition(".")
                    sign = number[1] and not room.startswith("+")
                    if sign or len(number[2]) > int(whole) or len(number[3]) > int(decimals):
                        found.append((room, cell.strip()))
    return found


def test_what_a_column_has_no_room_for_is_found():
    table = r"\begin{tabular}{@{}l S[table-format=+2.1]@{}}" + "\n\\toprule\na \\& b & %s \\\\\n\\bottomrule"
    assert not any(misfits(table % cell) for cell in ("12.3", "-1.0", "{--}", r"\bfseries 1.0"))
    assert all(misfits(table % cell) for cell in ("123.0", "1.25", "-100"))
    assert misfits((table % "-1.0").replace("+", ""))


def test_each_table_is_written_under_its_name(runs, data, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "load_runs", lambda folder, variants: runs)
    monkeypatch.setattr(summary, "load_runs", lambda folder, variants: runs)
    monkeypatch.setattr(datasets, "load", lambda folder: data)
    monkeypatch.setattr(
        tables, "layers_table", lambda runs, shape, classes: f"{shape} {classes}\n"
    )  # of a larger image
    summary.write_summary(STAGE, tmp_path, tmp_path / "summary.csv", tmp_path / "costs.csv")
    SEARCH.assign(validation_loss=1.0).to_csv(tmp_path / "search.csv", index=False)
    (tmp_path / "claims.json").write_text("[]")
    (tmp_path / "figures").mkdir()
    names = ["curves-mlp", "curves-mlp-best", "search-grid"]
    figures = [{"name": name, "title": "T", "caption": "C", "facts": {}, "sources": []} for name in names]
    (tmp_path / "figures/figures.json").write_text(to_json(figures))
    flips = pd.DataFrame([("mlp", s, 8, 1, 1, 0.4, 0.5) for s in (1, 2, 3)], columns=FLIPS)
    batches = pd.DataFrame([("mlp", s, 8, 32, 8, 0.4, 0.5) for s in (1, 2, 3)], columns=BATCH_STATISTICS)
    agreement = pd.DataFrame([("mlp", "vgg", 0, 0, 1, 1, 1e-7, 2e-5, "t", 6, 0, 2, 30)], columns=AGREEMENT)
    for name, table in (("flips", flips), ("batch-statistics", batches), ("agreement", agreement)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    tables.write(STAGE | {"searches": ["grid"]}, tmp_path)
    written = {path.stem: path.read_text() for path in (tmp_path / "tables").glob("*.tex")}
    assert set(written) == set(tables.TABLES)
    parts = {
        "summary": r"3\rlap{$^{-1}$} & 44.00",
        "compatibility": r"MLP\_1\newline by batch statistics, as the original & 46.6 & 3 & 40.00",
        "splits": "14.00",
        "differences": r"MLP, best & MLP\_1 &",
        "classes": r"cat \& dog",
        "best": r"MLP\_1 & 46.6 & 44.00",
        "flips": "44.00 & 50.00 & 10.00 & 0.00",
        "noise": r"MLP\_1 & 3 & 40 to 50 & 5",
        "agreement": r"MLP\_1 & VGG & 1",
        "settings": r"newline with flips",
        "layers": "(3, 2, 2) 3",
        "search": r"\code{grid}",
        "ablations": "% The study has no ablation",
        "recipes": "% The study has no log of recipes",
        "search-figures": r"\resultfigure{search-grid}",
        "figures": r"\curve{curves-mlp-best}",
        "provenance": "same bits",
    }
    assert parts.keys() == written.keys() and not [name for name, part in parts.items() if part not in written[name]]
    assert {name: misfits(text) for name, text in written.items() if misfits(text)} == {}
    for name, text in written.items():
        for environment, columns, cells_of_head in columns_of(text):
            assert len(columns) == len(cells_of_head), name
            assert ("X" in columns) == (environment != "tabular"), name  # LaTeX knows it in these alone
    assert "curves-mlp}" not in written["figures"]  # its original's figure shows them
    found = read_json(tmp_path / "numbers.json")
    assert found["mlp.flip-gain"]["text"] == r"\num{10.00 +- 0.00} percentage points"
    assert found["mlp.seeds"]["text"] == r"\num{3}" and found["search.trials"]["text"] == r"\num{6}"
    assert r"\setresult{mlp.seeds}{\num{3}}" in (tmp_path / "numbers.tex").read_text()


def test_of_equals_in_a_search_the_one_of_the_lower_loss_stands_first():
    equals = trials(("0.1", 0, 0.5, 2.0, False, 1, "completed"), ("0.2", 0, 0.5, 1.0, False, 1, "completed"))
    assert [row[0] for row in cells(tables.search_table(equals))] == ["0.2", "0.1"]


def test_a_printed_accuracy_out_of_reach_is_counted_as_incompatible(facts, data):
    """44 per cent, and one new run reaches to 63.9."""
    stage = STAGE | {"variants": [v | {"original_test_accuracy": 0.9} for v in STAGE["variants"]]}
    texts = {key: entry["text"] for key, entry in numbers(stage, facts, data, None, [], []).items()}
    assert (texts["mlp.compatible"], texts["mlp-best.compatible"]) == ("incompatible", "compatible")
    assert texts["compatibility"] == r"\num{2} accuracies" and texts["compatibility.compatible"] == r"\num{1}"
    assert texts["compatibility.joint"] == r"\qty{90.2}{\percent}"  # 0.95 times 0.95


def test_a_commit_that_is_unknown_is_no_earlier_one(runs):
    every = [run for members in runs.values() for run in members]
    every[0].record["commit"] = {"hash": None, "time": None, "dirty": None}
    assert number_texts(every)["commit.short"] == r"\texttt{aaaaaaa} and 1 earlier"


def test_batch_statistics_are_paired_with_the_accuracy_of_the_same_run(runs):
    measured = {seed: TEST["mlp"][seed] + more for seed, more in ((1, 0.01), (2, 0.03), (3, 0.01))}
    rows = [("mlp", seed, 8, 32, 8, value, TEST["mlp"][seed]) for seed, value in measured.items()]
    each = summary.facts(runs, LABELS, None, pd.DataFrame(rows, columns=BATCH_STATISTICS))["mlp"]
    difference = each.batch_statistics_difference
    assert (100 * difference.mean, 100 * difference.half) == pytest.approx((5 / 3, half([0.01, 0.03, 0.01])))
    # Of two seeds there is no prediction for one more.
    two = summary.facts(runs, LABELS, None, pd.DataFrame(rows[:2], columns=BATCH_STATISTICS))["mlp"]
    assert np.isnan(two.batch_statistics_prediction[1:]).all()
    assert not np.isnan(each.batch_statistics_prediction).any()
