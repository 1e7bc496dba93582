"""Numbers at the edge: a finite result or an error by name, in the NumPy modules, the batch norms and the loops."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from runs import obtain, requested

from cifar_report.analysis import summary
from cifar_report.analysis.measurements import BATCH_STATISTICS, FLIPS
from cifar_report.analysis.searches import trials
from cifar_report.analysis.selection import select
from cifar_report.base.files import array_digest
from cifar_report.data import datasets
from cifar_report.models.numpy_nn.modules import CrossEntropy, LeakyReLU, Linear, Softmax, SoftmaxCrossEntropy
from cifar_report.models.torch_nn.batchnorm import AutogradBatchNorm, ManualBatchNorm
from cifar_report.rendering import figures, tables
from cifar_report.runs import store
from cifar_report.runs.finished import load_run
from cifar_report.study import config, plan
from cifar_report.study.settings import Settings
from cifar_report.training.batches import scores, statistics

SCHEMA = Path(__file__).parent.parent / "workflow/schemas/config.schema.yaml"
EPSILON = {"float32": 1e-6, "float64": 1e-14}
NORMS = {"autograd": AutogradBatchNorm, "manual": ManualBatchNorm, "torch": torch.nn.BatchNorm1d}


@pytest.fixture(autouse=True)
def no_warning_passes():
    """What is tested here warns of nothing, as an overflow would, unless a test says so."""
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error", RuntimeWarning)
        yield


def extreme_logits(dtype):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.choice([-1e4, 0.0, 1e4], (40, 10)), rng.normal(0, 1e4, (40, 10)), np.full((2, 10), 1e4)])
    return x.astype(dtype), rng.integers(0, 10, len(x))


# --- softmax and cross entropy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_at_extreme_logits(dtype):
    """Values and the product with the Jacobian, against PyTorch in float64."""
    x, _ = extreme_logits(dtype)
    upstream = np.random.default_rng(1).normal(size=x.shape)
    theirs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = theirs.softmax(dim=1)
    expected.backward(torch.tensor(upstream))
    softmax = Softmax()
    np.testing.assert_allclose(softmax.forward(x), expected.detach(), rtol=10 * EPSILON[dtype], atol=EPSILON[dtype])
    np.testing.assert_allclose(
        softmax.backward(upstream.astype(dtype)), theirs.grad, rtol=10 * EPSILON[dtype], atol=10 * EPSILON[dtype]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_cross_entropy_at_extreme_logits(dtype):
    x, targets = extreme_logits(dtype)
    theirs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(targets))
    expected.backward()
    loss = SoftmaxCrossEntropy()
    assert loss.forward(x, targets) == pytest.approx(expected.item(), rel=10 * EPSILON[dtype])
    np.testing.assert_allclose(loss.backward(), theirs.grad, rtol=10 * EPSILON[dtype], atol=EPSILON[dtype])


def test_evaluation_at_extreme_logits():
    """`scores` counts in float64 whatever it is given."""
    x, targets = extreme_logits("float32")
    expected = torch.nn.functional.cross_entropy(torch.tensor(x, dtype=torch.float64), torch.tensor(targets))
    assert scores(x, targets)[0] == pytest.approx(expected.item(), rel=1e-14)


def test_cross_entropy_of_probability_zero_is_named():
    """Its loss is infinite; the message names the row, and what to take instead."""
    with pytest.raises(FloatingPointError, match=r"row 1: .*SoftmaxCrossEntropy"):
        CrossEntropy().forward(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 1]))


def test_softmax_of_a_batch_of_one_class():
    """All targets alike, and a single class: the loss of certainty is 0 and its gradient too."""
    loss = SoftmaxCrossEntropy()
    x = np.random.default_rng(0).normal(size=(6, 3))
    expected = torch.nn.functional.cross_entropy(torch.tensor(x), torch.full((6,), 2))
    assert loss.forward(x, np.full(6, 2)) == pytest.approx(expected.item(), rel=1e-14)
    assert loss.forward(x[:, :1], np.zeros(6, int)) == 0
    assert not loss.backward().any()


@pytest.mark.parametrize("module", [Linear(np.ones((2, 3)), np.zeros(2)), LeakyReLU(0.1), Softmax()])
def test_no_module_hides_a_nan(module):
    """One in a sample stays in that sample, forward and backward, and is not turned into a number."""
    x = np.ones((4, 3))
    x[2, 1] = np.nan
    out = module.forward(x)
    assert np.isnan(out).any(axis=1).tolist() == [False, False, True, False]
    back = module.backward(np.ones_like(out))
    assert np.isfinite(back[[0, 1, 3]]).all()


def test_leaky_relu_at_the_ends_of_its_numbers():
    for dtype in (np.float32, np.float64):
        x = np.array([[np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).tiny, -0.0]], dtype)
        expected = torch.nn.functional.leaky_relu(torch.tensor(x), 0.02)
        np.testing.assert_array_equal(LeakyReLU(0.02).forward(x), expected)


# --- batch norm -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_batch_norm_of_one_sample_is_refused_in_training(norm):
    """Its unbiased variance does not exist; in evaluation one sample is as good as many."""
    module = NORMS[norm](3)
    with pytest.raises(ValueError, match=r"[Ee]xpected more than 1 value|needs a batch of 2 or more, got 1"):
        module(torch.ones(1, 3))
    assert torch.isfinite(module.eval()(torch.ones(1, 3))).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_norm_of_a_feature_without_variance(norm, dtype):
    """It becomes β, at any size; its gradient is that of float64, and finite."""
    rng = np.random.default_rng(0)
    x = np.column_stack([np.zeros(8), np.full(8, 255.0), rng.normal(size=8)])
    upstream = rng.normal(size=x.shape)
    found = {}
    for name, kind in {"tested": dtype, "expected": torch.float64}.items():
        module = (NORMS[norm] if name == "tested" else torch.nn.BatchNorm1d)(3).to(kind)
        inputs = torch.tensor(x, dtype=kind, requires_grad=True)
        out = module(inputs)
        out.backward(torch.tensor(upstream, dtype=kind))
        found[name] = [t.detach().double() for t in (out, inputs.grad, module.weight.grad, module.running_var)]
    for tested, expected in zip(*found.values(), strict=True):
        assert torch.isfinite(tested).all()
        scale = max(expected.abs().max().item(), 1.0)
        # PyTorch's own rounds the mean of the constant feature in float32, which 1/√ε then magnifies.
        relative = 1e-11 if dtype == torch.float64 else 1e-2 if norm == "torch" else 1e-5
        torch.testing.assert_close(tested, expected, rtol=0, atol=relative * scale)


@pytest.mark.parametrize("norm", NORMS)
def test_batch_norm_of_huge_features(norm):
    """At 1e18, whose square is just a float32, against PyTorch in float64; beyond, still finite."""
    x = torch.tensor(np.random.default_rng(0).normal(size=(8, 3)), dtype=torch.float32)
    expected = torch.nn.functional.batch_norm(x.double() * 1e18, None, None, training=True)
    torch.testing.assert_close(NORMS[norm](3)(x * 1e18).double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(NORMS[norm](3)(x * 1e30)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_batch_norm_keeps_a_nan_in_its_feature(norm):
    x = torch.ones(4, 3)
    x[2, 1] = torch.nan
    out = NORMS[norm](3)(x)
    assert torch.isnan(out).all(dim=0).tolist() == [False, True, False]


# --- preprocessing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocessing", ["mean-image", "standardise"])
@pytest.mark.parametrize("value", [0, 255])
def test_preprocessing_of_images_without_variance(preprocessing, value):
    images = np.full((4, 3, 2, 2), value, np.uint8)
    mean, std = statistics(images, preprocessing)
    assert (((images - mean) / std) == 0).all()


# --- runs -------------------------------------------------------------------------------------------------------------

MLP = Settings(
    kind="numpy-mlp",
    optimiser="sgd",
    learning_rate=0.01,
    steps=6,
    batch_size=20,
    preprocessing="standardise",
    evaluate_every=2,
    evaluation_images=20,
    threads=1,
    hidden=(8,),
)
FILES = ("curve.csv", "model.safetensors", "test-logits.npy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    datasets.prepare("digits", {"source": "digits"}, 200, folder, folder)
    return folder


@pytest.fixture(scope="module")
def digits(folder):
    return datasets.load(folder)


@pytest.fixture(scope="module")
def constant(folder, tmp_path_factory):
    """Images that are all alike and of one class, of the ten: features without variance, batches of one class."""
    copy = tmp_path_factory.mktemp("constant")
    description = json.loads((folder / "dataset.json").read_text())
    for name in description["sha256"]:
        array = np.full_like(np.load(folder / f"{name}.npy"), 7 if name.endswith("labels") else 128)
        np.save(copy / f"{name}.npy", array)
        description["sha256"][name] = array_digest(array)
    (copy / "dataset.json").write_text(json.dumps(description))
    return datasets.load(copy)


def run(settings, dataset, tmp_path, variant="a"):
    finished = obtain(settings, 0, dataset, tmp_path / "store", variant)
    store.publish(finished, tmp_path / f"runs/{variant}/seed-0", requested(settings, 0, dataset), variant)
    return load_run(tmp_path / f"runs/{variant}/seed-0")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"kind": "torch-mlp"},
        *({"kind": "torch-mlp", "batch_norm": norm} for norm in NORMS),
        {"kind": "torch-mlp", "optimiser": "adam", "preprocessing": "mean-image"},
    ],
    ids=str,
)
def test_images_all_alike_and_of_one_class_train(change, constant, tmp_path):
    found = run(dataclasses.replace(MLP, **change), constant, tmp_path)
    assert found.completed and np.isfinite(found.curve[["loss", "accuracy"]]).all(axis=None)
    assert all(np.isfinite(array).all() for array in found.weights().values())


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    "change",
    [{}, {"kind": "torch-mlp"}, *({"kind": "torch-mlp", "batch_norm": norm} for norm in ("autograd", "manual"))],
    ids=str,
)
def test_a_huge_learning_rate_is_a_result(change, precision, digits, tmp_path):
    """Diverged at the evaluation that finds it, with its step, or finite throughout (batch norm tames any rate)."""
    settings = dataclasses.replace(MLP, learning_rate=1e30, precision=precision, **change)
    with np.errstate(all="ignore"):
        found = run(settings, digits, tmp_path)
    assert found.completed == (found.curve["loss"].max(skipna=False) <= 1e6)
    assert found.completed or found.record["step"] in (2, 4, 6)
    if "batch_norm" not in change:
        assert not found.completed and found.record["step"] == 2


def test_a_loss_that_explodes_and_stays_finite_diverged(digits, tmp_path):
    """In float64 a linear network with a rate of 1e9 has losses of 1e9 nats and more, all of them numbers."""
    settings = dataclasses.replace(MLP, hidden=(), learning_rate=1e9, precision="float64")
    found = run(settings, digits, tmp_path)
    assert np.isfinite(found.curve["loss"]).all() and found.curve["loss"].max() > 1e6
    assert found.record["status"] == "diverged" and found.record["step"] == 2


@pytest.mark.parametrize("kind", ["numpy-mlp", "torch-mlp"])
def test_initial_weights_beyond_float32_diverge_at_once(kind, digits, tmp_path):
    with np.errstate(all="ignore"):
        found = run(dataclasses.replace(MLP, kind=kind, initial_std=1e300), digits, tmp_path)
    assert found.record["status"] == "diverged" and found.record["step"] == 0


def test_a_diverged_run_is_ranked_last_and_named(digits, tmp_path):
    """In the choice of a search, in the figures and in the numbers of the text."""
    good = run(MLP, digits, tmp_path, "good")
    with np.errstate(all="ignore"):
        wild = run(dataclasses.replace(MLP, learning_rate=1e30), digits, tmp_path, "wild")
    stage = {"grid": {"learning_rate": [1e30, 0.01]}, "trials": {"wild/seed-0": 0, "good/seed-0": 0}}
    table = trials(stage, tmp_path / "runs").set_index("trial")
    assert table["selected"].to_dict() == {"wild/seed-0": False, "good/seed-0": True}
    assert table["status"].to_dict() == {"wild/seed-0": "diverged", "good/seed-0": "completed"}
    select(stage, tmp_path / "runs", tmp_path / "selected.yaml")
    assert "learning_rate: 0.01" in (tmp_path / "selected.yaml").read_text()

    study = {
        "study": "s",
        "report": {"title": "T", "author": "A"},
        "dataset": "d",
        "datasets": {"d": {"source": "digits"}},
    }
    study |= {"validation_images": 200, "seeds": [0], "shifts": {"variants": [], "images": 1}, "run": ["good", "wild"]}
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(MLP).items()}
    study |= {"variants": {"good": settings, "wild": {"like": "good", "learning_rate": 1e30}}}
    stage = plan.documents(config.load(study))["stages/tables"]["settings"]
    variants, runs = stage["variants"], {"good": [good], "wild": [wild]}
    empty = [pd.DataFrame(columns=columns) for columns in (FLIPS, BATCH_STATISTICS)]
    facts = summary.facts(runs, digits.split("test")[1], *empty)
    numbers = tables.numbers(stage, facts, digits, None, [], [])
    assert numbers["study.diverged"]["text"] == r"\num{1}" and numbers["wild.diverged"]["text"] == r"\num{1}"
    assert "wild.test-accuracy" not in numbers and "good.test-accuracy" in numbers
    with figures.style():
        shown = figures.comparison(variants, runs).figure.axes[0].get_yticklabels()
    assert [text.get_text() for text in shown] == ["good", "wild (1 of 1 runs diverged)"]
