"""The mutants are enough, and a sample of them dies; all are run by `make mutants`."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import rooms
from mutants import EQUATIONS, generate

KILLERS = Path(__file__).with_name("killers.json")
MATHEMATICS = {
    "models.numpy_nn.modules": [
        f"{kind}.{way}"
        for kind in ("Linear", "LeakyReLU", "Softmax", "CrossEntropy", "SoftmaxCrossEntropy")
        for way in ("forward", "backward")
    ],
    "models.numpy_nn.mlp": ["MLP.forward", "MLP.backward"],
    "models.numpy_nn.sgd": ["SGD.step"],
    "models.torch_nn.batchnorm": [
        "AutogradBatchNorm.forward",
        "BatchNormFunction.forward",
        "BatchNormFunction.backward",
        "ManualBatchNorm.forward",
        "_RunningStatistics.update",
        "_RunningStatistics.evaluate",
    ],
}


@pytest.mark.parametrize("module", EQUATIONS)
def test_at_least_five_mutants_of_every_pass(module):
    """Every forward and backward method has five mutants or more, all different and named differently."""
    mutants = generate(module)
    counts = Counter(mutant.function for mutant in mutants)
    assert min(counts[function] for function in MATHEMATICS[module]) >= 5
    assert all(mutant.old != mutant.new for mutant in mutants)
    assert len({mutant.name for mutant in mutants}) == len(mutants)


@pytest.mark.parametrize(
    ("module", "function", "old", "new"),
    [
        ("models.numpy_nn.modules", "Linear.forward", "x @ self.weight.T", "x @ self.weight"),
        ("models.numpy_nn.modules", "Linear.backward", "grad.sum(axis=0)", "grad.mean(axis=0)"),
        ("models.numpy_nn.modules", "LeakyReLU.forward", "x > 0", "x < 0"),
        ("models.numpy_nn.modules", "Softmax.forward", "np.exp(x - x.max(axis=1, keepdims=True))", "np.exp(x)"),
        ("models.numpy_nn.modules", "CrossEntropy.backward", "-1 / (len(rows)", "1 / (len(rows)"),
        ("models.numpy_nn.modules", "SoftmaxCrossEntropy.backward", "grad /= len(grad)", "pass"),
        ("models.torch_nn.batchnorm", "_RunningStatistics.update", "unbiased=True", "unbiased=False"),
        ("models.torch_nn.batchnorm", "BatchNormFunction.forward", ".mean(dim=0) + eps", ".mean(dim=0)"),
        ("models.torch_nn.batchnorm", "BatchNormFunction.backward", "g - g.mean(dim=0) - ", "g - "),
    ],
)
def test_the_slips_that_are_made_by_hand_are_among_them(module, function, old, new):
    """Transpose, mean for sum, slope, maximum, sign, update, variance, epsilon and a term."""
    lines = {mutant.old: mutant.old.replace(old, new) for mutant in generate(module) if mutant.function == function}
    expected = {(line, changed) for line, changed in lines.items() if old in line}
    assert expected & {(mutant.old, mutant.new) for mutant in generate(module)}


def test_a_sample_is_killed():
    """Some mutants of one module, run as `make mutants` runs them all."""
    options = ["equations", "--function", "Linear.", "--every", "4", "--workers", "1"]
    options += ["--tests", *(f"tests/equations/test_{name}.py" for name in ("modules", "batches", "code"))]
    script = Path(__file__).with_name("mutate.py")
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) killed", done.stdout)[1]) >= 10


def test_a_short_sample_of_all_that_computes_a_number_is_killed():
    """Each by the test that killed it when `make mutants` ran; those whose function has changed since are left out."""
    script = Path(__file__).with_name("mutate.py")
    done = subprocess.run([sys.executable, script, "short"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) killed", done.stdout)[1]) >= 0.8 * len(json.loads(KILLERS.read_text()))


def test_every_module_is_mutated_or_left_out_with_its_reason():
    """By itself or with its room; and no reason stands for what is not there."""
    modules = rooms.modules()
    known = {*modules, *(module.split(".")[0] for module in modules)}
    assert set(rooms.LEFT_OUT) <= known and all(rooms.LEFT_OUT.values())
    mutated = {module for module in modules if not {module, rooms.room(module)} & set(rooms.LEFT_OUT)}
    assert mutated >= {
        *("training.batches", "training.splits", "training.loop", "training.numpy_trainer", "training.torch_trainer"),
        *("data.datasets", "data.sources", "runs.halving", "study.search", "analysis.selection", "analysis.statistics"),
        *("analysis.claims.comparisons", "analysis.claims.verdicts", "analysis.summary", "analysis.perturbed"),
        *("rendering.numbers", "rendering.tables", "rendering.figures.accuracy", "rendering.figures.searches"),
    }


def test_the_slips_that_change_a_printed_number_are_among_the_mutants():
    """A diverged run in a mean, the wrong deviation, the sign of a gap, a count of images, places after the point."""
    slips = {
        "analysis.summary": [
            ("[run for run in self.runs if run.completed]", "[run for run in self.runs]"),
            ('self.values("train", metric, seeds) - self.values("test", metric, seeds)', "-self.values"),
            ("self.accuracy['test'].mean", "self.accuracy['train'].mean"),
        ],
        "rendering.tables": [(".1f}", ".2f}"), ("/ 2", "* 2")],
    }
    for module, changes in slips.items():
        found = {(mutant.old, mutant.new) for mutant in generate(module)}
        for old, new in changes:
            plain = old.replace('"', "'")
            assert any(plain in was and new in becomes and new not in was for was, becomes in found), (module, old)
