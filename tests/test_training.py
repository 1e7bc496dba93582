"""The two frameworks do the same; runs resume, are shared, and diverge without failing."""

import contextlib
import copy
import dataclasses
import itertools
import json
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import obtain, requested, settings
from torch import nn

from cifar_report.data import datasets
from cifar_report.models.numpy_nn.sgd import SGD
from cifar_report.models.torch_nn import mlp, vgg
from cifar_report.runs import checkpoints, machine, store
from cifar_report.study.identity import run_identity
from cifar_report.training import loop, numpy_trainer, torch_trainer
from cifar_report.training.batches import Order, augmented, draw_augmentation, learning_rate, scores, statistics
from cifar_report.training.splits import Split, splits_of

MLP = settings(steps=50, evaluate_every=10, evaluation_images=100, hidden=(20, 10), slope=0.02, precision="float64")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"initial_std": 1e-4, "preprocessing": "standardise"},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "schedule": "one-cycle", "learning_rate": 2e-4},
        {"flip": True, "shift": 3, "schedule": "cosine", "momentum": 0.5},
    ],
    ids=["plain", "small-initial", "nesterov-one-cycle", "augmented"],
)
def test_frameworks_agree_in_float64(dataset, change):
    """Same seed, same weights, same batches: losses and weights after 50 steps agree to 1e-10."""
    split = Split(*dataset.split("train"))
    ours, theirs = (
        loop.build_trainer(dataclasses.replace(MLP, kind=kind, **change), split, 10, seed=3)
        for kind in ("numpy-mlp", "torch-mlp")
    )
    for until in (1, 10, 50):
        ours.advance(until)
        theirs.advance(until)
        losses = [scores(trainer.logits(split.images[:100]), split.labels[:100])[0] for trainer in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    for a, b in zip(ours.parameters().values(), theirs.parameters().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_a_resumed_run_equals_an_undisturbed_one(dataset, tmp_path, monkeypatch):
    """Killed after a checkpoint, the run goes on to the same bytes: weights, curve, logits."""
    settings = dataclasses.replace(
        MLP,
        kind="torch-mlp",
        precision="float32",
        optimiser="adamw",
        weight_decay=0.01,
        dropout=0.1,
        batch_norm="manual",
        average_decay=0.9,
        flip=True,
        shift=1,
        schedule="one-cycle",
        warmup=0.1,
    )
    whole = obtain(settings, 0, dataset, tmp_path / "whole", "whole")

    save = checkpoints.save
    saved = []

    def save_twice_then_die(path, identity, environment, checkpoint):
        save(path, identity, environment, checkpoint)
        saved.append(checkpoint.step)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", save_twice_then_die)
    with pytest.raises(KeyboardInterrupt):
        obtain(settings, 0, dataset, tmp_path / "killed", "killed")
    assert saved == [10, 20]
    monkeypatch.undo()
    resumed = obtain(settings, 0, dataset, tmp_path / "killed", "resumed")
    for name in ("model.safetensors", "curve.csv", "test-logits.npy"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    assert not list((tmp_path / "killed").rglob("*.tmp")) and not list(tmp_path.rglob("checkpoint*"))


def test_bf16_rounds_what_goes_into_a_product_and_keeps_the_weights_whole():
    """A linear network's logits, and a step of SGD, whose gradient is a product of rounded numbers too."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 1, 4, 4), dtype=np.uint8), np.arange(8) % 3
    change = {"kind": "torch-mlp", "hidden": (), "batch_size": 8, "learning_rate": 0.01, "precision": "bf16"}
    trainer = loop.build_trainer(settings(**change), Split(images, labels), 3, 0)
    x = torch.from_numpy(images.astype(np.float32) - images.mean(axis=0, dtype=np.float64).astype(np.float32)).flatten(
        1
    )
    weight, bias = (torch.from_numpy(array.copy()) for array in trainer.parameters().values())
    logits = nn.functional.linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()).float()
    np.testing.assert_array_equal(trainer.logits(images), logits)
    assert (logits - nn.functional.linear(x, weight, bias)).abs().max() > 1e-3  # it is no float32
    trainer.advance(1)
    surplus = (torch.softmax(logits, 1) - nn.functional.one_hot(torch.from_numpy(labels))) / 8
    gradient = surplus.bfloat16().T @ x.bfloat16()
    after, _ = trainer.parameters().values()
    np.testing.assert_allclose(after, weight - 0.01 * gradient.float(), atol=1e-5)
    assert (gradient.float() - surplus.T @ x).abs().max() > 0.01  # far more than that
    assert after.dtype == np.float32 and (torch.from_numpy(after).bfloat16().float() != torch.from_numpy(after)).any()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the name is that of an x86 processor")
def test_a_run_tells_for_which_processor_its_arithmetic_was_chosen():
    """The environment may overrule the processor, and with it the last bits of sums."""
    command = "import numpy; from cifar_report.runs.machine import environment as e; print(e('numpy-mlp')['device'])"
    environment = os.environ | {"OPENBLAS_CORETYPE": "Nehalem"}
    told = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert "'kernels': 'Nehalem'" in told.stdout


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_resumed_convolution_equals_an_undisturbed_one(dataset, optimiser, layout):
    """However a model of one's own lays its weights, so must lie the moments that a checkpoint brings back."""
    settings = dataclasses.replace(MLP, kind="torch-vgg", optimiser=optimiser, momentum=0.9 * (optimiser == "sgd"))

    def build(settings, shape, classes, seed):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(shape[0], 4, 3), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(5, classes)).to(memory_format=layout)

    images, labels = dataset.split("train")
    undisturbed, resumed = (torch_trainer.Trainer(build, settings, images, labels, 10, seed=0) for _ in range(2))
    undisturbed.advance(3)
    resumed.restore({name: array.copy() for name, array in undisturbed.state().items()}, 3)
    for trainer in (undisturbed, resumed):
        trainer.advance(6)
    for a, b in zip(undisturbed.parameters().values(), resumed.parameters().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_run_is_not_trained_again(dataset, tmp_path, monkeypatch):
    first = obtain(MLP, 0, dataset, tmp_path, "first")
    monkeypatch.setattr(store, "_train", None)
    assert obtain(MLP, 0, dataset, tmp_path, "again") == first


def test_divergence_is_a_result(dataset, tmp_path):
    settings = dataclasses.replace(MLP, learning_rate=1e9, steps=30)
    with np.errstate(all="ignore"):
        finished = obtain(settings, 0, dataset, tmp_path, "wild")
    run = json.loads((finished / "run.json").read_text())
    assert run["status"] == "diverged" and run["step"] == 10
    assert run["final"]["test"]["loss"] is None and run["final"]["test"]["accuracy"] <= 0.2


def test_seconds_are_those_of_training_alone_and_go_on_after_a_checkpoint(dataset, monkeypatch):
    """A clock that ticks once each time it is read, and a hundred times while a checkpoint is saved."""
    ticks, saved = itertools.count(), {}
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=ticks.__next__))

    def save(checkpoint):
        saved.setdefault(checkpoint.step, copy.deepcopy(checkpoint))
        list(itertools.islice(ticks, 100))

    arrays = dataset.arrays()
    for checkpoint in (None, 20):  # 5 stretches of 10 steps, and an evaluation before each and after the last
        history = loop.train(MLP, 0, arrays, checkpoint and saved[checkpoint], save).history
        assert (history.training_seconds, history.evaluation_seconds) == (5, 6)


def test_a_trainer_sets_what_the_arithmetic_of_a_gpu_follows(monkeypatch):
    """As PyTorch documents it for TF32, and for matrix products that are the same every time."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    data = np.zeros((200, 3, 2, 2), np.uint8), np.zeros(200, np.int64), 2
    for precision, is_exact, products in (("tf32", True, "high"), ("float32", False, "highest")):
        changed = dataclasses.replace(MLP, kind="torch-mlp", precision=precision, deterministic=is_exact)
        torch_trainer.Trainer(mlp.build, changed, *data, seed=0)
        assert torch.get_float32_matmul_precision() == products
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert torch.are_deterministic_algorithms_enabled() == is_exact
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_record_tells_what_a_run_took_and_saw(dataset, tmp_path, monkeypatch):
    """Of one that diverges after ten of 30 steps; the clock goes on by 0.1234567 s each time it is read."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=itertools.count(0, 0.1234567).__next__))
    monkeypatch.setattr(machine, "peak_memory_mb", lambda: 123.456)
    wild = dataclasses.replace(MLP, learning_rate=1e9, steps=30, batch_size=8)
    with np.errstate(all="ignore"):
        run = json.loads((obtain(wild, 0, dataset, tmp_path) / "run.json").read_text())
    assert (run["step"], run["samples_seen"], run["peak_memory_mb"]) == (10, 80, 123.5)
    assert (run["seconds"], run["evaluation_seconds"]) == (0.123, 0.37)
    images = {split: {"images": 100, "of": len(dataset.split(split)[1])} for split in datasets.SPLITS}
    assert run["evaluation_subsets"] == images and images["test"]["of"] > 100
    monkeypatch.setattr(
        numpy_trainer.Trainer, "peak_memory_mb", lambda self: 5.04
    )  # of a GPU's memory, where there is one
    run = json.loads((obtain(MLP, 0, dataset, tmp_path) / "run.json").read_text())
    assert (run["peak_memory_mb"], run["samples_seen"], run["seconds"]) == (5.0, 50 * 32, 0.617)


def test_the_log_tells_speed_and_time_left(dataset, capsys):
    history = SimpleNamespace(rows=[{"step": 10, "split": "train", "loss": 1.5, "accuracy": 0.25}])
    history.training_seconds, history.evaluation_seconds = 4.0, 1.0
    store._progress(requested(MLP, 0, dataset, "mlp"), 10, history)
    assert "mlp  step 10/50  train 1.500 0.250  80 images/s  20 s left" in capsys.readouterr().out
    history.training_seconds = 0.0
    store._progress(requested(MLP, 0, dataset, "mlp"), 0, history)
    assert "mlp  step 0/50    0 images/s  nan s left" in capsys.readouterr().out


def test_a_run_that_is_not_whole_is_trained_anew(dataset, tmp_path, monkeypatch):
    """Nothing is left of one that could not be written, nor of one without its run.json."""
    write = store.write_record
    monkeypatch.setattr(store, "write_record", lambda path, run: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OSError, match="No space"):
        obtain(MLP, 0, dataset, tmp_path)
    assert not list(tmp_path.glob("*/finished*"))
    monkeypatch.setattr(store, "write_record", write)
    finished = obtain(MLP, 0, dataset, tmp_path)
    whole = {file.name: file.read_bytes() for file in finished.iterdir() if file.name != "run.json"}
    (finished / "run.json").unlink()
    (finished / "curve.csv").write_text("damaged")
    assert obtain(MLP, 0, dataset, tmp_path) == finished
    assert {file.name: file.read_bytes() for file in finished.iterdir() if file.name != "run.json"} == whole


def test_the_peak_of_memory_counts_what_was_given_back():
    """In a process of its own: what earlier tests hold free, an allocator may give out again."""
    code = (
        "import numpy as np; from cifar_report.runs import machine; np.ones(100_000_000); machine.forget_peaks();"
        "before = machine.peak_memory_mb(); np.ones(50_000_000); print(machine.peak_memory_mb() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx(400, abs=8)  # 400 MB of 10⁶ bytes, for a moment


def test_a_search_opens_no_test_array(dataset, tmp_path):
    """With the test arrays gone, a trial still trains, and its data digests do not name them."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    for file in dataset.folder.iterdir():
        if not file.name.startswith("test-"):
            (folder / file.name).write_bytes(file.read_bytes())
    finished = obtain(MLP, 0, datasets.load(folder), tmp_path / "store", "trial", test=False)
    run = json.loads((finished / "run.json").read_text())
    assert set(run["final"]) == {"train", "validation"}
    assert not (finished / "test-logits.npy").exists()
    assert not [name for name in run["data"]["digests"] if name.startswith("test-")]


def test_identity_ignores_neutral_settings_alone():
    """An option that is off changes no identity; every other change does."""
    base = run_identity(MLP, 0, {"x": "1"}, "code")
    assert base == run_identity(dataclasses.replace(MLP, dropout=0.0), 0, {"x": "1"}, "code")
    others = [
        run_identity(dataclasses.replace(MLP, threads=2), 0, {"x": "1"}, "code"),
        run_identity(dataclasses.replace(MLP, dropout=0.1), 0, {"x": "1"}, "code"),
        run_identity(MLP, 1, {"x": "1"}, "code"),
        run_identity(MLP, 0, {"x": "2"}, "code"),
        run_identity(MLP, 0, {"x": "1"}, "edited"),
    ]
    assert len({base, *others}) == 6


def test_vgg_has_the_parameters_of_the_study():
    settings = dataclasses.replace(MLP, kind="torch-vgg", hidden=(), slope=0.0, batch_norm="torch")
    model = vgg.build(settings, (3, 32, 32), 10, seed=0)
    assert sum(p.numel() for p in model.parameters()) == 9_231_114
    assert model.eval()(torch.zeros(2, 3, 32, 32, dtype=torch.float64)).shape == (2, 10)


def test_order_is_an_epoch_without_replacement():
    order = Order(images=10, batch_size=3, seed=1)
    epochs = [np.concatenate([order.batch(3 * epoch + i) for i in range(3)]) for epoch in range(2)]
    for epoch in epochs:
        assert len(set(epoch)) == 9 and set(epoch) <= set(range(10))
    assert not np.array_equal(*epochs)
    np.testing.assert_array_equal(Order(10, 3, 1).batch(4), epochs[1][3:6])


def test_augmentation_moves_and_mirrors():
    """Against numpy.roll and flip, image by image, on the padded image."""
    settings = dataclasses.replace(MLP, flip=True, shift=2, batch_size=64)
    flips, moves = draw_augmentation(settings, seed=0, step=5, order=Order(1000, 64, 0))
    assert {*moves.ravel()} == {-2, -1, 0, 1, 2} and 0 < flips.sum() < 64
    x = np.random.default_rng(0).normal(size=(64, 2, 8, 8))
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    got = augmented(x, flips, moves)
    gathered = torch_trainer.augmented(*map(torch.from_numpy, (x, flips, moves)), shift=2)
    np.testing.assert_array_equal(gathered.numpy(), got)
    for i in range(64):
        moved = np.roll(padded[i], moves[:, i], axis=(1, 2))[:, 2:-2, 2:-2]
        np.testing.assert_array_equal(got[i], np.flip(moved, axis=2) if flips[i] else moved)


def test_a_move_may_leave_nothing_of_an_image():
    x = np.ones((2, 1, 4, 6))
    np.testing.assert_array_equal(augmented(x, np.zeros(2, bool), np.array([[9, -9], [0, 0]])), np.zeros_like(x))


def test_a_recorded_step_sees_every_batch_once(monkeypatch):
    """What a CUDA graph replays is bound to the tensors that it was recorded with; a stand-in replays by calling."""
    seen, recording = [], []

    class Graph:
        def replay(self):
            recording[0](recorded.input, replayed=True)

    def step(batch, replayed=False):
        if not recording or replayed:  # a graph that records does not run
            seen.append((batch.chosen.tolist(), batch.rate.item()))

    @contextlib.contextmanager
    def record(graph):
        recording.append(step)
        yield

    for name, stand_in in {
        "Stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "current_stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "stream": lambda stream: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "graph": record,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    recorded = torch_trainer.Recorded(step)
    expected = [([i, i + 1], i / 10) for i in range(torch_trainer.EAGER_STEPS + 4)]
    for index, rate in expected:
        nothing = torch.empty(0)
        recorded(torch_trainer.Batch(torch.tensor(index), torch.tensor(rate, dtype=torch.float64), nothing, nothing))
    assert seen == expected


def test_statistics_are_those_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    mean, std = statistics(images, "standardise")
    np.testing.assert_allclose(mean[:, 0, 0], images.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std[:, 0, 0], images.std(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(statistics(images, "mean-image")[0], images.mean(axis=0), rtol=1e-6)


def test_one_cycle_rises_and_falls():
    settings = dataclasses.replace(MLP, schedule="one-cycle", warmup=0.2, steps=100, learning_rate=1.0)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert np.argmax(rates) in (19, 20) and max(rates) == pytest.approx(1.0, abs=0.06)
    assert (np.diff(rates[:20]) > 0).all() and (np.diff(rates[20:]) < 0).all() and 0 < rates[-1] < 0.02


def test_nesterov_follows_torch():
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=4), rng.normal(size=(3, 4))
    theirs = torch.nn.Parameter(torch.tensor(w))
    optimiser = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    ours = SGD({"w": w}, momentum=0.9, nesterov=True, weight_decay=0.01)
    for g in gradients:
        theirs.grad = torch.tensor(g)
        optimiser.step()
        ours.step({"w": g.copy()}, 0.1)
    np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=1e-12)


def test_the_numpy_job_never_imports_torch():
    """Nor does any training job import torchvision: imports cost seconds a job."""
    code = (
        "import sys; import cifar_report.cli, cifar_report.runs.store, cifar_report.training.{0};"
        "print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    for trainer, expected in (("numpy_trainer", "False False"), ("torch_trainer", "True False")):
        done = subprocess.run([sys.executable, "-c", code.format(trainer)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("kind", ["numpy-mlp", "torch-mlp"])
def test_parameters_and_operations_are_counted(dataset, kind):
    """Biases are parameters, yet no multiply-adds; a multiply-add is two operations."""
    trainer = loop.build_trainer(dataclasses.replace(MLP, kind=kind), Split(*dataset.split("train")), 10, seed=0)
    products = np.prod(dataset.shape) * 20 + 20 * 10 + 10 * 10
    assert trainer.count() == {"parameters": products + 20 + 10 + 10, "forward_flops": 2 * products}


def test_a_run_on_train_and_validation_is_evaluated_on_no_validation_split(dataset):
    splits = splits_of(dataclasses.replace(MLP, train_on="train+validation"), dataset.arrays())
    assert list(splits) == ["train", "test"]
    both = [np.concatenate([dataset.split(name)[part] for name in ("train", "validation")]) for part in (0, 1)]
    for found, expected in zip(splits["train"], both, strict=True):
        np.testing.assert_array_equal(found, expected)
