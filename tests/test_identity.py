"""What a run is known by: all that decides its numbers, seen from outside, and nothing else.

Each digest of an edited copy is taken by a process of its own. What counts is held against a trace of what really ran.
"""

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from runs import obtain, requested

from cifar_report.base.errors import InputError
from cifar_report.base.files import to_json
from cifar_report.cli import main
from cifar_report.data import datasets
from cifar_report.runs import checkpoints, machine, store
from cifar_report.runs.record import record_digest
from cifar_report.study import config, identity, plan, stages
from cifar_report.study.identity import PACKAGE, code_digest
from cifar_report.study.kinds import KINDS, entries
from cifar_report.study.settings import NEUTRAL, Settings
from cifar_report.training import loop

SETTINGS = Settings(
    kind="numpy-mlp",
    optimiser="sgd",
    learning_rate=0.01,
    steps=4,
    batch_size=20,
    preprocessing="standardise",
    evaluate_every=2,
    evaluation_images=20,
    threads=1,
    hidden=(6, 5),
    train_on="train+validation",
    momentum=0.9,
    nesterov=True,
    weight_decay=0.01,
    flip=True,
    shift=1,
)
TORCH = {"optimiser": "adamw", "momentum": 0.0, "nesterov": False, "dropout": 0.1, "average_decay": 0.9}
TRACED = {
    "numpy-mlp": SETTINGS,
    "torch-mlp": dataclasses.replace(SETTINGS, kind="torch-mlp", **TORCH, batch_norm="manual"),
    "torch-vgg": dataclasses.replace(SETTINGS, kind="torch-vgg", **TORCH, batch_norm="torch", hidden=(), dirac=True),
}
ALL = set(KINDS)
TORCHES = ALL - {"numpy-mlp"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    datasets.prepare("digits", {"source": "digits"}, 1300, folder, folder)
    return datasets.load(folder)


@pytest.fixture
def package(tmp_path):
    copy = tmp_path / "src/cifar_report"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def digests(package):
    """Of each kind, by a process that imports this copy; the message where the code is refused."""
    code = (
        "import json\nfrom cifar_report.base import errors\nfrom cifar_report.study import identity\n"
        f"try: print(json.dumps({{k: identity.code_digest(k) for k in {list(KINDS)}}}))\n"
        "except errors.InputError as error: print(json.dumps(str(error)))"
    )
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def before():
    return digests(PACKAGE)


def edit(package, file, old, new):
    path = package / file
    text = path.read_text()
    assert text.count(old) >= 1, f"{file} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


def in_process(package, monkeypatch):
    """The same of a copy whose table of kinds is this process's."""
    monkeypatch.setattr(identity, "PACKAGE", package)
    return {kind: code_digest(kind) for kind in KINDS}


def changed(before, after):
    return {kind for kind in KINDS if before[kind] != after[kind]}


# --- the digest counts what runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(dataset):
    """For each kind the functions of the package that a training really calls, begun and gone on with."""
    few = {name: array[:60] for name, array in dataset.arrays().items()}
    return {kind: traced(settings, few) for kind, settings in TRACED.items()}


def traced(settings, arrays):
    """File, line and name of each function, without those of what the training calls back (`save`)."""
    seen, saved, watching = set(), [], [False]

    def profile(frame, event, _):
        code = frame.f_code
        if event == "call" and watching[0] and code.co_filename.startswith(str(PACKAGE)):
            seen.add((code.co_filename, code.co_firstlineno, code.co_qualname))

    def save(checkpoint):
        watching[0] = False
        state = {name: np.array(array) for name, array in checkpoint.state.items()}
        history = loop.History(list(checkpoint.history.rows))
        digest = loop.checkpoint_digest(checkpoint.step, state, history)
        saved.append(loop.Checkpoint(checkpoint.step, state, history, digest))
        watching[0] = True

    entries(settings.kind)  # imported before
    sys.setprofile(profile)
    try:
        for go_on_from in (None, 1):
            watching[0] = True
            loop.train(settings, 3, arrays, saved[go_on_from] if go_on_from else None, save)
            watching[0] = False
    finally:
        sys.setprofile(None)
    assert saved[1].step == 2
    return {entry for entry in seen if entry[2] != "<module>"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_function_that_a_training_calls_is_in_its_digest(kind, ran):
    counted = {(str(identity.path_of(module)), name) for module, name in identity.reached(kind)}
    called = {(file, name.partition(".")[0]) for file, _, name in ran[kind]}
    assert len(called) > 15
    assert called - counted == set()


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_any_function_that_ran_changes_the_digest(kind, ran, package, before, monkeypatch):
    monkeypatch.setattr(identity, "PACKAGE", package)
    edited = 0
    for file in {file for file, _, _ in ran[kind]}:
        path = package / Path(file).relative_to(PACKAGE)
        whole = path.read_text()
        for line in {line for other, line, _ in ran[kind] if other == file}:
            tree = ast.parse(whole)
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef) and line in (
                    node.lineno,
                    *(d.lineno for d in node.decorator_list),
                ):
                    node.body.append(ast.parse("if 0: 1 + 1").body[0])
                    path.write_text(ast.unparse(tree))
                    assert code_digest(kind) != before[kind], f"{path.name}:{line}"
                    edited += 1
        path.write_text(whole)
    assert edited > 15


AS_INT = "    def __int__(self):\n        return 5\n"
EDITS = {
    "trained on the test split": (
        "training/splits.py",
        'Split(arrays[f"{name}-images"]',
        'Split(arrays["test-images"]',
        ALL,
    ),
    "validation before train": ("training/splits.py", "zip(splits", "zip(held_out, splits", ALL),
    "a resumed step too many": ("training/torch_trainer.py", "self.step = step\n", "self.step = step + 1\n", TORCHES),
    "a constant": ("training/numpy_trainer.py", "EVALUATION_BATCH = 1000", "EVALUATION_BATCH = 999", {"numpy-mlp"}),
    "the plan of the VGG": ("models/torch_nn/vgg.py", "PLAN = (64", "PLAN = (65", {"torch-vgg"}),
    "a sign": ("models/numpy_nn/modules.py", "-= 1", "+= 1", {"numpy-mlp"}),
    "a default argument": ("models/torch_nn/batchnorm.py", "eps: float = 1e-5", "eps: float = 1e-4", {"torch-mlp"}),
    "a decorator": ("models/torch_nn/batchnorm.py", "    @torch.no_grad()\n", "", {"torch-mlp"}),
    "a purpose's number": ("base/randomness.py", "ORDER = 1", "ORDER = 9", ALL),
    "the data order": ("base/randomness.py", "spawn_key=(int(purpose), index)", "spawn_key=(int(purpose), 0)", ALL),
    "a hidden float": ("training/batches.py", "else 0.0)", "else 0)", ALL),
    "what finds a kind's entries": ("study/kinds.py", "return pkgutil", "kind = kind.lower()\n    return pkgutil", ALL),
    "how an enumeration counts": ("base/randomness.py", "ORDER = 1", f"ORDER = 1\n\n{AS_INT}", ALL),
    "a field that is none": ("training/splits.py", "    images: Images", "    images: ClassVar[Images] = 1", ALL),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_retrains_the_kinds_that_it_concerns(name, package, before, monkeypatch):
    file, old, new, concerned = EDITS[name]
    edit(package, file, old, new)
    assert changed(before, in_process(package, monkeypatch)) == concerned


def test_another_function_of_the_same_name_retrains(package, before, monkeypatch):
    """Also where the one that imports it is as it was."""
    path = package / "training/torch_trainer.py"
    text = re.sub(r"(?<=\n)    learning_rate,\n", "", path.read_text(), count=1)
    path.write_text(
        text.replace(
            "from cifar_report.training.batches",
            "from cifar_report.training.other import learning_rate\nfrom cifar_report.training.batches",
            1,
        )
    )
    (package / "training/other.py").write_text("def learning_rate(settings, step):\n    return 0.1\n")
    assert changed(before, in_process(package, monkeypatch)) == TORCHES


LAZY = "    def rate(self):\n        from cifar_report.training.lazy import f\n\n        return f()\n"
CLASS_BODIES = {
    "a name of the module": ("RATE = {}\n", "    RATE = RATE\n", "self.RATE"),
    "bound twice": ("", "    RATE = 0.1\n    RATE = {} + 0\n", "self.RATE"),
    "by another class": ("class Rates:\n    RATE = 0.1\n    RATE = {} + 0\n\n\n", "", "Rates.RATE"),
    "imported in one function": ("", LAZY, "self.rate()"),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASS_BODIES)
def test_what_a_class_takes_from_elsewhere_counts(name, package, monkeypatch):
    above, body, used = CLASS_BODIES[name]
    path, seen = package / "models/numpy_nn/sgd.py", []
    source = path.read_text()
    for value in (0.5, 0.7):
        (package / "training/lazy.py").write_text(f"def f():\n    return {value}\n")
        text = source.replace("class SGD:\n", above.format(value) + "class SGD:\n" + body.format(value))
        path.write_text(
            text.replace("            g = gradients[name]\n", f"            g = gradients[name] * {used}\n")
        )
        seen.append(in_process(package, monkeypatch)["numpy-mlp"])
    assert len(set(seen)) == 2


def test_a_neutral_default_counts_where_it_is_read(package, before):
    momentum = 'momentum: Annotated[Share, means("of sgd")] = 0.'
    dropout = 'dropped in training; not of a numpy-mlp")] = 0.'
    edit(package, "study/settings.py", f"{momentum}0", f"{momentum}9")
    assert changed(before, digests(package)) == ALL
    edit(package, "study/settings.py", f"{momentum}9", f"{momentum}0")
    edit(package, "study/settings.py", f"{dropout}0", f"{dropout}5")
    assert changed(before, digests(package)) == TORCHES


def test_neutral_defaults_are_pinned():
    """A run's identity names only the settings that differ from these: none may ever change."""
    assert NEUTRAL == {
        "train_on": "train",
        "hidden": (),
        "slope": 0.0,
        "initial_std": None,
        "dirac": False,
        "batch_norm": "none",
        "bias_rate": 1.0,
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup": 0.0,
        "label_smoothing": 0.0,
        "dropout": 0.0,
        "flip": False,
        "alternate_flips": False,
        "shift": 0,
        "average_decay": 0.0,
        "precision": "float32",
        "deterministic": False,
    }
    assert all(type(value) is type(Settings.__dataclass_fields__[name].default) for name, value in NEUTRAL.items())


# --- and nothing else -------------------------------------------------------------------------------------------------

UNUSED = "def unused():\n    pass\n\n\n"
HARMLESS = {
    "an annotated constant": ("training/loop.py", "LARGEST_LOSS = 1e6", "LARGEST_LOSS: float = 1e6"),
    "another annotation": ("training/batches.py", "step: int) -> float:", "step: np.int64) -> np.float64:"),
    "a docstring": ("models/numpy_nn/modules.py", '"""The modules', '"""Edited. The modules'),
    "a comment": ("training/splits.py", "    splits = {\n", "    # of all\n    splits = {\n"),
    "a name that nothing reaches": ("base/randomness.py", "class Purpose", UNUSED + "class Purpose"),
    "another purpose": ("base/randomness.py", "    SHIFT = 6\n", "    SHIFT = 6\n    BOOTSTRAP = 60\n"),
    "another setting": ("study/settings.py", "    deterministic: A", "    cutout: int = 0\n    deterministic: A"),
    "what files a run": ("runs/store.py", "SHORT_RUN = 60.0", "SHORT_RUN = 61.0"),
    "another kind": (
        "study/kinds.py",
        "KINDS = {",
        'KINDS = {\n    "other": Kind(trainer="x.y", builder="x.z", family="x", backend="x", words="x"),',
    ),
    "an import's other name": ("training/batches.py", "import math\n", "import math as m\nimport math\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_decides_no_number_retrains_nothing(name, package, before):
    edit(package, *HARMLESS[name])
    after = digests(package)
    assert changed(before, after) == set(), after


def test_moving_and_renaming_every_module_retrains_nothing(package, before):
    """All that trainings reach, into one new folder, under new names."""
    modules = {module for kind in KINDS for module, _ in identity.reached(kind)}
    assert len(modules) > 12
    moved = {module: f"cifar_report.moved.{module.replace('.', '_')}" for module in modules}
    (package / "moved").mkdir()
    (package / "moved/__init__.py").write_text('"""All of it."""\n')
    for module, new in moved.items():
        (package / identity.path_of(module).relative_to(PACKAGE)).rename(package / f"moved/{new.split('.')[-1]}.py")
    names = re.compile("|".join(rf"{re.escape(module)}(?!\w)" for module in sorted(modules, key=len, reverse=True)))
    for path in package.rglob("*.py"):
        path.write_text(names.sub(lambda match: moved[match[0]], path.read_text()))
    assert digests(package) == before


def test_what_is_kept_of_the_codes_digest_is_that_of_the_code(package, tmp_path, monkeypatch):
    """In another process (here: without what this one knows) from a file, also after an edit or where it is altered."""
    monkeypatch.setattr(identity, "PACKAGE", package)
    kept = tmp_path / "kept.json"

    def asked():
        monkeypatch.setattr(stages, "_known", {})
        with stages.kept_in(kept):
            return stages.kept_code_digest("numpy-mlp")

    first = asked()
    assert asked() == first == code_digest("numpy-mlp") and first in kept.read_text()
    for spoilt in (kept.read_text().replace(first, "0" * 64), '{"version": "of an earlier one"}', "[]", "{"):
        kept.write_text(spoilt)
        assert asked() == first
    edit(package, "training/numpy_trainer.py", "self.step = until", "self.step = until + 0")
    assert asked() == code_digest("numpy-mlp") != first
    (package.parent / "numpy.py").touch()
    with pytest.raises(InputError, match="beside the package"):
        asked()


def test_a_renamed_function_retrains_nothing(package, before, monkeypatch):
    for path in package.rglob("*.py"):
        path.write_text(re.sub(r"\bstatistics\b(?=\()|(?<=    )statistics(?=,)", "pixel_statistics", path.read_text()))
    assert "def pixel_statistics" in (package / "training/batches.py").read_text()
    assert changed(before, in_process(package, monkeypatch)) == set()


RETURN, IMPORT = "    return splits\n", "from cifar_report.training import batches"
EFFECT = "import cifar_report.effect\n"
UNREACHED = "class X:\n    done = setattr(np, 'x', 1)\n\n\n"
TWICE = "    if splits:\n        from math import pi as p\n    else:\n        from math import e as p\n    return p\n"
HEIRS = "    def __init_subclass__(cls):\n        pass\n\n"
REFUSED = {
    "a statement that runs at import": ("training/batches.py", "Images =", "np.seterr(all='ignore')\nImages ="),
    "an assignment to a part": ("training/batches.py", "Images =", "np.x = 1\nImages ="),
    "a call at import": ("training/batches.py", "Images =", "STATE = np.random.default_rng()\nImages ="),
    "a relative import": ("training/splits.py", "from cifar_report.training.batches", "from .batches"),
    "all names of a module": ("training/splits.py", "import Images\n", "import *\n"),
    "an import by name": ("training/splits.py", RETURN, "    import importlib\n\n    importlib.import_module('x')\n"),
    "evaluated text": ("training/splits.py", RETURN, "    return eval('splits')\n"),
    "a module as a value": ("training/splits.py", RETURN, f"    {IMPORT}\n    return getattr(batches, 'x')\n"),
    "a second definition": ("training/splits.py", "def subset", "def splits_of():\n    pass\n\n\ndef subset"),
    "a name of the module set in a function": ("training/splits.py", RETURN, f"    global subset\n{RETURN}"),
    "what is imported for its effect": ("training/splits.py", "import numpy", f"{EFFECT}import numpy"),
    "what is imported in a function for its effect": ("training/splits.py", RETURN, f"    {EFFECT}"),
    "a call in a class that nothing reaches": ("training/splits.py", "class Split", UNREACHED + "class Split"),
    "a call in a default": ("training/splits.py", "def subset", "def x(y=np.seterr()):\n    pass\n\n\ndef subset"),
    "a decorator of one's own": ("training/splits.py", "def subset", "@splits_of\ndef x():\n    pass\n\n\ndef subset"),
    "a call in an annotation": ("training/splits.py", "size: int)", "size: np.seterr(all='warn'))"),
    "a call in a module that is imported": ("base/errors.py", "class InputError", "X = print()\n\n\nclass InputError"),
    "an import in a class": ("models/numpy_nn/sgd.py", "class SGD:\n", "class SGD:\n    import math\n\n"),
    "one name for two imports": ("training/splits.py", RETURN, TWICE),
    "a class that registers its heirs": ("models/numpy_nn/sgd.py", "class SGD:\n", f"class SGD:\n{HEIRS}"),
    "heirs found by their class": ("training/splits.py", RETURN, "    return Split.__subclasses__()\n"),
    "a member of Settings that is no field": ("training/splits.py", RETURN, "    return settings.canonical()\n"),
    "a setting by a computed name": ("training/splits.py", RETURN, "    return getattr(settings, 'slope')\n"),
    "modules by their names": ("training/splits.py", RETURN, "    import sys\n\n    return sys.modules['x']\n"),
    "a TYPE_CHECKING of one's own": ("training/splits.py", "class Split", "TYPE_CHECKING = 1\n\n\nclass Split"),
    "several targets at once": ("training/splits.py", "class Split", "A = (B, C) = (1, 2)\n\n\nclass Split"),
    "a module beside the package": ("training/splits.py", "import numpy", "import helpers\nimport numpy"),
    "a condition at import": ("training/splits.py", "class Split", "if np:\n    x = 1\n\n\nclass Split"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_code_that_no_digest_could_follow_is_refused(name, package, monkeypatch):
    file, old, new = REFUSED[name]
    (package.parent / "helpers.py").write_text("")
    (package / "effect.py").write_text("import numpy\n\nnumpy.seterr(all='ignore')\n")
    edit(package, file, old, new)
    with pytest.raises(InputError) as raised:
        in_process(package, monkeypatch)
    assert re.search(r"\.py:\d+: .*; ", str(raised.value))


# --- what lies outside is checked -------------------------------------------------------------------------------------


def handed(monkeypatch, change):
    """`train` is handed what `change` makes of its arguments."""
    train = loop.train
    monkeypatch.setattr(loop, "train", lambda *arguments: train(*change(*arguments)))


def mirrored(arrays):
    return arrays | {"train-images": np.ascontiguousarray(arrays["train-images"][..., ::-1])}


@pytest.mark.parametrize(
    ("what", "change"),
    {
        "seed": lambda settings, seed, *rest: (settings, seed + 1, *rest),
        "settings": lambda settings, *rest: (dataclasses.replace(settings, learning_rate=0.02), *rest),
        "data": lambda settings, seed, arrays, *rest: (settings, seed, mirrored(arrays), *rest),
    }.items(),
)
def test_what_was_not_asked_for_is_not_filed(what, change, dataset, tmp_path, monkeypatch):
    handed(monkeypatch, change)
    with pytest.raises(InputError, match=f"found other {what}; it is not filed"):
        obtain(SETTINGS, 0, dataset, tmp_path)
    assert not list(tmp_path.rglob("finished*"))


def test_mirrored_images_of_a_changed_reader_are_not_filed(dataset, tmp_path, monkeypatch):
    split = datasets.Dataset.split

    def mirrored_split(self, name):
        images, labels = split(self, name)
        return images[..., ::-1], labels

    monkeypatch.setattr(datasets.Dataset, "split", mirrored_split)
    with pytest.raises(InputError, match="found other data"):
        obtain(SETTINGS, 0, datasets.load(dataset.folder), tmp_path)


def test_a_run_is_not_published_as_another_seed(dataset, tmp_path):
    finished = obtain(SETTINGS, 1, dataset, tmp_path / "store")
    with pytest.raises(InputError, match="seed-0: expected the run of that seed, found seed 1"):
        store.publish(finished, tmp_path / "seed-0", requested(SETTINGS, 1, dataset), "mlp")
    with pytest.raises(InputError, match="expected the run"):
        store.publish(finished, tmp_path / "seed-0", requested(SETTINGS, 0, dataset), "mlp")
    assert not (tmp_path / "seed-0").exists()


def test_another_runs_finished_folder_is_refused(dataset, tmp_path):
    first, second = (requested(SETTINGS, seed, dataset) for seed in (0, 1))
    keep = store.Store(tmp_path)
    keep.obtain(second)
    shutil.copytree(keep.home(second), keep.home(first))
    with pytest.raises(InputError, match="found that of seed 1"):
        keep.obtain(first)


ALTERED = {
    "curve.csv": lambda content: content[:-1],
    "model.safetensors": lambda content: content[:-1],
    "test-logits.npy": lambda content: content[:-1] + b"x",
    "run.json": lambda content: content.replace(b'"status": "completed"', b'"status": "diverged"'),
}


@pytest.mark.parametrize("file", [*ALTERED, "final accuracy", "digests", "settings"])
def test_an_altered_finished_run_is_refused(dataset, tmp_path, file):
    finished = obtain(SETTINGS, 0, dataset, tmp_path)
    if file in ALTERED:
        content = (finished / file).read_bytes()
        assert ALTERED[file](content) != content
        (finished / file).write_bytes(ALTERED[file](content))
    else:
        run = json.loads((finished / "run.json").read_text())
        if file == "final accuracy":
            run["final"]["test"]["accuracy"] = 0.99
        elif file == "digests":
            run["digests"] = {}
            (finished / "curve.csv").write_text("altered")
        else:
            run["settings"]["momentum"] = 0.5
        (finished / "run.json").write_text(
            to_json(run | {"sha256": record_digest(run)} if file != "final accuracy" else run)
        )
    with pytest.raises(InputError, match="remove this folder, and the run is trained anew"):
        obtain(SETTINGS, 0, dataset, tmp_path)


def stopped(settings, seed, dataset, folder, monkeypatch):
    """The checkpoint of a run that was killed after step 2."""
    save = checkpoints.save

    def save_then_die(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save", save_then_die)
        obtain(settings, seed, dataset, folder)
    return store.Store(folder).home(requested(settings, seed, dataset)) / "checkpoint.safetensors"


def test_another_seeds_checkpoint_is_not_gone_on_from(dataset, tmp_path, monkeypatch, capsys):
    whole = obtain(SETTINGS, 0, dataset, tmp_path / "whole")
    mine = stopped(SETTINGS, 0, dataset, tmp_path / "store", monkeypatch)
    other = stopped(SETTINGS, 1, dataset, tmp_path / "store", monkeypatch)
    mine.write_bytes(other.read_bytes())
    finished = obtain(SETTINGS, 0, dataset, tmp_path / "store")
    assert "is that of another run; this one begins anew" in capsys.readouterr().out
    for name in ("curve.csv", "model.safetensors", "test-logits.npy"):
        assert (finished / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("part", ["versions", "device"])
def test_a_checkpoint_of_another_machine_is_not_gone_on_from(dataset, tmp_path, monkeypatch, capsys, part):
    """Nor of other versions: a run's bits belong to one."""
    stopped(SETTINGS, 0, dataset, tmp_path, monkeypatch)
    found = machine.environment("numpy-mlp")
    other = found | {part: found[part] | {"numpy" if part == "versions" else "model": "another"}}
    monkeypatch.setattr(machine, "environment", lambda kind: other)
    obtain(SETTINGS, 0, dataset, tmp_path)
    told = capsys.readouterr().out
    assert "(now another); the run begins anew" in told and "goes on from" not in told


# --- the job checks the plan ------------------------------------------------------------------------------------------


def test_code_that_changed_since_the_plan_does_not_train(dataset, tmp_path):
    request = dataclasses.replace(requested(SETTINGS, 0, dataset), code="0" * 64)
    with pytest.raises(InputError, match="it was edited, or another commit checked out, while the study ran"):
        store.Store(tmp_path).obtain(request)
    assert not list(tmp_path.rglob("finished*")) and not list(tmp_path.rglob("checkpoint*"))


def test_the_job_looks_before_it_imports_and_after(package, dataset, tmp_path):
    """A process of an edited copy refuses the plan of the code before; so it does where the edit comes in between."""
    document = {"variant": "mlp", "search": None, "settings": SETTINGS.canonical(), "code": code_digest("numpy-mlp")}
    (tmp_path / "mlp.json").write_text(to_json(document))
    call = [
        *("train-variant", "--plan", tmp_path / "mlp.json", "--dataset", dataset.folder, "--seed", "0"),
        *("--store", tmp_path / "store", "--output", tmp_path / "seed-0", "--selected"),
    ]
    call[-1:] = []
    edited = (package / "models/numpy_nn/modules.py").read_text().replace("-= 1", "+= 1")
    between = f"""
import sys
from cifar_report import cli
from cifar_report.study import identity
check = identity.check_code
def then_edit(*arguments, **named):
    check(*arguments, **named)
    open({str(package / "models/numpy_nn/modules.py")!r}, "w").write({edited!r})
identity.check_code = then_edit
sys.exit(cli.main({[str(part) for part in call]!r}))
"""
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", between], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "while the study ran" in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "cifar_report.cli", *map(str, call)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "the code of numpy-mlp: expected that of the plan" in done.stderr
    assert not list((tmp_path / "store").rglob("finished")) and not (tmp_path / "seed-0").exists()
    assert main(list(map(str, call))) == 0 and (tmp_path / "seed-0/run.json").is_file()


def test_a_stale_compiled_file_is_noticed(package):
    """Python takes a compiled file for that of a source of the same size and second."""
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": ""}
    path = package / "models/numpy_nn/modules.py"
    stamp = path.stat().st_mtime
    subprocess.run([sys.executable, "-c", "import cifar_report.models.numpy_nn.modules"], env=environment, check=True)
    path.write_text(path.read_text().replace("-= 1", "+= 1"))
    os.utime(path, (stamp, stamp))
    code = (
        "from cifar_report.study import identity, kinds\n"
        "kinds.entries('numpy-mlp')\n"
        "identity.check_code('numpy-mlp', identity.code_digest('numpy-mlp'), loaded=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "cifar_report.models.numpy_nn.modules was loaded from another source" in done.stderr


def test_an_edit_that_is_taken_back_is_noticed(package):
    """What was imported in between is in memory, and no file tells it."""
    path = package / "models/numpy_nn/modules.py"
    code = f"""
from pathlib import Path
from cifar_report.study import identity, kinds
planned = identity.code_digest('numpy-mlp')
identity.check_code('numpy-mlp', planned)
path = Path({str(path)!r})
text = path.read_text()
path.write_text(text.replace("-= 1", "+= 1"))
kinds.entries('numpy-mlp')
path.write_text(text)
identity.check_code('numpy-mlp', planned, loaded=True)
"""
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "cifar_report.models.numpy_nn.modules was loaded from another source" in done.stderr


def test_a_store_that_rounds_what_it_reads_does_not_train(dataset, tmp_path, monkeypatch):
    stopped(SETTINGS, 0, dataset, tmp_path, monkeypatch)
    read = checkpoints.read

    def rounded(*arguments):
        checkpoint = read(*arguments)
        state = {name: array.astype("f2").astype(array.dtype) for name, array in checkpoint.state.items()}
        return dataclasses.replace(checkpoint, state=state)

    monkeypatch.setattr(checkpoints, "read", rounded)
    with pytest.raises(ValueError, match="the checkpoint is not what was saved"):
        obtain(SETTINGS, 0, dataset, tmp_path)


# --- runs that no longer count ----------------------------------------------------------------------------------------


def test_runs_of_other_code_are_told_before_anything_trains(dataset, tmp_path):
    """Also those from before a setting came to be; not those that were trained anew."""
    finished = obtain(SETTINGS, 0, dataset, tmp_path)
    run = json.loads((finished / "run.json").read_text())
    old = {**run, "code": "0" * 64, "seconds": 60.0, "evaluation_seconds": 30.0}
    old["settings"] = {name: value for name, value in run["settings"].items() if name != "dirac"}
    (tmp_path / ("0" * 64) / "finished").mkdir(parents=True)
    (tmp_path / ("0" * 64) / "finished/run.json").write_text(to_json(old))
    variant = config.Variant(name="mlp", label="mlp", seeds=(0, 1), settings=SETTINGS.full())
    study = SimpleNamespace(variants={"mlp": variant}, searches={})
    assert plan.superseded(study, tmp_path) == (0, 0)
    shutil.rmtree(finished.parent)
    assert plan.superseded(study, tmp_path) == (1, 90.0)
    other = SimpleNamespace(variants={"mlp": dataclasses.replace(variant, seeds=(1,))}, searches={})
    assert plan.superseded(other, tmp_path) == (0, 0)
    longer = SimpleNamespace(
        variants={"mlp": dataclasses.replace(variant, settings=variant.settings | {"steps": 999})}, searches={}
    )
    assert plan.superseded(longer, tmp_path) == (0, 0)
    # A halving counts what it may have drawn: its own settings but for those that it chooses.
    base = SETTINGS.full() | {"steps": 999}
    drawing = SimpleNamespace(base=base, grid={"learning_rate": {"low": 0.1, "high": 1}}, seeds=(0,), trials=dict)
    assert plan.superseded(SimpleNamespace(variants={}, searches={"s": drawing}), tmp_path) == (1, 90.0)
    drawing.base = base | {"batch_size": base["batch_size"] + 1}
    assert plan.superseded(SimpleNamespace(variants={}, searches={"s": drawing}), tmp_path) == (0, 0)
