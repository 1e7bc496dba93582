"""Shifts against SciPy's, flips against a run on mirror images, batch statistics against PyTorch in training mode."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from runs import obtain, requested
from safetensors.numpy import load_file
from scipy import ndimage
from torch import nn

from cifar_report.analysis import perturbed
from cifar_report.analysis.measurements import BATCH_STATISTICS, FLIPS, SHIFTS, lost, read
from cifar_report.analysis.perturbed import measure_batch_statistics, measure_flips, measure_shifts, shifted
from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, sha256, to_json
from cifar_report.data import datasets
from cifar_report.runs import store
from cifar_report.runs.record import write_record
from cifar_report.study.settings import Settings
from cifar_report.training.batches import scores

COMMON = {
    "learning_rate": 0.0005,
    "steps": 20,
    "batch_size": 50,
    "preprocessing": "mean-image",
    "evaluate_every": 20,
    "evaluation_images": 20,
    "threads": 1,
    "hidden": (8,),
    "slope": 0.02,
}
VARIANTS = {
    "mlp-numpy": Settings(kind="numpy-mlp", optimiser="sgd", momentum=0.9, nesterov=True, **COMMON),
    "mlp-torch": Settings(kind="torch-mlp", optimiser="adam", batch_norm="torch", average_decay=0.8, **COMMON),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Each variant trained and evaluated on the digits, in runs/, and on their mirror images, in mirrored-runs/."""
    root = tmp_path_factory.mktemp("study")
    datasets.prepare("digits", {"source": "digits"}, 200, folder=root / "dataset", resources=root)
    shutil.copytree(root / "dataset", root / "mirrored-dataset")
    images = np.load(root / "dataset/test-images.npy")[..., ::-1].copy()
    np.save(root / "mirrored-dataset/test-images.npy", images)
    description = read_json(root / "mirrored-dataset/dataset.json")
    description["sha256"]["test-images"] = datasets.array_digest(images)
    (root / "mirrored-dataset/dataset.json").write_text(to_json(description))
    for name, settings in VARIANTS.items():
        for prefix in ("", "mirrored-"):
            data = datasets.load(root / f"{prefix}dataset")
            finished = obtain(settings, 0, data, root / "store", name)
            store.publish(finished, root / f"{prefix}runs/{name}/seed-0", requested(settings, 0, data), name)
    return root


def test_flips_are_the_mean_of_both_softmaxes(study, tmp_path):
    stage = {"variants": [{"name": name, "seeds": [0]} for name in VARIANTS]}
    measure_flips(stage, study / "runs", study / "dataset", tmp_path / "flips.csv")
    table = pd.read_csv(tmp_path / "flips.csv")
    assert list(table.columns) == FLIPS and list(table["variant"]) == list(VARIANTS)
    labels = torch.from_numpy(np.load(study / "dataset/test-labels.npy"))
    for row in table.itertuples():
        run = read_json(study / f"runs/{row.variant}/seed-0/run.json")
        assert (row.images, row.seed) == (len(labels), 0)
        assert row.accuracy == run["final"]["test"]["accuracy"]
        assert row.loss == pytest.approx(run["final"]["test"]["loss"], rel=1e-5)
        mean = sum(
            torch.softmax(torch.from_numpy(np.load(study / f"{runs}/{row.variant}/seed-0/test-logits.npy")).double(), 1)
            for runs in ("runs", "mirrored-runs")
        )
        mean /= 2
        assert row.accuracy_flipped == (mean.argmax(1) == labels).double().mean().item()
        loss = torch.nn.functional.nll_loss(mean.log(), labels).item()
        assert row.loss_flipped == pytest.approx(loss, rel=1e-5)
        assert row.loss_flipped != pytest.approx(row.loss, rel=1e-3)


def test_a_study_that_measures_no_flips_has_an_empty_table(study, tmp_path):
    measure_flips({"variants": []}, study / "runs", study / "dataset", tmp_path / "flips.csv")
    assert list(pd.read_csv(tmp_path / "flips.csv").columns) == FLIPS


def test_a_run_that_diverged_has_no_row(study, tmp_path):
    shutil.copytree(study / "runs/mlp-numpy", tmp_path / "mlp-numpy")
    record = read_json(tmp_path / "mlp-numpy/seed-0/run.json") | {"status": "diverged"}
    write_record(tmp_path / "mlp-numpy/seed-0/run.json", record)
    stage = {"variants": [{"name": "mlp-numpy", "seeds": [0]}]}
    measure_flips(stage, tmp_path, study / "dataset", tmp_path / "flips.csv")
    assert pd.read_csv(tmp_path / "flips.csv").empty


def test_logits_of_another_test_split_are_refused(study, tmp_path):
    shutil.copytree(study / "runs/mlp-numpy", tmp_path / "mlp-numpy")
    path, record = (tmp_path / "mlp-numpy/seed-0" / name for name in ("test-logits.npy", "run.json"))
    np.save(path, np.zeros((3, 10), dtype=np.float32))
    whole = read_json(record)
    write_record(record, whole | {"digests": whole["digests"] | {path.name: sha256(path)}})
    stage = {"variants": [{"name": "mlp-numpy", "seeds": [0]}]}
    with pytest.raises(InputError, match=r"mlp-numpy/seed-0/test-logits\.npy: expected a row for each of the \d+ test"):
        measure_flips(stage, tmp_path, study / "dataset", tmp_path / "flips.csv")


STAGE = {"variants": [{"name": name, "seeds": [0]} for name in VARIANTS]}


def test_a_shift_repeats_the_edge():
    image = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(shifted(image, 1, 0)[0, 0], [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(shifted(image, 0, -2)[0, 0], [[2, 2, 2], [5, 5, 5]])


def logits_of(folder, images, mean_of):
    """The NumPy MLP's, written out: leaky ReLU of 0.02, the mean training image taken away."""
    weights = load_file(folder / "model.safetensors")
    mean = mean_of.astype(np.float64).mean(axis=0).astype(np.float32)
    x = (images.astype(np.float32) - mean).reshape(len(images), -1)
    x = x @ weights["linear.0.weight"].T + weights["linear.0.bias"]
    x = np.where(x > 0, x, np.float32(0.02) * x)
    return x @ weights["linear.1.weight"].T + weights["linear.1.bias"]


def test_shifts_are_the_mean_accuracy_over_four_directions_on_the_same_images(study, tmp_path):
    measure_shifts(STAGE, study / "runs", study / "dataset", tmp_path / "shifts.csv")
    table = read(tmp_path / "shifts.csv", SHIFTS)
    images, labels, train = (
        np.load(study / f"dataset/{n}.npy") for n in ("test-images", "test-labels", "train-images")
    )
    assert set(table["images"]) == {len(labels)} and list(table["shift"]) == [0, 1, 2, 3, 4] * 2
    of_numpy = table[table["variant"] == "mlp-numpy"].set_index("shift")["accuracy"]
    for pixels in (0, 2, 4):
        right = [
            logits_of(
                study / "runs/mlp-numpy/seed-0", ndimage.shift(images, (0, 0, *move), order=0, mode="nearest"), train
            ).argmax(axis=1)
            == labels
            for move in ((pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels))
        ]
        assert of_numpy[pixels] == pytest.approx(np.mean(right), abs=1e-3)
    assert of_numpy[4] < of_numpy[0] - 0.05
    run = read_json(study / "runs/mlp-torch/seed-0/run.json")
    assert table.loc[(table["variant"] == "mlp-torch") & (table["shift"] == 0), "accuracy"].item() == pytest.approx(
        run["final"]["test"]["accuracy"]
    )
    assert lost(table).loc[("mlp-numpy", 0), 4] == of_numpy[0] - of_numpy[4]
    assert lost(table, share=True).loc[("mlp-numpy", 0), 4] == pytest.approx(1 - of_numpy[4] / of_numpy[0])


def test_a_subset_of_the_test_images_keeps_each_class_at_its_share(study, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(perturbed, "scores", lambda logits, labels: seen.append(labels) or scores(logits, labels))
    stage = {"variants": [{"name": "mlp-numpy", "seeds": [0]}], "images": 30}
    measure_shifts(stage, study / "runs", study / "dataset", tmp_path / "shifts.csv")
    table = read(tmp_path / "shifts.csv", SHIFTS)
    assert set(table["images"]) == {30}
    assert all((np.bincount(labels) == 3).all() for labels in seen) and len(seen) == 1 + 4 * 4
    # Four directions on thirty images: with labels of other images, no accuracy would be near the run's.
    assert (table["accuracy"] * 120).round(6).mod(1).eq(0).all()
    whole = read_json(study / "runs/mlp-numpy/seed-0/run.json")["final"]["test"]["accuracy"]
    assert abs(table["accuracy"][0] - whole) < 0.25 and whole > 0.5


def test_batch_statistics_are_those_of_training_mode(study, tmp_path):
    """A model written out, of the stored weights, in training mode, on the test images 32 at a time, shuffled."""
    measure_batch_statistics(STAGE, study / "runs", study / "dataset", tmp_path / "table.csv")
    table = read(tmp_path / "table.csv", BATCH_STATISTICS)
    weights = load_file(study / "runs/mlp-torch/seed-0/model.safetensors")
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.02), nn.Linear(8, 10))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    images, labels, train = (
        np.load(study / f"dataset/{n}.npy") for n in ("test-images", "test-labels", "train-images")
    )
    x = torch.from_numpy(images).float() - torch.from_numpy(train.mean(axis=0, dtype=np.float64)).float()
    order = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1, 0))).permutation(len(labels))
    x, labels = x[torch.from_numpy(order)], labels[order]
    with torch.no_grad():
        answers = torch.cat([model.train()(batch) for batch in x.split(32)]).argmax(dim=1).numpy()
    evaluated = read_json(study / "runs/mlp-torch/seed-0/run.json")["final"]["test"]["accuracy"]
    expected = ["mlp-torch", 0, len(labels), 32, len(labels) % 32, pytest.approx(np.mean(answers == labels)), evaluated]
    assert table.values.tolist() == [expected]  # the NumPy MLP has no batch norm
    assert table["accuracy"][0] != evaluated


def test_an_image_that_would_be_left_alone_joins_the_batch_before(study, tmp_path, monkeypatch):
    """It has no variance; two that are left have one."""
    split = datasets.Dataset.split
    for count, last in ((33, 33), (34, 2), (32, 32)):

        def first(self, name, count=count):
            return tuple(part[:count] for part in split(self, name)) if name == "test" else split(self, name)

        monkeypatch.setattr(datasets.Dataset, "split", first)
        measure_batch_statistics(STAGE, study / "runs", study / "dataset", tmp_path / "table.csv")
        row = read(tmp_path / "table.csv", BATCH_STATISTICS).iloc[0]
        assert (row["images"], row["last_batch"]) == (count, last) and 0 <= row["accuracy"] <= 1
