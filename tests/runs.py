"""Runs written by hand, as they would be if they had been trained."""

import json

import numpy as np
import yaml

from cifar_report.base.files import sha256, to_json
from cifar_report.runs.planned import plan_of
from cifar_report.runs.store import Request, Store
from cifar_report.study import plan
from cifar_report.study.identity import code_digest, run_identity
from cifar_report.study.settings import Settings

BASE = {
    "kind": "numpy-mlp",
    "optimiser": "sgd",
    "learning_rate": 0.002,
    "steps": 6,
    "batch_size": 32,
    "preprocessing": "mean-image",
    "evaluate_every": 2,
    "evaluation_images": 50,
    "threads": 1,
    "hidden": (5,),
}


def settings(**changes):
    """Of a small MLP that trains in a moment, but for what a test changes."""
    return Settings(**BASE | changes)


def requested(chosen, seed, dataset, name="a run", test=True):
    """A run of this checkout's code."""
    return Request(chosen, seed, dataset, code_digest(chosen.kind), name, test)


def obtain(chosen, seed, dataset, folder, name="a run", test=True):
    """The folder of the finished run, from the store in `folder`."""
    return Store(folder).obtain(requested(chosen, seed, dataset, name, test))


CURVE = "step,samples_seen,split,loss,accuracy\n0,0,train,2.3,0.1\n"


def write_run(results, folder, digests, accuracy=0.5, status="completed", document=None, logits=None, **record):
    """Writes runs/<variant>/seed-<n> or search/<search>/<trial> below a study's folder, by its plan or `document`."""
    document = json.loads((results / (document or plan_of(folder))).read_text())
    search = document.get("search")
    selected = yaml.safe_load((results / f"search/{search}/selected.yaml").read_text())["settings"] if search else None
    settings = plan.settings_of(document, selected)
    of_study = folder.startswith("runs/")
    data = {name: digest for name, digest in digests.items() if of_study or not name.startswith("test")}
    seed = int(folder.rpartition("-")[2]) if of_study else document["seed"]
    path = results / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "curve.csv").write_text(CURVE)
    if of_study:
        for name in ("model.safetensors", "test-logits.npy"):
            (path / name).write_text(f"{name} of {folder}")
    if logits is not None:
        np.save(path / "test-logits.npy", logits)
    final = {split: {"loss": 1.0, "accuracy": accuracy} for split in ("train", "validation", "test")}
    record = {
        "variant": document["variant"],
        "seed": seed,
        "status": status,
        "step": settings.steps,
        "identity": run_identity(settings, seed, data, document["code"]),
        "code": document["code"],
        "settings": settings.full(),
        "final": final,
        "samples_seen": 40,
        "parameters": 7,
        "forward_flops": 14,
        "seconds": 2.0,
        "peak_memory_mb": 100.0,
        "device": {"type": "cpu", "cpu": "A"},
        "threads": 1,
        "versions": {"numpy": "2"},
        "commit": {"hash": "0123456789abcdef", "time": 1_700_000_000, "dirty": False},
        "data": {"name": "digits", "source": "digits", "digests": data},
        "digests": {file.name: sha256(file) for file in sorted(path.iterdir()) if file.name != "run.json"},
    } | record
    (path / "run.json").write_text(to_json(record))
