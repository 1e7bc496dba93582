import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from safetensors.numpy import save_file
from scipy import special, stats
from sklearn.metrics import confusion_matrix

from cifar_report.analysis import searches
from cifar_report.analysis.selection import main_models, representative
from cifar_report.analysis.statistics import confusion_counts, reliability
from cifar_report.base.errors import InputError
from cifar_report.data import datasets
from cifar_report.data.datasets import SPLITS, array_digest
from cifar_report.rendering import figures
from cifar_report.rendering.figures import catalogue, predictions
from cifar_report.rendering.figures.accuracy import originals
from cifar_report.rendering.figures.searches import batch_sizes, interactions, parallel, rungs, search_effects
from cifar_report.rendering.figures.shifts import shift_losses
from cifar_report.rendering.figures.style import (
    SKY,
    VERMILLION,
    new_figure,
    nothing_drawn,
    plain_number,
    save,
    scale_loss,
    short_labels,
)
from cifar_report.rendering.figures.weights import SHADES, first_layer
from cifar_report.runs.finished import load_runs
from cifar_report.study.settings import Settings

CLASSES = ["cat", "dog", "a long class name", "$5 & 100 %"]
SHAPE = (3, 8, 8)
GRID = {"hidden": [[4], [4, 4]], "batch_size": [10, 20]}
TEST_IMAGES = 40

# One run of mlp-numpy diverged, all of mlp-hot; vgg has one seed; none but the trials has a validation split.
VARIANTS = [
    {
        "name": "mlp-numpy",
        "label": "MLP, $NumPy_1",
        "seeds": [0, 1, 2],
        "search": None,
        "original_test_accuracy": 0.466,
        "original_figure": 3,
    },
    {"name": "mlp-tuned", "label": "MLP, tuned", "seeds": [0, 1], "search": "grid", "original_test_accuracy": None},
    {
        "name": "mlp-hot",
        "label": "MLP, too hot",
        "seeds": [0],
        "search": None,
        "original_test_accuracy": 0.4,
        "original_figure": 2,
    },
    {"name": "vgg", "label": "VGG", "seeds": [0], "search": None, "original_test_accuracy": None},
]
DIVERGED = {("mlp-numpy", 2), ("mlp-hot", 0)}
STAGE = {
    "variants": VARIANTS,
    "searches": {"grid": {"grid": GRID, "trials": {f"{i:016x}": 100 + i % 2 for i in range(8)}}},
}


def write_run(folder: Path, variant: str, seed: int, kind: str, splits: list[str], rng, diverged=False, **settings):
    steps = [0, 10, 20, 30]
    curve = pd.DataFrame(
        [(s, 10 * s, split, rng.uniform(0.1, 3), rng.uniform()) for s in steps for split in splits],
        columns=["step", "samples_seen", "split", "loss", "accuracy"],
    )
    if diverged:
        curve.loc[curve["step"] > 10, "loss"] = np.nan
    curve.to_csv(folder / "curve.csv", index=False)
    last = curve[curve["step"] == 30].set_index("split")[["loss", "accuracy"]]
    full = Settings(
        kind=kind,
        optimiser="sgd",
        learning_rate=0.1,
        steps=30,
        preprocessing="mean-image",
        evaluate_every=10,
        evaluation_images=10,
        threads=1,
        **{"batch_size": 10} | settings,
    ).full()
    record = {
        "variant": variant,
        "seed": seed,
        "status": "diverged" if diverged else "completed",
        "settings": full,
        "final": last.astype(object).where(last.notna(), None).to_dict("index"),
    }
    (folder / "run.json").write_text(json.dumps(record))


def write_study(root: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in zip(SPLITS, (8, 0, TEST_IMAGES), strict=True):
        arrays[f"{split}-images"] = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
        arrays[f"{split}-labels"] = np.arange(count) % len(CLASSES)
    (root / "dataset").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(root / "dataset" / f"{name}.npy", array)
    description = {
        "name": "tiny",
        "source": "digits",
        "class_names": CLASSES,
        "counts": {split: len(arrays[f"{split}-labels"]) for split in SPLITS},
        "shape": SHAPE,
        "sha256": {name: array_digest(array) for name, array in arrays.items()},
    }
    (root / "dataset" / "dataset.json").write_text(json.dumps(description))
    for variant in VARIANTS:
        kind = {"mlp-numpy": "numpy-mlp", "vgg": "torch-vgg"}.get(variant["name"], "torch-mlp")
        for seed in variant["seeds"]:
            folder = root / "runs" / variant["name"] / f"seed-{seed}"
            folder.mkdir(parents=True)
            diverged = (variant["name"], seed) in DIVERGED
            write_run(folder, variant["name"], seed, kind, ["train", "test"], rng, diverged)
            logits = rng.normal(size=(TEST_IMAGES, len(CLASSES))) + 2 * np.eye(4)[arrays["test-labels"]]
            np.save(folder / "test-logits.npy", logits.astype(np.float32) * (np.nan if diverged else 1))
            weights = {"linear.10.weight": np.zeros((2, 7)), "linear.0.weight": rng.normal(size=(7, math.prod(SHAPE)))}
            save_file({k: v.astype(np.float32) for k, v in weights.items()}, folder / "model.safetensors")
    trials = STAGE["searches"]["grid"]["trials"]
    for i, trial in enumerate(trials):
        folder = root / "search" / "grid" / trial
        folder.mkdir(parents=True)
        settings = {"hidden": tuple(GRID["hidden"][i // 4]), "batch_size": GRID["batch_size"][i // 2 % 2]}
        write_run(folder, "grid", 100 + i % 2, "torch-mlp", ["train", "validation"], rng, diverged=i == 0, **settings)
    searches.write(STAGE["searches"], root / "search", root / "search.csv")


def draw(root: Path, output: Path) -> None:
    figures.write(STAGE, root / "runs", root / "dataset", root / "search.csv", output)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study")
    write_study(root)
    return root


@pytest.fixture(scope="module")
def drawn(study) -> Path:
    draw(study, study / "figures")
    return study / "figures"


@pytest.fixture
def runs(study):
    return load_runs(study / "runs", VARIANTS)


@pytest.fixture
def styled():
    with figures.style():
        yield


def lines(axes) -> dict[str, np.ndarray]:
    """The labelled lines' y values."""
    return {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}


def test_names_are_the_files_that_are_written(drawn):
    names = figures.names(STAGE)
    assert names == [
        *(f"curves-{v['name']}" for v in VARIANTS),
        *("comparison", "originals", "search-grid", "interactions-grid", "batch-size"),
        *("samples", "confusion", "first-layer", "calibration"),
    ]
    assert {p.name for p in drawn.iterdir()} == {f"{n}.{e}" for n in names for e in ("pdf", "svg")} | {"figures.json"}
    index = json.loads((drawn / "figures.json").read_text())
    assert [entry["name"] for entry in index] == names
    for entry in index:
        assert entry["title"] and entry["caption"] and entry["facts"]
        assert entry["sources"] and all((drawn.parent / source).is_file() for source in entry["sources"])


def test_a_study_without_a_search_declares_and_needs_none():
    stage = {"variants": [VARIANTS[0]], "searches": {}}
    names = figures.names(stage)
    assert names == [
        "curves-mlp-numpy",
        "comparison",
        "originals",
        "samples",
        "confusion",
        "first-layer",
        "calibration",
    ]


def test_same_bytes_elsewhere_whatever_the_hash_seed_and_the_users_style(drawn, tmp_path):
    """Also: no glyph is missing, pyplot is not used, and importing the module imports no plotting library."""
    code = f"""
import sys
from pathlib import Path
from cifar_report.rendering import figures
assert not {{"matplotlib", "pandas", "scipy", "torch"}} & set(sys.modules)
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_figures
root = Path(sys.argv[1])
test_figures.write_study(root)
test_figures.draw(root, root / "elsewhere")
assert "matplotlib.pyplot" not in sys.modules
"""
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\nsvg.fonttype: none\n")
    environment = os.environ | {"PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path), "SOURCE_DATE_EPOCH": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, str(tmp_path / "study")]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    for path in drawn.iterdir():
        assert path.read_bytes() == (tmp_path / "study" / "elsewhere" / path.name).read_bytes(), path.name


def test_files_hold_embedded_truetype_fonts_and_no_date(drawn):
    pdf, svg = (drawn / "comparison.pdf").read_bytes(), (drawn / "comparison.svg").read_text()
    assert b"/FontFile2" in pdf and b"CreationDate" not in pdf
    assert "<dc:date>" not in svg and "<text" not in svg


def test_curves_are_the_means_over_completed_seeds_with_their_range(study, runs, styled):
    drawing = figures.curves(VARIANTS[0], runs["mlp-numpy"])
    loss, accuracy = drawing.figure.axes
    files = [study / f"runs/mlp-numpy/seed-{seed}/curve.csv" for seed in (0, 1)]
    tables = pd.concat([pd.read_csv(file) for file in files])
    wanted = tables.groupby(["split", "step"])[["loss", "accuracy"]].agg(["mean", "min", "max"])
    for split, label in (("train", "training"), ("test", "test")):
        np.testing.assert_allclose(lines(loss)[label], wanted.loc[split, ("loss", "mean")], rtol=1e-12)
        np.testing.assert_allclose(lines(accuracy)[label], 100 * wanted.loc[split, ("accuracy", "mean")], rtol=1e-12)
    assert set(lines(accuracy)) == {"training", "test", "original, test"}
    np.testing.assert_allclose(lines(accuracy)["original, test"], 46.6)
    band = pd.DataFrame(loss.collections[0].get_paths()[0].vertices).groupby(0)[1].agg(["min", "max"])
    np.testing.assert_array_equal(band, wanted.loc["train", "loss"][["min", "max"]])
    ends = [line.get_xydata()[0] for line in loss.lines if len(line.get_xydata()) == 1]
    np.testing.assert_allclose(ends, [(30, wanted.loc[(split, 30), ("loss", "mean")]) for split in ("train", "test")])
    assert [text.get_text() for text in accuracy.texts] == ["1 of 3 runs diverged"]


def test_curves_of_one_seed_have_no_band_and_those_of_none_say_so(runs, styled):
    assert not any(axes.collections for axes in figures.curves(VARIANTS[3], runs["vgg"]).figure.axes)
    none = figures.curves(VARIANTS[2], runs["mlp-hot"]).figure
    assert not none.axes and none.texts[0].get_text() == "Nothing to draw: 1 of 1 runs diverged."


def test_runs_of_other_steps_are_refused(study, runs):
    changed = runs["mlp-tuned"]
    changed[1].curve.loc[0, "step"] = 5
    with pytest.raises(InputError, match=r"seed-1/curve.csv: expected the steps of .*seed-0/curve.csv"):
        figures.seed_curves(changed, "train", "loss")


def test_comparison_shows_means_t_intervals_seeds_and_originals(runs, styled):
    axes = figures.comparison(VARIANTS, runs).figure.axes[0]
    drawn = [line.get_xydata() for line in axes.lines]

    def of_row(row):
        return [xy[:, 0] for xy in drawn if round(xy[0, 1]) == row]

    values = np.array([100 * run.final("test", "accuracy") for run in runs["mlp-numpy"] if run.completed])
    seeds, interval, mean, original = of_row(0)
    np.testing.assert_allclose(seeds, values)
    np.testing.assert_allclose(
        interval, stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    )
    np.testing.assert_allclose((*mean, *original), (values.mean(), 46.6))
    assert [x.item() for x in of_row(2)] == [40.0]
    assert [x.item() for x in of_row(3)] == [100 * runs["vgg"][0].final("test", "accuracy")]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "MLP, $NumPy_1 (1 of 3 runs diverged)",
        "MLP, tuned",
        "MLP, too hot (1 of 1 runs diverged)",
        "VGG",
    ]


def test_search_shows_every_configuration_the_means_and_the_selected(study, tmp_path, styled):
    table = searches.read(study / "search.csv", ["grid"])
    hidden, batch = search_effects("grid", table).figure.axes
    done = pd.read_csv(study / "search.csv").query("status == 'completed'")
    assert sorted(done.groupby(["hidden", "batch_size"]).size()) == [1, 2, 2, 2]
    done = done.groupby(["hidden", "batch_size"], as_index=False)[["validation_accuracy", "selected"]].mean()
    selected = 100 * done.loc[done["selected"] == 1, "validation_accuracy"].item()
    for axes, setting, labels in ((hidden, "hidden", ["4", "2 × 4"]), (batch, "batch_size", ["10", "20"])):
        assert [tick.get_text() for tick in axes.get_xticklabels()] == labels
        points = np.concatenate([line.get_ydata() for line in axes.lines if line.get_markerfacecolor() == SKY])
        np.testing.assert_allclose(np.sort(points), np.sort(100 * done["validation_accuracy"]))
        means = 100 * done.groupby(setting, sort=False)["validation_accuracy"].mean()
        in_order = means.loc[["4", "4-4"] if setting == "hidden" else [10, 20]]
        np.testing.assert_allclose(axes.lines[-1].get_ydata(), in_order)
        rings = [line.get_ydata() for line in axes.lines if line.get_markeredgecolor() == VERMILLION]
        np.testing.assert_allclose(np.concatenate(rings), [selected])
    with pytest.raises(InputError, match=r"missing.csv: expected a CSV file"):
        searches.read(tmp_path / "missing.csv", ["grid"])
    with pytest.raises(InputError, match="no trial of the search other"):
        searches.read(study / "search.csv", ["other"])


def test_batch_sizes_are_drawn_against_steps_and_against_images(study, styled):
    table = searches.read(study / "search.csv", ["grid"])
    left, right = batch_sizes("grid", table, study / "search" / "grid").figure.axes
    chosen = table.loc[table["selected"]].iloc[0]
    alike = table[(table["hidden"] == chosen["hidden"]) & (table["status"] == "completed")]
    for size, trials in alike.groupby("batch_size")["trial"]:
        curves = [pd.read_csv(study / "search/grid" / t / "curve.csv").query("split == 'train'") for t in trials]
        loss = stats.gmean([curve["loss"] for curve in curves])
        for axes, column in ((left, "step"), (right, "samples_seen")):
            line = next(line for line in axes.lines if line.get_label() == f"batches of {size}")
            np.testing.assert_allclose(line.get_xydata(), np.column_stack([curves[0][column], loss]))


def test_shifts_are_drawn_as_points_lost_with_t_intervals(styled):
    accuracies = {("a", 0): 0.5, ("a", 1): 0.54, ("a", 2): 0.52, ("b", 0): 0.8}
    rows = [
        (*run, pixels, 90, top - 0.03 * pixels * (1 + run[1])) for run, top in accuracies.items() for pixels in range(5)
    ]
    table = pd.DataFrame(rows, columns=["variant", "seed", "shift", "images", "accuracy"])
    drawing = shift_losses({"a": "An MLP", "b": "A VGG", "c": "Not measured"}, table)
    (axes,) = drawing.figure.axes
    (a, _, (bars,)), (b, _, _) = axes.containers
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["An MLP", "A VGG"]
    assert axes.get_ylabel() == "test accuracy lost (points)"
    np.testing.assert_allclose(a.get_ydata(orig=False), [0, 6, 12, 18, 24], atol=1e-9)
    np.testing.assert_allclose(b.get_ydata(orig=False), [0, 3, 6, 9, 12], atol=1e-9)
    low, high = stats.t.interval(0.95, 2, 24, stats.sem([12, 24, 36]))
    np.testing.assert_allclose(bars.get_segments()[-1][:, 1], (low, high))
    share = np.mean([12 / 50, 24 / 54, 36 / 52])
    assert drawing.facts["a"] == f"24.0 points [{low:.1f}, {high:.1f}], {100 * share:.1f} % of its accuracy; 3 seeds"
    assert drawing.facts["b"] == "12.0 points, 15.0 % of its accuracy; 1 seed" and "90 test images" in drawing.caption
    assert "every run diverged" in shift_losses({"c": "C"}, table).caption


def test_model_shown_is_the_best_in_validation_else_the_first_vgg(runs):
    by_name = {name: runs[name] for name in ("mlp-numpy", "vgg", "mlp-tuned")}
    assert representative(by_name) == "vgg"
    assert representative(by_name | {"vgg-later": runs["vgg"]}) == "vgg"
    assert representative({"mlp-numpy": runs["mlp-numpy"], "mlp-tuned": runs["mlp-tuned"]}) == "mlp-tuned"
    assert representative({"mlp-hot": runs["mlp-hot"]}) is None
    for name, accuracy in (("mlp-numpy", 0.5), ("vgg", 0.6), ("mlp-tuned", 0.7)):
        for run in runs[name]:
            run.record["final"]["validation"] = {"loss": 1.0, "accuracy": accuracy}
    assert representative(by_name) == "mlp-tuned"


def test_samples_are_the_first_right_of_each_class_and_the_surest_wrong():
    targets = np.array([0, 0, 1, 1, 2, 0])
    logits = np.array([[1, 2, 0], [2, 1, 0], [0, 9, 0], [0, 5, 1], [3, 1, 0], [9, 0, 0]], dtype=np.float32)
    right, wrong = predictions.choose_samples(logits, targets, 3)
    assert right == [1, 2, None]
    assert wrong.tolist() == [4, 0]
    shown = predictions.WRONG_ROWS * predictions.SAMPLE_COLUMNS
    many = np.eye(2, dtype=np.float32)[np.zeros(3 * shown, int)]
    assert predictions.choose_samples(many, np.ones(3 * shown, int), 2)[1].tolist() == list(range(shown))


def test_a_class_without_a_right_image_keeps_its_place(study, runs, styled):
    images, targets = (np.load(study / f"dataset/test-{part}.npy") for part in ("images", "labels"))
    logits = runs["mlp-numpy"][0].test_logits().copy()
    logits[:, 1] = -99
    drawing = predictions.samples("MLP", runs["mlp-numpy"][0], logits, images, targets, CLASSES)
    axes = drawing.figure.axes[0]
    places = {text.get_text(): text.get_position() for text in reversed(axes.texts)}  # those of the first row are last
    assert (
        places["none"][0] == places["dog"][0] > places["cat"][0] and "an empty frame where none is" in drawing.caption
    )


@pytest.mark.parametrize(
    ("labels", "shortened"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (["a sparrowhawk", "a wren"], ["a sparrowh…", "a wren"]),
        (["automobile, red", "automobile, blue", "cat"], ["autom…, red", "autom… blue", "cat"]),
        (["automobile 1 large", "automobile 2 large"], ["aut…1 large", "aut…2 large"]),
        (["x" * 20 + "1" + "y" * 20, "x" * 20 + "2" + "y" * 20], ["xxxxxxxxx…0", "xxxxxxxxx…1"]),
        (["x" * 20 + "1" + "y" * 20, "x" * 20 + "2" + "y" * 20, "xxxxxxxxx…1"], [f"xxxxxxxxx…{i}" for i in range(3)]),
    ],
)
def test_shortened_labels_fit_and_stay_distinct(labels, shortened):
    assert short_labels(labels, 11) == shortened


def test_confusion_matrix_is_scikit_learns(runs, study, styled):
    run = runs["vgg"][0]
    targets = np.load(study / "dataset/test-labels.npy")
    logits = run.test_logits()
    wanted = confusion_matrix(targets, logits.argmax(axis=1), labels=range(4))
    np.testing.assert_array_equal(confusion_counts(logits, targets), wanted)
    models = [("VGG", run, logits), ("MLP", runs["mlp-tuned"][0], runs["mlp-tuned"][0].test_logits())]
    panels = predictions.confusion(models, targets, CLASSES).figure.axes
    assert [axes.get_title() for axes in panels] == ["VGG", "MLP"]
    for axes, (_, _, logits) in zip(panels, models, strict=True):
        shares = 100 * confusion_matrix(targets, logits.argmax(axis=1), labels=range(4), normalize="true")
        np.testing.assert_allclose(axes.images[0].get_array(), np.sqrt(shares / 100))
        shown = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}
        assert shown == {index: f"{share:.0f}" for index, share in np.ndenumerate(shares) if share > 0.5}


def test_titles_above_images_are_not_cut(runs, styled, tmp_path):
    """As saved, where the layout is done once: in points from the lower edge of the page."""
    run = runs["vgg"][0]
    targets = np.arange(10).repeat(2)
    answers = [("One", run, np.eye(10)[targets]), ("Other", run, np.eye(10)[targets[::-1]])]
    drawing = predictions.confusion(answers, targets, list("0123456789"))
    save(drawing, "confusion", tmp_path)
    height = drawing.figure.get_figheight() * drawing.figure.dpi
    boxes = [axes.title.get_window_extent() for axes in drawing.figure.axes]
    assert len(boxes) == 2 and all(box.y1 <= height for box in boxes)


def test_first_layer_is_the_lowest_numbered_matrix_in_one_scale(runs, styled):
    run = runs["mlp-numpy"][0]
    weight = run.weights()["linear.0.weight"].astype(np.float64)
    images = first_layer(run, "MLP", SHAPE).figure.axes[0].images
    assert len(images) == len(weight)
    largest = weight[np.argmax(np.linalg.norm(weight, axis=1))].reshape(SHAPE).transpose(1, 2, 0)
    limit = np.quantile(np.abs(weight), 0.995)
    shade = 1 / (SHADES - 1)
    np.testing.assert_allclose(images[0].get_array(), np.clip(0.5 + largest / (2 * limit), 0, 1), atol=0.51 * shade)


def test_one_channel_is_drawn_in_grey(study, runs, styled, tmp_path):
    """Weights of linear layers and convolutions, and test images: red, green and blue alike, no colour map."""
    run, shape = runs["mlp-numpy"][0], (1, 8, 24)
    layer = first_layer(run, "MLP", shape)
    weight = run.weights()["linear.0.weight"].astype(np.float64)
    largest = weight[np.argmax(np.linalg.norm(weight, axis=1))].reshape(8, 24)
    limit, shade = np.quantile(np.abs(weight), 0.995), 1 / (SHADES - 1)
    picture = layer.figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(picture[:, :, 0], np.clip(0.5 + largest / (2 * limit), 0, 1), atol=0.51 * shade)
    assert "the scale from black to white, the same for all units" in layer.caption

    save_file({"0.weight": largest.astype(np.float32).reshape(-1, 1, 3, 4)}, tmp_path / "model.safetensors")
    filters = first_layer(dataclasses.replace(run, folder=tmp_path), "VGG", shape)

    images = np.load(study / "dataset/test-images.npy")[:, :1]
    targets, logits = np.load(study / "dataset/test-labels.npy"), run.test_logits()
    panels = predictions.samples("MLP", run, logits, images, targets, CLASSES)
    right, wrong = predictions.choose_samples(logits, targets, len(CLASSES))
    shown = [image.get_array() for image in panels.figure.axes[0].images]
    np.testing.assert_array_equal(
        [image[:, :, 0] for image in shown], images[[*(i for i in right if i is not None), *wrong], 0]
    )
    for drawing in (layer, filters, panels):
        for image in drawing.figure.axes[0].images:
            array = image.get_array()
            assert array.shape[2:] == (3,) and (array == array[:, :, :1]).all()


def test_expected_calibration_error_by_hand():
    """Four images at 0.95, three of them right, and one at 0.55 that is right: (4 · 0.20 + 1 · 0.45) / 5 = 0.25."""
    logits = np.log([[0.95, 0.05]] * 4 + [[0.45, 0.55]])
    bins = reliability(logits, np.array([0, 0, 0, 1, 1]))
    assert bins.expected_calibration_error() == pytest.approx(0.25, abs=1e-12)
    assert bins.count[[8, 14]].tolist() == [1, 4] and bins.count.sum() == 5
    np.testing.assert_allclose(bins.accuracy[[8, 14]], [1.0, 0.75])
    np.testing.assert_allclose(bins.confidence[[8, 14]], [0.55, 0.95])


def test_expected_calibration_error_is_that_of_pandas_bins(runs, study):
    """Bins cut by pandas, confidences by SciPy."""
    targets = np.load(study / "dataset/test-labels.npy")
    for run in (runs["vgg"][0], runs["mlp-tuned"][1]):
        logits = run.test_logits()
        answers = special.softmax(logits.astype(np.float64), axis=1)
        table = pd.DataFrame({"confidence": answers.max(axis=1), "right": answers.argmax(axis=1) == targets})
        bins = table.groupby(pd.cut(table["confidence"], np.linspace(0, 1, 16)), observed=True)
        gaps = (bins["right"].mean() - bins["confidence"].mean()).abs() * bins.size() / len(table)
        assert len(gaps) > 3
        assert reliability(logits, targets).expected_calibration_error() == pytest.approx(gaps.sum())


def test_models_shown_in_detail_are_those_named_else_one_a_family(runs):
    assert main_models(["mlp-numpy", "vgg"], runs) == ["mlp-numpy", "vgg"]
    assert main_models([], runs) == ["mlp-tuned", "vgg"]
    assert main_models(["mlp-hot"], runs) == ["mlp-tuned", "vgg"]  # it has no completed run
    assert main_models([], {"mlp-hot": runs["mlp-hot"]}) == []


def test_logits_of_another_test_split_are_refused(study, tmp_path):
    write_study(tmp_path)
    np.save(tmp_path / "runs/vgg/seed-0/test-logits.npy", np.zeros((3, 4), dtype=np.float32))
    stage = {"variants": VARIANTS[3:], "searches": {}}
    with pytest.raises(InputError, match=r"vgg/seed-0/test-logits.npy: expected a row for each of the 40 test images"):
        figures.write(stage, tmp_path / "runs", tmp_path / "dataset", None, tmp_path / "figures")


def test_the_original_s_figures_bear_its_numbers(runs, styled):
    """In its order and with its numbers, though one of them is not run; a diverged variant keeps its place."""
    printed = [variant for variant in VARIANTS if variant["original_test_accuracy"] is not None]
    drawing = originals(printed[::-1], runs)
    assert [panel.get_suptitle() for panel in drawing.figure.subfigs] == [
        "Its figure 2: MLP, too hot",
        "Its figure 3: MLP, $NumPy_1",
    ]
    values = 100 * np.array([run.final("test", "accuracy") for run in runs["mlp-numpy"] if run.completed])
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    assert drawing.facts == {
        "mlp-hot": "1 of 1 runs diverged",
        "mlp-numpy": f"{values.mean():.1f} ± {half:.1f} % in the test, 46.6 % in the original",
    }
    trained = np.mean([run.final("train", "accuracy") for run in runs["mlp-numpy"] if run.completed])
    assert drawing.caption.endswith(f" Figure 3: {drawing.facts['mlp-numpy']}; training {100 * trained:.1f} %.")
    lines = [line for panel in drawing.figure.subfigs for axes in panel.axes for line in axes.lines]
    assert [line.get_ydata()[0] for line in lines if line.get_linestyle() == ":"] == [46.6]


def in_percent(fraction):
    return f"{100 * fraction:.1f} %"


def test_what_is_said_of_curves(study, runs, styled):
    """Means of the completed seeds over the whole splits; of one seed no band, and without an original no line."""
    finals = [json.loads((study / f"runs/mlp-numpy/seed-{seed}/run.json").read_text())["final"] for seed in (0, 1)]
    mean = {
        (split, metric): np.mean([final[split][metric] for final in finals])
        for split in ("train", "test")
        for metric in ("accuracy", "loss")
    }
    drawing = figures.curves(VARIANTS[0], runs["mlp-numpy"])
    train, test = (in_percent(mean[split, "accuracy"]) for split in ("train", "test"))
    assert drawing.facts == {
        "seeds": "2",
        "diverged": "1",
        "steps": "30",
        "band": "minimum to maximum over the seeds",
        "last-step": "the markers are values of the whole splits",
        "final-training-accuracy": train,
        "final-training-loss": f"{mean['train', 'loss']:.3f}",
        "final-test-accuracy": test,
        "final-test-loss": f"{mean['test', 'loss']:.3f}",
        "original-test-accuracy": "46.6 %",
    }
    assert drawing.caption == (
        f"MLP, $NumPy_1: {train} in training and {test} in the test after 30 steps; means and range of 2 seeds. "
        "Dotted: the original's test accuracy, 46.6 %. 1 of 3 runs diverged."
    )
    folders = [f"runs/mlp-numpy/seed-{seed}" for seed in (0, 1, 2)]
    assert drawing.sources == [f"{folder}/{file}" for folder in folders for file in ("curve.csv", "run.json")]
    alone = figures.curves(VARIANTS[3], runs["vgg"])
    final = runs["vgg"][0].record["final"]
    train, test = (in_percent(final[split]["accuracy"]) for split in ("train", "test"))
    assert alone.caption == f"VGG: {train} in training and {test} in the test after 30 steps; one seed."
    assert alone.facts["band"] == "none: one seed" and "original-test-accuracy" not in alone.facts


def test_what_is_said_of_all_variants(runs, styled):
    drawing = figures.comparison(VARIANTS, runs)
    facts = {"interval": "95 % interval of the mean (Student's t)"}
    means = {}
    for variant in VARIANTS:
        values = [100 * run.final("test", "accuracy") for run in runs[variant["name"]] if run.completed]
        if values:
            low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
            limits = f" [{low:.1f}, {high:.1f}]" if len(values) > 1 else ""
            facts[variant["name"]] = f"{np.mean(values):.1f} %{limits}"
            means[variant["label"]] = np.mean(values)
    best = max(means, key=means.get)
    assert drawing.facts == facts | {"highest": f"{best}: {means[best]:.1f} %"}
    assert drawing.caption == (
        "Test accuracy at the last step: the mean over the seeds with its 95 % interval, and the original's values. "
        f"The highest mean is {means[best]:.1f} % ({best})."
    )
    none = figures.comparison([VARIANTS[2] | {"original_test_accuracy": None}], runs)
    assert none.caption == "Test accuracy at the last step: the mean over the seeds with its 95 % interval."


def grid_of(accuracies):
    """Trials of two widths (4, then 4-4) and two batch sizes (10, then 20), two seeds each; one of them is selected."""
    rows = [
        (f"{hidden}/{size}/{seed}", hidden, size, accuracy, hidden == "4-4" and size == "10", seed)
        for (hidden, size), seeds in accuracies.items()
        for seed, accuracy in enumerate(seeds)
    ]
    table = pd.DataFrame(rows, columns=["trial", "hidden", "batch_size", "validation_accuracy", "selected", "seed"])
    return table.assign(status="completed", validation_loss=1.0, rung=1, step=30, curve="", search="grid")


ACCURACIES = {("4", "10"): (0.5, 0.52), ("4", "20"): (0.4, 0.44), ("4-4", "10"): (0.7, 0.7), ("4-4", "20"): (0.5, 0.56)}


def test_what_is_said_of_a_grid(styled):
    """Main effects by hand, with Welch's interval of the four means that they are sums of."""
    drawing = search_effects("grid", grid_of(ACCURACIES))
    means = {key: 100 * np.mean(values) for key, values in ACCURACIES.items()}
    errors = np.array([1e4 * np.var(values, ddof=1) / 2 / 4 for values in ACCURACIES.values()])
    freedom = errors.sum() ** 2 / (errors**2).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(errors.sum())
    effects = {
        "hidden": (means["4-4", "10"] + means["4-4", "20"] - means["4", "10"] - means["4", "20"]) / 2,
        "batch-size": (means["4", "20"] + means["4-4", "20"] - means["4", "10"] - means["4-4", "10"]) / 2,
    }
    said = {
        name: f"{effect:.1f} points ({effect - half:.1f} to {effect + half:.1f})" for name, effect in effects.items()
    }
    assert drawing.facts == {
        "configurations": "4",
        "trials": "8",
        "diverged": "0",
        **{f"effect-of-{name}": text for name, text in said.items()},
        "selected": "hidden units 2 × 4, batch size 10",
    }
    assert drawing.caption == (
        "The search grid: validation accuracy of all 4 configurations, each the mean of its seeds (8 trials), against "
        "each setting, and the mean of each value. From the first value to the last, that mean moves, with its 95 % "
        f"interval where seeds are several, by {said['hidden']} with hidden units, {said['batch-size']} with batch "
        "size. Selected: hidden units 2 × 4, batch size 10."
    )
    table = grid_of(ACCURACIES)
    table.loc[0, "status"] = "diverged"
    drawing = search_effects("grid", table.assign(selected=False))
    effect = (70 + 53 - 52 - 42) / 2
    assert drawing.facts["effect-of-hidden"] == f"{effect:.1f} points" and drawing.facts["diverged"] == "1"
    table.loc[1, "status"] = "diverged"  # the other seed of the same configuration
    assert search_effects("grid", table.assign(selected=False)).facts["diverged"] == "2"
    assert drawing.caption.endswith("batch size. 1 of 8 runs diverged.") and "Selected" not in drawing.caption


def test_interactions_are_what_is_left_of_a_cell_without_its_row_and_column(styled):
    """51, 42, 70 and 53: a cell departs by (51 + 53 - 42 - 70) / 4 = -2 from its row plus its column."""
    drawing = interactions("grid", grid_of(ACCURACIES), GRID)
    axes = drawing.figure.axes[0]
    shown = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert shown == {(0, 0): "51.0", (0, 1): "42.0", (1, 0): "70.0", (1, 1): "53.0"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[51, 42], [70, 53]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "2 × 4"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("batch size", "hidden units")
    assert drawing.facts == {"configurations": "4", "hidden-and-batch-size": "2.0 points"}
    assert drawing.caption.endswith(
        "The largest departure from that is 2.0 points, between hidden units and batch size."
    )
    table = grid_of(ACCURACIES)
    gone = table["hidden"].eq("4") & table["batch_size"].eq("20")
    table.loc[gone, "status"] = "diverged"
    one = interactions("grid", table, GRID)
    assert "–" in [text.get_text() for text in one.figure.axes[0].texts] and one.facts == {"configurations": "4"}
    assert "every trial diverged" in interactions("grid", table.assign(status="diverged"), GRID).caption


def halving_of():
    """Four configurations on the first rung, of which one diverged, two on the next and one on the last."""
    rows = [
        *(("0.001", "4", 0.4, 1), ("0.01", "4-4", 0.6, 1), ("0.1", "4", 0.5, 1), ("0.1", "4-4", np.nan, 1)),
        *(("0.01", "4-4", 0.65, 2), ("0.1", "4", 0.7, 2), ("0.1", "4", 0.8, 3)),
    ]
    table = pd.DataFrame(rows, columns=["learning_rate", "hidden", "validation_accuracy", "rung"])
    status = table["validation_accuracy"].map(lambda value: "diverged" if np.isnan(value) else "completed")
    table = table.assign(trial=[f"t{i}" for i in range(7)], status=status, selected=table["rung"] == 3, seed=0)
    return table.assign(validation_loss=1.0, step=table["rung"].map({1: 10, 2: 20, 3: 40}), curve="", search="drawn")


AXES = {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}, "hidden": [[4], [4, 4]]}


def test_rungs_join_the_trials_of_a_configuration(styled):
    drawing = rungs("drawn", halving_of(), AXES)
    panel = drawing.figure.axes[0]
    drawn = [line.get_xydata().tolist() for line in panel.lines if line.get_markeredgecolor() != VERMILLION]
    assert np.allclose(drawn[0], [(1, 40)]) and np.allclose(drawn[1], [(1, 60), (2, 65)])
    assert np.allclose(drawn[2], [(1, 50), (2, 70), (3, 80)]) and len(drawn) == 3
    rings = [
        line.get_xydata() for line in panel.lines if line.get_markeredgecolor() == VERMILLION and len(line.get_xdata())
    ]
    np.testing.assert_allclose(np.concatenate(rings), [(3, 80)])
    labels = [label.get_text() for label in panel.get_xticklabels()]
    assert labels == ["rung 1: 10 steps", "rung 2: 20 steps", "rung 3: 40 steps"]
    assert drawing.facts == {
        "configurations": "4",
        "diverged": "1",
        "rung-1": "4 trials of 10 steps",
        "best-of-rung-1": "60.0 %",
        "rung-2": "2 trials of 20 steps",
        "best-of-rung-2": "70.0 %",
        "rung-3": "1 trials of 40 steps",
        "best-of-rung-3": "80.0 %",
        "selected": "learning rate 0.1, hidden units 4",
    }
    assert drawing.caption.endswith(
        "Trained were 4 for 10 steps, then 2 for 20 steps, then 1 for 40 steps, each time anew. Selected: learning "
        "rate 0.1, hidden units 4. 1 of 7 runs diverged."
    )


def test_parallel_coordinates_of_what_a_search_drew(styled):
    """Of a logarithmic range 0.01 is the middle; accuracies of the first rung reach from 40 to 60 per cent."""
    drawing = parallel("drawn", halving_of(), AXES)
    panel = drawing.figure.axes[0]
    drawn = [line.get_ydata() for line in panel.lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(drawn, [(0, 0, 0), (0.5, 1, 1), (1, 0, 0.5)], atol=1e-12)
    styles = [line.get_linestyle() for line in panel.lines if len(line.get_xdata()) == 3]
    assert styles == [":", "--", "-"]  # ended on rung 1 and 2, reached the last
    marks = [(round(t.get_position()[0] + 0.03), t.get_position()[1], t.get_text()) for t in panel.texts]
    assert marks == [
        *((0, 0.0, "0.001"), (0, 0.5, "0.01"), (0, 1.0, "0.1"), (1, 0.0, "4"), (1, 1.0, "2 × 4")),
        *((2, 0.0, "40.0"), (2, 1.0, "60.0")),
    ]
    assert drawing.facts == {
        "configurations": "3",
        "first-rung": "40.0 % to 60.0 %",
        "reached-rung-1": "3",
        "reached-rung-2": "2",
        "reached-rung-3": "1",
    }
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert labels == ["ended on rung 1", "ended on rung 2", "reached rung 3"]
    linear = {"learning_rate": {"low": 0.0, "high": 0.2, "log": False}}
    drawing = parallel("drawn", halving_of(), linear | {"hidden": [[4], [4, 4]]})
    heights = [line.get_ydata()[0] for line in drawing.figure.axes[0].lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(heights, [0.005, 0.05, 0.5])
    assert drawing.figure.axes[0].texts[1].get_text() == "0.1"
    assert "every trial diverged" in parallel("drawn", halving_of().assign(status="diverged"), AXES).caption


def test_what_is_said_of_batch_sizes(study, styled):
    table = searches.read(study / "search.csv", ["grid"])
    drawing = batch_sizes("grid", table, study / "search/grid")
    hidden = table.loc[table["selected"], "hidden"].iloc[0]
    alike = table[table["hidden"] == hidden]
    ends = {}
    for size, trials in alike[alike["status"] == "completed"].groupby("batch_size")["trial"]:
        curves = [pd.read_csv(study / f"search/grid/{t}/curve.csv").query("split == 'train'") for t in trials]
        ends[size] = f"{stats.gmean([curve['loss'].iloc[-1] for curve in curves]):.3g}"
    diverged = int((alike["status"] == "diverged").sum())
    words = {"4": "4", "4-4": "2 × 4"}[hidden]
    assert drawing.facts == {
        "diverged": str(diverged),
        **{f"final-training-loss-{size}": end for size, end in ends.items()},
        "otherwise": f"hidden units {words}",
    }
    said = ", ".join(f"{end} with batches of {size}" for size, end in ends.items())
    fate = f" {diverged} of {len(alike)} runs diverged." if diverged else ""
    assert drawing.caption.endswith(f"geometric means of 2 seeds, all else as selected. It ends at {said}.{fate}")
    assert drawing.sources == ["search.csv", *(f"search/grid/{trial}/curve.csv" for trial in alike["trial"])]
    assert "every trial diverged" in batch_sizes("grid", table.assign(selected=False), study / "search/grid").caption


def test_what_is_said_of_samples_confusions_and_calibration(study, runs, styled):
    run, other = runs["vgg"][0], runs["mlp-tuned"][0]
    images, targets = (np.load(study / f"dataset/test-{part}.npy") for part in ("images", "labels"))
    shares = special.softmax(run.test_logits().astype(np.float64), axis=1)
    predicted, surest = shares.argmax(axis=1), shares.max(axis=1)
    wrong = np.sort(surest[predicted != targets])[::-1][:20]
    drawing = predictions.samples("VGG", run, run.test_logits(), images, targets, CLASSES)
    span = (in_percent(wrong[0]), in_percent(wrong[-1]))
    assert drawing.facts == {
        "model": "VGG",
        "seed": "0",
        "right": "4",
        "wrong": str(len(wrong)),
        "wrong-confidence": f"{span[1]} to {span[0]}",
    }
    assert drawing.caption.endswith(
        f"that is right. Below, framed and crossed: the {len(wrong)} wrong ones of the highest confidence, from "
        f"{span[0]} down to {span[1]}."
    )
    one = predicted.copy()
    one[0] = (predicted[0] + 1) % 4
    alone = predictions.samples("VGG", run, run.test_logits(), images, one, CLASSES).caption
    assert alone.endswith(f" crossed: the one that is wrong, with a confidence of {in_percent(surest[0])}.")
    shown = [text.get_text() for text in drawing.figure.axes[0].texts if text.get_text() not in ("true", "predicted")]
    names = short_labels(CLASSES, 10)
    right = [int(np.flatnonzero((targets == c) & (predicted == c))[0]) for c in range(4)]
    order = np.flatnonzero(predicted != targets)
    order = order[np.argsort(-surest[order], kind="stable")][:20]
    assert shown == [names[of[i]] for i in [*right, *order] for of in (targets, predicted)]

    models = [("VGG", run, run.test_logits()), ("MLP", other, other.test_logits())]
    drawing = predictions.confusion(models, targets, CLASSES)
    findings, facts = [], {"images": "40"}
    for label, each, logits in models:
        counts = confusion_matrix(targets, logits.argmax(axis=1), labels=range(4))
        rows = counts / counts.sum(axis=1, keepdims=True)
        np.fill_diagonal(rows, 0)
        row, column = np.unravel_index(rows.argmax(), rows.shape)
        accuracy = in_percent(np.diag(counts).sum() / 40)
        pair = f"{CLASSES[row]} taken for {CLASSES[column]}, {in_percent(rows[row, column])}"
        facts |= {
            f"accuracy-{each.variant}": accuracy,
            f"seed-{each.variant}": "0",
            f"largest-confusion-{each.variant}": pair,
        }
        findings.append(
            f"{label} (seed 0): {accuracy} of the images are right, and the most frequent confusion is {pair}"
        )
    assert drawing.facts == facts and f"over 40 test images. {'; '.join(findings)}. Shares" in drawing.caption
    assert drawing.title == "Confusion matrix of VGG and of MLP"

    drawing = predictions.calibration(models, targets)
    axes, below = drawing.figure.axes
    errors = {}
    for (label, each, logits), line, steps in zip(models, axes.lines[1:], below.patches, strict=True):
        shares = special.softmax(logits.astype(np.float64), axis=1)
        table = pd.DataFrame({"confidence": shares.max(axis=1), "right": shares.argmax(axis=1) == targets})
        bins = table.groupby(pd.cut(table["confidence"], np.linspace(0, 1, 16)), observed=False)
        filled = bins.size().to_numpy() > 0
        np.testing.assert_allclose(line.get_xdata(), 100 * bins["confidence"].mean()[filled])
        np.testing.assert_allclose(line.get_ydata(), 100 * bins["right"].mean()[filled])
        np.testing.assert_allclose(steps.get_data().values, 100 * bins.size() / 40)
        error = ((bins["right"].mean() - bins["confidence"].mean()).abs() * bins.size() / 40).sum()
        errors[each.variant] = in_percent(error)
        assert line.get_label() == f"{label} (ECE {in_percent(error)})"
    assert drawing.facts == {
        "bins": "15",
        "images": "40",
        **{f"{key}-{name}": text for name, error in errors.items() for key, text in (("ece", error), ("seed", "0"))},
    }
    assert drawing.caption.endswith(
        f"Expected calibration error: {errors['vgg']} (VGG; seed 0), {errors['mlp-tuned']} (MLP; seed 0)."
    )
    answers = [f"runs/{name}/seed-0/test-logits.npy" for name in ("vgg", "mlp-tuned")]
    assert drawing.sources == [*answers, "dataset/test-labels.npy"]


def test_what_is_said_of_the_first_layer(runs, styled):
    run = runs["mlp-numpy"][0]
    drawing = first_layer(run, "MLP", SHAPE)
    limit = np.quantile(np.abs(run.weights()["linear.0.weight"].astype(np.float64)), 0.995)
    assert drawing.facts == {
        "model": "MLP",
        "seed": "0",
        "shown": "7 of 7 units, those with the largest weights",
        "scale": f"±{limit:.2g}",
    }
    assert "of 7 units the 7 with" in drawing.caption
    assert drawing.caption.endswith(f"ends at ±{limit:.2g}.")


def test_a_halving_has_figures_of_its_own(study, monkeypatch, styled):
    """Rungs and parallel coordinates, not main effects and interactions; batch sizes are of grids."""
    entry = {"method": "successive-halving", "grid": AXES}
    stage = {"variants": [VARIANTS[1] | {"search": "drawn"}], "searches": {"drawn": entry}}
    assert figures.names(stage)[1:4] == ["comparison", "search-drawn", "interactions-drawn"]
    monkeypatch.setattr(searches, "read", lambda path, names: halving_of())
    data = datasets.load(study / "dataset")
    drawn = dict(catalogue._drawings(stage, study / "runs", data, study / "search.csv", None))
    assert list(drawn) == figures.names(stage)
    assert drawn["search-drawn"].facts["best-of-rung-3"] == "80.0 %"
    assert drawn["interactions-drawn"].facts["reached-rung-2"] == "2"
    assert drawn["samples"].facts["model"] == "MLP, tuned" and drawn["first-layer"].facts["model"] == "MLP, tuned"
    alone = stage | {"searches": {"drawn": entry | {"grid": {"hidden": [[4], [4, 4]], "shift": [0]}}}}
    assert "interactions-drawn" not in figures.names(alone)
    batches = {"grid": {"batch_size": [10, 20]}}
    assert "batch-size" in figures.names(stage | {"searches": {"drawn": batches}})
    assert "batch-size" not in figures.names(stage | {"searches": {"drawn": batches | {"method": entry["method"]}}})
    assert "shifts" in figures.names(stage | {"shifted": ["mlp-tuned"]})


def test_a_curve_of_three_seeds_is_their_mean_and_no_median(runs, styled):
    first, second, _ = runs["mlp-numpy"]
    third = dataclasses.replace(second, seed=3, curve=second.curve.assign(accuracy=0.0, loss=9.0))
    _, accuracy = figures.curves(VARIANTS[0], [first, second, third]).figure.axes
    own = [run.curve[run.curve["split"] == "test"]["accuracy"].to_numpy() for run in (first, second, third)]
    np.testing.assert_allclose(lines(accuracy)["test"], 100 * sum(own) / 3, rtol=1e-12)


def test_the_scale_of_first_layer_weights_is_that_of_the_units_shown(runs, styled, tmp_path):
    """Thirty units of weights around 1, and ten smaller ones, which are not shown."""
    rng = np.random.default_rng(0)
    weight = np.concatenate([rng.normal(size=(30, 192)), rng.normal(size=(10, 192)) / 100]).astype(np.float32)
    save_file({"linear.0.weight": weight}, tmp_path / "model.safetensors")
    facts = first_layer(dataclasses.replace(runs["mlp-numpy"][0], folder=tmp_path), "MLP", SHAPE).facts
    assert facts["shown"] == "30 of 40 units, those with the largest weights"
    assert facts["scale"] == f"±{np.quantile(np.abs(weight[:30].astype(np.float64)), 0.995):.2g}"
    assert np.quantile(np.abs(weight), 0.995) < 0.98 * np.quantile(np.abs(weight[:30]), 0.995)


def test_models_are_shown_by_their_first_completed_run_whatever_its_test_accuracy(study, monkeypatch, styled):
    def load(folder, variants):
        found = load_runs(folder, variants)
        for run in found["mlp-tuned"]:
            run.record["final"]["test"]["accuracy"] = run.seed / 2
        return found

    monkeypatch.setattr("cifar_report.runs.finished.load_runs", load)
    stage = {"variants": [VARIANTS[1] | {"search": None}]}
    drawn = dict(catalogue._drawings(stage, study / "runs", datasets.load(study / "dataset"), None, None))
    told = [drawn[name].facts for name in ("samples", "first-layer")]
    told += [{"seed": drawn[name].facts["seed-mlp-tuned"]} for name in ("confusion", "calibration")]
    assert [facts["seed"] for facts in told] == ["0"] * 4


def test_the_largest_interaction_is_told_whichever_pair_has_it(styled):
    """Of three settings the last two interact: their cells depart by ten points, those of the other pairs by none."""
    rows = [
        (f"{a}{b}{c}", a, b, c, 0.5 + (0.1 if b == c else -0.1))
        for a in ("1", "2")
        for b in ("1", "2")
        for c in ("1", "2")
    ]
    table = pd.DataFrame(rows, columns=["trial", "hidden", "batch_size", "shift", "validation_accuracy"])
    table = table.assign(status="completed", validation_loss=1.0, rung=1, step=1, curve="", search="g", seed=0)
    axes = {name: [1, 2] for name in ("hidden", "batch_size", "shift")}
    drawing = interactions("g", table.assign(selected=False), axes)
    assert drawing.caption.endswith("that is 10.0 points, between batch size and shift.")
    assert drawing.facts["hidden-and-batch-size"] == "0.0 points"


def test_accuracies_of_the_first_rung_are_told_to_a_tenth(styled):
    table = halving_of()
    table["validation_accuracy"] += 0.0034
    assert parallel("drawn", table, AXES).facts["first-rung"] == "40.3 % to 60.3 %"


def test_a_confidence_on_the_edge_of_two_bins_belongs_to_the_lower_one():
    """Equal logits of five classes: a fifth, which is three of fifteen bins."""
    assert reliability(np.zeros((1, 5)), np.zeros(1, dtype=np.int64)).count.tolist() == [0, 0, 1, *[0] * 12]


def boxes(figure) -> dict[str, list[Bbox]]:
    """Where each text of a figure is drawn, in dots."""
    figure.draw_without_rendering()
    found: dict[str, list[Bbox]] = {}
    outside = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        outside |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in outside:
            found.setdefault(text.get_text(), []).append(text.get_window_extent())
    return found


def assert_apart_and_inside(figure, others=()):
    """No text touches another one or one of the other boxes, and all are on the canvas."""
    found = [(text, box) for text, each in boxes(figure).items() for box in each]
    found += [(f"box {i}", box) for i, box in enumerate(others)]
    for i, (text, box) in enumerate(found):
        assert figure.bbox.padded(0.01).contains(*box.min) and figure.bbox.padded(0.01).contains(*box.max), text
        assert not [other for other, beside in found[:i] if Bbox.intersection(box.padded(-0.2), beside.padded(-0.2))], (
            text
        )


def test_pictures_are_upright_and_undistorted_each_with_its_names_below(runs, styled):
    """Ten classes, the last one never right; pictures of 8 by 16 pixels, each in a tenth of the width."""
    names = list("abcdefghij")
    targets = np.arange(10).repeat(3)
    predicted = np.where(np.arange(30) % 3 == 2, (targets + 1) % 10, targets)
    predicted[27:] = 0
    images = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 16), dtype=np.uint8)
    logits = np.eye(10)[predicted] * np.linspace(9, 5, 30)[:, np.newaxis]
    figure = predictions.samples("VGG", runs["vgg"][0], logits, images, targets, names).figure
    (axes,) = figure.axes
    wrong = np.flatnonzero(predicted != targets)
    shown = [*range(0, 27, 3), *wrong]
    assert len(axes.images) == len(shown)
    frames = [patch.get_window_extent() for patch in axes.patches if not patch.get_fill()]
    badges = [patch.get_window_extent() for patch in axes.patches if patch.get_fill()]
    pictures = [image.get_window_extent() for image in axes.images]
    assert_apart_and_inside(figure, pictures)
    none = frames[0]
    np.testing.assert_allclose([frame.extents for frame in frames[1:]], [p.extents for p in pictures[9:]])
    names_drawn = [text for text in axes.texts if text.get_text() in names]
    assert {text.get_fontsize() for text in axes.texts} == {8.0}
    columns = [*range(9), *(np.arange(len(wrong)) % 10)]
    for i, column, image, box in zip(shown, columns, axes.images, pictures, strict=True):
        left, right, lower, upper = image.get_extent()
        assert image.origin == "upper" and upper < lower and axes.yaxis_inverted()
        np.testing.assert_array_equal(image.get_array(), images[i].transpose(1, 2, 0))
        assert box.width == pytest.approx(2 * box.height)
        assert (left + right) / 2 == pytest.approx(0.52 + (column + 0.5) * (6.3 - 0.52) / 10)
        below = [t for t in names_drawn if box.x0 < t.get_window_extent().x0 and t.get_window_extent().x1 < box.x1]
        below = [t for t in below if 0 < box.y0 - t.get_window_extent().y1 < 0.3 * figure.dpi]
        assert [t.get_text() for t in below] == [names[targets[i]], names[predicted[i]]]
    crosses = [axes.transData.transform(line.get_xydata()[0]) for line in axes.lines]
    assert len(crosses) == len(wrong)
    for cross, badge, picture in zip(crosses, badges, pictures[9:], strict=True):
        np.testing.assert_allclose(cross, (badge.min + badge.max) / 2)
        np.testing.assert_allclose(badge.max, picture.max)
    (word,) = boxes(figure)["none"]
    np.testing.assert_allclose((word.min + word.max) / 2, (none.min + none.max) / 2, atol=2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00001, "0.00001"),
        (-0.00025, "-0.00025"),
        (0.1 + 0.2, "0.3"),
        (-0.0, "0"),
        (1234.5, "1234.5"),
        (9999, "9999"),
        (10000, "10\u2009000"),
        (-1234567, "-1\u2009234\u2009567"),
    ],
)
def test_numbers_have_no_exponent_and_are_grouped_from_five_digits_on(value, text):
    assert plain_number(value) == text


@pytest.mark.parametrize(
    ("lowest", "highest", "labels"),
    [
        (0.05, 3, "0.05 0.1 0.2 0.5 1 2"),
        (0.02, 3.99, "0.02 0.05 0.1 0.2 0.5 1 2 5"),
        (0.02, 4.01, "0.1 1"),
        (0.0005, 3, "0.001 0.01 0.1 1"),
    ],
)
def test_logarithmic_losses_are_labelled_at_decades_and_within_few_of_them_between(lowest, highest, labels, styled):
    axes = new_figure(3, 3).subplots()
    axes.plot([lowest, highest])
    scale_loss(axes, lowest, highest)
    low, high = axes.get_ylim()
    axes.figure.draw_without_rendering()
    shown = [(tick, each.get_text()) for tick, each in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)]
    assert [text for tick, text in shown if low <= tick <= high] == labels.split()
    assert not any(each.get_text() for each in axes.get_yticklabels(minor=True))


def test_losses_are_logarithmic_beyond_a_factor_of_ten_whatever_the_accuracies(runs, styled):
    run = runs["vgg"][0]
    for lowest, scale in ((0.2, "linear"), (0.02, "log")):
        curve = run.curve.assign(loss=np.geomspace(1, lowest, len(run.curve)), accuracy=0.9)
        loss, accuracy = figures.curves(VARIANTS[3], [dataclasses.replace(run, curve=curve)]).figure.axes
        assert (loss.get_yscale(), accuracy.get_yscale()) == (scale, "linear")


def test_no_curve_of_a_split_is_empty_for_each_run(runs):
    steps, values = figures.seed_curves(runs["mlp-numpy"], "validation", "loss")
    assert steps.shape == (0,) and values.shape == (3, 0)


def test_an_interval_beyond_what_accuracies_can_be_is_cut(runs, styled):
    two = [dataclasses.replace(run, record=json.loads(json.dumps(run.record))) for run in runs["mlp-tuned"]]
    for run, accuracy in zip(two, (0.1, 0.9), strict=True):
        run.record["final"]["test"]["accuracy"] = accuracy
    (axes,) = figures.comparison([VARIANTS[1]], {"mlp-tuned": two}).figure.axes
    assert axes.get_xlim() == (-4, 104) and axes.get_xlabel() == "test accuracy (%)"


def test_an_empty_figure_s_reason_is_on_its_canvas(styled):
    figure = nothing_drawn("Title", "1 of 1 runs diverged", []).figure
    assert_apart_and_inside(figure)
    (box,) = boxes(figure)["Nothing to draw: 1 of 1 runs diverged."]
    assert (box.x0 + box.x1) / 2 == pytest.approx(figure.bbox.x1 / 2)


def luminance(colour):
    """Of WCAG 2."""
    value = np.array(to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


def test_numbers_on_coloured_cells_are_legible(runs, styled):
    """With at least the contrast that WCAG asks for, 4.5."""
    targets = np.arange(4).repeat(10)
    predicted = np.where(np.arange(40) % 10 == 0, (targets + 1) % 4, targets)
    matrix = predictions.confusion([("VGG", runs["vgg"][0], np.eye(4)[predicted])], targets, CLASSES)
    for drawing in (matrix, interactions("grid", grid_of(ACCURACIES), GRID)):
        axes = drawing.figure.axes[0]
        (image,) = axes.images
        cells = image.to_rgba(image.get_array())
        assert axes.texts
        for text in axes.texts:
            column, row = (round(x) for x in text.get_position())
            dark, bright = sorted((luminance(text.get_color()), luminance(cells[row, column, :3])))
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, text.get_text()


def test_configurations_of_a_value_stand_side_by_side(styled):
    """A tenth apart, or less where they are many, around the value; a panel is as wide as its values are many."""
    rates = ["0.1", "0.01", "0.001", "0.0001"]
    accuracies = {(hidden, rate): (0.5,) for hidden in ("4", "4-4") for rate in rates}
    table = grid_of(accuracies).rename(columns={"batch_size": "learning_rate"})
    figure = search_effects("grid", table).figure
    assert_apart_and_inside(figure)
    hidden, rate = figure.axes
    for axes, beside in ((hidden, [-0.15, -0.05, 0.05, 0.15]), (rate, [-0.05, 0.05])):
        points = [line.get_xdata() for line in axes.lines if line.get_markerfacecolor() == SKY]
        np.testing.assert_allclose(points, [place + np.array(beside) for place in range(len(points))])
        assert {label.get_rotation() for label in axes.get_xticklabels()} == {0}
    assert rate.bbox.width == pytest.approx(2 * hidden.bbox.width)
    alone = search_effects("grid", grid_of({("4", "10"): (0.5, 0.52)})).figure
    assert [axes.get_xlabel() for axes in alone.axes] == ["hidden units"]


def test_the_last_of_four_rungs_is_drawn_like_no_other(styled):
    table = halving_of()
    table = pd.concat([table, table[-1:].assign(rung=4, step=80)])
    keys = parallel("drawn", table, AXES).figure.legends[0].get_lines()
    looks = [(key.get_color(), key.get_linestyle()) for key in keys]
    assert len(looks) == 4 and looks[3] not in looks[:3]


def test_three_listed_values_are_marked_where_lines_pass_them(styled):
    panel = parallel("drawn", halving_of(), AXES | {"hidden": [[4], [8], [4, 4]]}).figure.axes[0]
    marks = {text.get_text(): text.get_position()[1] for text in panel.texts}
    assert (marks["4"], marks["8"], marks["2 × 4"]) == (0, 0.5, 1)
    assert [line.get_ydata()[1] for line in panel.lines if len(line.get_xdata()) == 3] == [0, 1, 0]


def test_texts_of_all_figures_are_apart_and_on_the_canvas(study, styled):
    data = datasets.load(study / "dataset")
    for _, drawing in catalogue._drawings(STAGE, study / "runs", data, study / "search.csv", None):
        assert_apart_and_inside(drawing.figure)


def test_where_every_run_diverged_the_figures_in_detail_say_so(study, monkeypatch, styled):
    def load(folder, variants):
        found = load_runs(folder, variants)
        for run in found["mlp-tuned"]:
            run.record["status"] = "diverged"
        return found

    monkeypatch.setattr("cifar_report.runs.finished.load_runs", load)
    stage = {"variants": [VARIANTS[1] | {"search": None}]}
    drawn = dict(catalogue._drawings(stage, study / "runs", datasets.load(study / "dataset"), None, None))
    assert list(drawn) == figures.names(stage)
    for name in ("samples", "confusion", "first-layer", "calibration"):
        assert [text.get_text() for text in drawn[name].figure.texts] == ["Nothing to draw: every run diverged."]


def test_the_first_layer_is_that_of_an_mlp_where_there_is_one(runs):
    two = {"vgg": runs["vgg"], "mlp-tuned": runs["mlp-tuned"]}
    assert catalogue._first_layer_variant(two) == "mlp-tuned"
    assert catalogue._first_layer_variant({"vgg": runs["vgg"]}) == "vgg"


def test_a_search_of_one_configuration_has_no_interactions(study, styled):
    grid = {"method": "grid", "grid": {"hidden": [[4]], "batch_size": [10]}}
    stage = {"variants": [VARIANTS[1]], "searches": {VARIANTS[1]["search"]: grid}}
    data = datasets.load(study / "dataset")
    drawn = dict(catalogue._drawings(stage, study / "runs", data, study / "search.csv", None))
    assert list(drawn) == figures.names(stage)
