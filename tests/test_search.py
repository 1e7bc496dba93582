"""Successive halving: what it promotes, and that neither workers nor a kill change what it selects."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from cifar_report.analysis import searches, selection
from cifar_report.data import datasets
from cifar_report.runs import halving
from cifar_report.runs.halving import Score, promoted, search
from cifar_report.study import config
from cifar_report.study.identity import code_digest

GRID = {
    "hidden": [[4], [8], [4, 4]],
    "learning_rate": {"low": 0.0001, "high": 0.01, "log": True},
    "shift": {"low": 0, "high": 3, "log": False},
}
PLAN = {
    "search": "small",
    "seed": 7,
    "settings": {
        "kind": "numpy-mlp",
        "optimiser": "sgd",
        "learning_rate": 0.002,
        "steps": 36,
        "batch_size": 16,
        "preprocessing": "mean-image",
        "evaluate_every": 12,
        "evaluation_images": 100,
        "threads": 1,
        "slope": 0.02,
    },
    "grid": GRID,
    "rung_steps": [4, 12, 36],
    "halving": {"trials": 9, "batch": 3, "reduction": 3, "rungs": 3, "workers": 1},
    "code": code_digest("numpy-mlp"),
}
STAGE = {"method": "successive-halving", "grid": GRID, "rung_steps": PLAN["rung_steps"]}


def settings(rate, **changes):
    return config.Settings.from_mapping(PLAN["settings"] | {"hidden": [4], "learning_rate": rate, "steps": 4} | changes)


def graded(trials):
    """A score without training: the closer the rate is to 0.001, the better; more steps add."""
    return [Score(1 / (1 + abs(math.log10(s.learning_rate) + 3)) + s.steps / 1000, 1.0, True) for s in trials]


def test_promotion_by_hand():
    """Seven trials, one in three goes on: of 0.6, 0.5, 0.5, 0.4 … the 0.6, and of the two 0.5 the lower loss."""
    scores = {
        settings(0.1): Score(0.4, 0.1, True),
        settings(0.2): Score(0.5, 1.5, True),
        settings(0.3): Score(0.9, math.nan, False),  # diverged: the highest accuracy, and yet not promoted
        settings(0.4): Score(0.6, 2.0, True),
        settings(0.5): Score(0.5, 1.4, True),
        settings(0.6): Score(0.1, 3.0, True),
        settings(0.7): Score(0.2, 3.0, True),
    }
    assert [s.learning_rate for s in promoted(scores, 3)] == [0.4, 0.5]
    assert [s.learning_rate for s in promoted(scores, 8)] == [0.4]
    assert promoted({settings(0.1): Score(0.1, math.nan, False)}, 2) == []


def test_rungs_are_longer_and_fewer_and_hold_the_best():
    rungs = search(PLAN, graded)
    assert [len(rung) for rung in rungs] == [9, 3, 1]
    assert [{s.steps for s in rung} for rung in rungs] == [{4}, {12}, {36}]
    best = sorted(rungs[0], key=lambda s: -graded([s])[0].accuracy)
    without_steps = [[dataclasses.replace(s, steps=1) for s in rung] for rung in (best, *rungs[1:])]
    assert without_steps[1] == without_steps[0][:3] and without_steps[2] == without_steps[0][:1]
    for s in rungs[0]:
        assert list(s.hidden) in GRID["hidden"] and 0.0001 <= s.learning_rate <= 0.01 and s.shift in range(4)
        assert float(f"{s.learning_rate:.3g}") == s.learning_rate


def test_draws_depend_on_the_seed_and_later_batches_on_what_was_found():
    drawn = search(PLAN, graded)[0]
    assert search(PLAN, graded)[0] == drawn
    assert search(PLAN | {"seed": 8}, graded)[0] != drawn
    other = search(PLAN, lambda trials: [Score(-s.accuracy, 1.0, True) for s in graded(trials)])[0]
    assert other[:3] == drawn[:3] and other != drawn


def test_a_configuration_drawn_twice_is_one_trial():
    trained = []

    def train(trials):
        trained.extend(trials)
        return [Score(0.5, 1.0, True) for _ in trials]

    plan = PLAN | {"grid": {"hidden": [[4], [8]], "shift": [0, 1]}}
    first, *_ = search(plan, train)
    assert 1 <= len(first) <= 4 and len(trained) == len(set(trained))


def test_a_search_that_diverges_throughout_ends_after_its_first_rung():
    rungs = search(PLAN, lambda trials: [Score(0.1, math.nan, False) for _ in trials])
    assert [len(rung) for rung in rungs] == [9, 0, 0]


# --- on the digits, without test arrays -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    datasets.prepare("digits", {"source": "digits"}, 200, folder, folder)
    for file in folder.glob("test-*"):
        file.unlink()
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return found(PLAN, data, folder)


def found(plan, data, folder):
    """trials.json, selected.yaml and search.csv of a search."""
    trials = folder / "search" / "small"
    halving.write(plan, data, folder / "store", trials)
    selection.select(STAGE, trials, trials / "selected.yaml")
    searches.write({"small": STAGE}, folder / "search", folder / "search.csv")
    files = (trials / "trials.json", trials / "selected.yaml", folder / "search.csv")
    return folder, [file.read_text() for file in files]


def test_every_trial_is_listed_with_its_curve_and_the_last_rung_is_selected(whole):
    folder, (_, selected, _) = whole
    table = pd.read_csv(folder / "search.csv")
    assert list(table.columns) == [
        *("trial", "hidden", "learning_rate", "shift", "validation_accuracy", "validation_loss", "status", "selected"),
        *("rung", "step", "curve", "search", "seed"),
    ]
    assert list(table["rung"]) == [1] * 9 + [2] * 3 + [3] and list(table["step"]) == [4] * 9 + [12] * 3 + [36]
    for row in table.itertuples():
        curve = pd.read_csv(folder / row.curve)
        last = curve[(curve["split"] == "validation") & (curve["step"] == row.step)]
        assert last["accuracy"].item() == row.validation_accuracy
        home = (folder / row.curve).parent
        assert {file.name for file in home.iterdir()} == {"curve.csv", "run.json"}
        assert json.loads((home / "run.json").read_text())["variant"] == f"small-{row.trial[:6]}"
    assert list(table["selected"]) == [False] * 12 + [True] and set(table["seed"]) == {7}
    chosen = yaml.safe_load(selected)["settings"]
    assert set(chosen) == set(GRID) and chosen["learning_rate"] == table["learning_rate"].iloc[-1]


def test_two_workers_find_the_same(whole, data, tmp_path):
    plan = PLAN | {"halving": PLAN["halving"] | {"workers": 2}}
    assert found(plan, data, tmp_path)[1] == whole[1]


def test_killed_and_resumed_finds_the_same(whole, data, tmp_path):
    """By a real kill, once a few trials lie in the store; these are not trained again."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    command = [sys.executable, "-m", "cifar_report.cli", "search-halving", "--stage", tmp_path / "plan.json"]
    command += ["--dataset", data, "--store", tmp_path / "store", "--output", tmp_path / "search" / "small"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(tmp_path.glob("store/*/finished/run.json"))) < 4:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "search/small/trials.json").exists()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/finished/run.json")}
    assert 4 <= len(before) < 13
    assert found(PLAN, data, tmp_path)[1] == whole[1]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    shutil.rmtree(tmp_path / "store")


def test_a_last_batch_may_be_smaller():
    batches = []
    search(PLAN | {"halving": PLAN["halving"] | {"trials": 8}}, lambda trials: batches.append(trials) or graded(trials))
    assert [len(batch) for batch in batches[:3]] == [3, 3, 2]


def test_what_diverged_counts_as_no_accuracy_whatever_its_own_is():
    def graded_with(accuracy):
        def train(trials):
            return [Score(accuracy, 1.0, False) if s.learning_rate > 0.001 else graded([s])[0] for s in trials]

        return train

    assert search(PLAN, graded_with(0.99))[0] == search(PLAN, graded_with(0.0))[0]


def test_a_trials_score_is_that_of_its_validation_split(tmp_path):
    """The loss decides between equal accuracies; a diverged run may have none."""
    for final, status, expected in (
        ({"accuracy": 0.5, "loss": 1.25}, "completed", Score(0.5, 1.25, True)),
        ({"accuracy": 0.1, "loss": None}, "diverged", Score(0.1, pytest.approx(math.nan, nan_ok=True), False)),
    ):
        record = {"status": status, "final": {"train": {"accuracy": 0.9, "loss": 0.1}, "validation": final}}
        (tmp_path / "run.json").write_text(json.dumps(record))
        assert halving._score(tmp_path) == expected
