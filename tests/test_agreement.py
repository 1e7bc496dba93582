"""Agreement of implementations: equal ones differ by rounding alone, with a planted defect by far more than allowed."""

import copy

import numpy as np
import pytest
import torch
import yaml
from runs import settings
from test_workflow import ROOT

from cifar_report.analysis import agreement, measurements
from cifar_report.base.errors import InputError
from cifar_report.models.numpy_nn.modules import Linear
from cifar_report.models.torch_nn.batchnorm import BatchNormFunction
from cifar_report.rendering.tables import agreement_table
from cifar_report.study import config, plan
from cifar_report.training.splits import splits_of

BOUND = 1e-9  # of the shipped claims
NUMPY = settings(hidden=(7, 6), slope=0.02, weight_decay=0.01, momentum=0.5)
TORCH = settings(**NUMPY.full() | {"kind": "torch-mlp", "threads": 1})
MANUAL, AUTOGRAD, OWN = (
    settings(kind="torch-mlp", optimiser="adam", hidden=(7, 6), slope=0.02, batch_norm=form)
    for form in ("manual", "autograd", "torch")
)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(agreement, "STEPS", 4)


def largest(dataset, first, second):
    """The largest difference of losses, and of gradients."""
    split = splits_of(first, dataset.arrays(test=False))["train"]
    rows = agreement.compared(first, second, split, 10, seed=3)
    assert [row.step for row in rows] == [0, 1, 2, 3]
    return max(row.loss_difference for row in rows), max(row.gradient_difference for row in rows)


@pytest.mark.parametrize(
    ("first", "second", "tensors", "skipped"),
    [
        (NUMPY, TORCH, 6, 0),
        (MANUAL, AUTOGRAD, 8, 2),  # the biases before a batch norm, which takes them away again
        (MANUAL, OWN, 8, 2),
    ],
)
def test_equal_implementations_differ_by_rounding_alone(dataset, first, second, tensors, skipped):
    split = splits_of(first, dataset.arrays(test=False))["train"]
    rows = agreement.compared(first, second, split, 10, seed=3)
    for row in rows:
        assert row.loss_difference < 1e-13 and 0 < row.gradient_difference < 1e-12
        assert (row.tensors, row.skipped) == (tensors, skipped)
        assert (row.sign_changes, row.pre_activations) == (0, 32 * (7 + 6))
    assert rows[-1].loss_first != rows[0].loss_first  # they train


def test_loss_and_gradients_are_those_of_the_batch(dataset):
    """Against PyTorch's automatic differentiation of a network written out here, from the weights of the first step."""
    split = splits_of(NUMPY, dataset.arrays(test=False))["train"]
    trainer = agreement.build_trainer(settings(**NUMPY.full() | {"precision": "float64"}), split, 10, 3)
    observed = agreement.Observed(trainer, NUMPY, split)
    weights = [torch.tensor(array, requires_grad=True) for array in observed.weights()]
    index = trainer.order.batch(0)
    mean = torch.tensor(split.images.mean(axis=0, dtype=np.float64).astype(np.float32))
    x = (torch.tensor(split.images[index]).double() - mean).flatten(1)
    signs = []
    for w, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = x @ w.T + b
        signs.append((x > 0).flatten())
        x = torch.where(x > 0, x, 0.02 * x)
    loss = torch.nn.functional.cross_entropy(x @ weights[-2].T + weights[-1], torch.tensor(split.labels[index]))
    loss.backward()
    trainer.advance(1)
    assert observed.loss == pytest.approx(loss.item(), rel=1e-13)
    for ours, theirs in zip(observed.gradients.values(), weights, strict=True):
        np.testing.assert_allclose(ours, theirs.grad, rtol=1e-9, atol=1e-13)  # without the decay of the weights
    np.testing.assert_array_equal(observed.signs(), torch.cat(signs))


@pytest.mark.parametrize("units", [7, 10], ids=["hidden", "output"])
def test_a_bias_gradient_that_is_averaged_twice_is_seen(dataset, monkeypatch, units):
    sound = Linear.backward

    def averaged(self, grad, input_gradient=True):
        out = sound(self, grad, input_gradient)
        if len(self.bias) == units:
            self.grad_bias = self.grad_bias / len(grad)
        return out

    monkeypatch.setattr(Linear, "backward", averaged)
    losses, gradients = largest(dataset, NUMPY, TORCH)
    assert losses > 1e3 * BOUND and gradients > 0.9


def test_a_batch_norm_without_a_factor_is_seen(dataset, monkeypatch):
    def backward(ctx, grad):
        normalised, inverse_std, weight = ctx.saved_tensors
        g = grad * weight
        grad_x = inverse_std * (g - g.mean(0) - (g * normalised).mean(0))  # without the last normalised
        return grad_x, (grad * normalised).sum(0), grad.sum(0), None

    monkeypatch.setattr(BatchNormFunction, "backward", staticmethod(backward))
    for other in (AUTOGRAD, OWN):
        losses, gradients = largest(dataset, MANUAL, other)
        assert losses > 1e3 * BOUND and gradients > 1e-3


def test_differences_are_relative_to_the_larger_tensor_and_skip_what_is_rounding():
    first = {"a": np.array([3.0, 4.0]), "b": np.array([1e-13]), "c": np.array([0.0]), "d": np.array([np.nan])}
    second = {"x": np.array([3.0, 4.5]), "y": np.array([1e-14]), "z": np.array([1.0]), "d": np.array([1.0])}
    assert agreement.differences({name: first[name] for name in "abc"}, {name: second[name] for name in "xyz"}) == {
        "a": pytest.approx(0.5 / np.hypot(3, 4.5)),
        "c": 1.0,
    }
    assert np.isnan(agreement.differences(first, second)["d"])  # a gradient that is no number is never skipped


def test_the_studys_pairs_are_measured_step_by_step(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    pair = {"first": "a", "second": "b", "seed": 3, "settings": {"a": NUMPY.canonical(), "b": TORCH.canonical()}}
    agreement.write({"pairs": [pair]}, dataset.folder, tmp_path / "agreement.csv")
    table = measurements.read(tmp_path / "agreement.csv", measurements.AGREEMENT)
    assert table[["first", "second", "seed", "step"]].values.tolist() == [["a", "b", 3, step] for step in range(4)]
    stage = {"variants": [{"name": "a", "label": "A"}, {"name": "b", "label": "B & C"}]}
    signs = 4 * 32 * (7 + 6)
    loss, gradient = table["loss_difference"].max(), table["gradient_difference"].max()
    row = rf"A & B \& C & 4 & \num{{{loss:.1e}}} & \num{{{gradient:.1e}}}"
    assert rf"{row} & 6 & 0 & 0 & {signs} \\" in agreement_table(stage, table)
    agreement.write({"pairs": []}, dataset.folder, tmp_path / "none.csv")
    assert measurements.read(tmp_path / "none.csv", measurements.AGREEMENT).empty


def test_the_shipped_pairs_are_those_of_the_claims_and_each_one_network_twice():
    document = yaml.safe_load((ROOT / "config.yaml").read_text())
    planned = plan.stage_settings(config.load(document))["agreement"]["pairs"]
    assert [(pair["first"], pair["second"], pair["seed"]) for pair in planned] == [
        ("mlp-numpy", "mlp-torch-sgd-small", 0),
        ("mlp-bn-manual", "mlp-bn-autograd", 0),
        ("mlp-bn-manual", "mlp-bn-torch", 0),
    ]
    other = copy.deepcopy(document)
    other["run"].remove("mlp-bn-manual")
    assert config.load(other).agreement == (("mlp-numpy", "mlp-torch-sgd-small"),)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (["mlp-numpy", "mlp-torch"], "'mlp-numpy' and 'mlp-torch' differ in optimiser (sgd and adam); expected two"),
        (["mlp-torch", "mlp-tuned"], "a search chooses settings of 'mlp-tuned'; name variants without a search"),
        (["mlp-torch", "mlp-torche"], "'mlp-torche' is not among the variants; did you mean 'mlp-torch'?"),
        (["vgg", "vgg"], "has 'vgg' twice, expected each once"),
    ],
)
def test_a_pair_that_is_not_one_network_twice_is_refused(pair, message):
    document = yaml.safe_load((ROOT / "config.yaml").read_text()) | {"agreement": {"pairs": [pair]}}
    with pytest.raises(InputError) as error:
        config.load(document)
    assert "agreement.pairs" in str(error.value) and message in str(error.value)


def test_each_goes_its_own_way_while_gradients_are_of_identical_weights(dataset):
    """Steps of another size lead the second elsewhere: losses and signs differ there, gradients by rounding alone."""
    split = splits_of(NUMPY, dataset.arrays(test=False))["train"]
    faster = settings(**TORCH.full() | {"learning_rate": 10 * TORCH.learning_rate})
    rows = agreement.compared(NUMPY, faster, split, 10, seed=3)
    assert all(0 < row.gradient_difference < 1e-12 for row in rows)
    assert rows[0].sign_changes == 0 < rows[-1].sign_changes
    for row in rows[1:]:
        larger = max(row.loss_first, row.loss_second)
        assert row.loss_difference == pytest.approx(abs(row.loss_first - row.loss_second) / larger) and larger > 0
    assert rows[-1].loss_difference > 0.01
