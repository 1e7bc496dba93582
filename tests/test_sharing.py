"""Runs that share a process: the same files as in processes of their own, each trained once."""

import dataclasses
import fcntl
import itertools
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from runs import requested, settings

from cifar_report.base.errors import InputError
from cifar_report.base.files import to_json
from cifar_report.runs import store
from cifar_report.runs.store import Store
from cifar_report.study.identity import code_digest

SETTINGS = settings(
    kind="torch-mlp", optimiser="adam", evaluate_every=3, dropout=0.1, batch_norm="torch", train_on="train+validation"
)
FILES = ("curve.csv", "model.safetensors", "test-logits.npy")


def seeds(count, dataset):
    return [requested(SETTINGS, seed, dataset, f"seed {seed}") for seed in range(count)]


def finished(folder):
    return {json.loads(path.read_text())["seed"]: path.parent for path in folder.glob("*/finished/run.json")}


def test_a_shared_process_makes_the_same_files(dataset, tmp_path):
    """Of seeds, and of trials, whose settings differ."""
    wider = dataclasses.replace(SETTINGS, hidden=(7,), dropout=0.0, learning_rate=0.01)
    runs = [*seeds(3, dataset), requested(wider, 3, dataset, "wider")]
    Store(tmp_path / "shared").share(runs[1], runs, 4)
    shared = finished(tmp_path / "shared")
    assert set(shared) == {0, 1, 2, 3}
    for run in runs:
        seed, alone = run.seed, Store(tmp_path / "alone").obtain(run)
        for file in FILES:
            assert (alone / file).read_bytes() == (shared[seed] / file).read_bytes(), (seed, file)


def test_no_more_are_trained_than_may_share(dataset, tmp_path, monkeypatch, capsys):
    runs = seeds(4, dataset)
    Store(tmp_path).share(runs[0], runs, 2)
    assert "already trained" not in capsys.readouterr().out
    assert set(finished(tmp_path)) == {0, 1}
    Store(tmp_path).share(runs[0], runs, 2)  # there already: nothing is trained
    assert set(finished(tmp_path)) == {0, 1}
    monkeypatch.setattr(store, "SHORT_RUN", 0.0)  # runs that are not short stay apart
    Store(tmp_path).share(runs[2], runs, 4)
    assert set(finished(tmp_path)) == {0, 1, 2}


@pytest.mark.parametrize(("seconds", "together"), [(59, 3), (61, 1)])
def test_runs_of_less_than_a_minute_share_a_process(dataset, tmp_path, monkeypatch, seconds, together):
    """By a clock on which each takes as long."""
    clock = SimpleNamespace(monotonic=itertools.count(0, seconds).__next__, strftime=time.strftime)
    monkeypatch.setattr(store, "time", clock)
    runs = seeds(3, dataset)
    Store(tmp_path).share(runs[0], runs, 3)
    assert len(finished(tmp_path)) == together


def test_what_another_process_trains_is_left_to_it(dataset, tmp_path):
    runs = seeds(3, dataset)
    home = Store(tmp_path).home(runs[1])
    home.mkdir(parents=True)
    with (home / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        Store(tmp_path).share(runs[0], runs, 3)
    assert set(finished(tmp_path)) == {0, 2}


def test_a_run_that_fails_on_the_way_is_left_to_its_own_job(dataset, tmp_path, capsys):
    too_large = requested(dataclasses.replace(SETTINGS, batch_size=100_000), 1, dataset, "too large")
    Store(tmp_path).share(seeds(1, dataset)[0], [too_large], 2)
    assert "too large: left to its own job" in capsys.readouterr().out
    with pytest.raises(InputError, match="batch_size"):
        Store(tmp_path).share(too_large, seeds(1, dataset), 2)


@pytest.mark.parametrize("trial", [False, True], ids=["seed", "trial"])
def test_a_job_finds_its_siblings_and_a_finished_one_imports_no_torch(dataset, tmp_path, trial):
    """`cifar-report train`, twice: the first trains two runs, the second publishes the other."""
    plans = [
        {"variant": f"v{seed if trial else ''}", "seed": seed, "settings": SETTINGS.canonical()}
        | {"code": code_digest(SETTINGS.kind)}
        for seed in range(2)
    ]
    listed = {"trials": ["0", "1"]} if trial else {"variants": [{"name": "v", "seeds": [0, 1]}]}
    (tmp_path / "stage.json").write_text(to_json({"settings": listed}))
    for name, document in enumerate(plans):
        (tmp_path / f"{name}.json").write_text(to_json(document))

    def job(seed):
        arguments = ["--dataset", str(dataset.folder), "--store", "store", "--output", f"run-{seed}"]
        arguments += ["--plan", f"{seed}.json", "--stage", "stage.json", "--seeds-per-job", "2"]
        command = "train-trial" if trial else "train-variant"
        arguments += [] if trial else ["--seed", str(seed)]
        call = f"from cifar_report.cli import main; main({[command, *arguments]})"
        code = f"import sys; {call}; print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.splitlines()

    assert job(0)[-1] == "True"
    assert set(finished(tmp_path / "store")) == {0, 1}
    told = job(1)
    assert told[-1] == "False" and "taken from the store" in told[0]
    assert (tmp_path / "run-1/model.safetensors").is_file() != trial
