"""Test-time flips, against a run that was evaluated on mirrored test images from the start."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from runs import obtain, requested

from cifar_report.analysis.measurements import FLIPS
from cifar_report.analysis.perturbed import measure_flips
from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, to_json
from cifar_report.data import datasets
from cifar_report.runs import store
from cifar_report.study.settings import Settings

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
    (tmp_path / "mlp-numpy/seed-0/run.json").write_text(to_json(record))
    stage = {"variants": [{"name": "mlp-numpy", "seeds": [0]}]}
    measure_flips(stage, tmp_path, study / "dataset", tmp_path / "flips.csv")
    assert pd.read_csv(tmp_path / "flips.csv").empty


def test_logits_of_another_test_split_are_refused(study, tmp_path):
    shutil.copytree(study / "runs/mlp-numpy", tmp_path / "mlp-numpy")
    np.save(tmp_path / "mlp-numpy/seed-0/test-logits.npy", np.zeros((3, 10), dtype=np.float32))
    stage = {"variants": [{"name": "mlp-numpy", "seeds": [0]}]}
    with pytest.raises(InputError, match=r"mlp-numpy/seed-0/test-logits\.npy: expected a row for each of the \d+ test"):
        measure_flips(stage, tmp_path, study / "dataset", tmp_path / "flips.csv")
