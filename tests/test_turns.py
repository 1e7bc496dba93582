"""Two processes that want the same run: one trains it, the other waits and takes it. Two studies share the store."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest
from runs import settings

from cifar_report.base.files import to_json
from cifar_report.data import datasets
from cifar_report.study.identity import code_digest

SETTINGS = settings(steps=2000, evaluate_every=50, hidden=(20,))


@pytest.fixture
def folder(tmp_path):
    datasets.prepare("digits", {"source": "digits"}, 200, tmp_path / "dataset", tmp_path)
    for study, chosen in (("one", SETTINGS), ("two", SETTINGS), ("other", dataclasses.replace(SETTINGS, slope=0.1))):
        plan = {"variant": f"mlp-{study}", "search": None, "settings": chosen.canonical()}
        plan["code"] = code_digest(chosen.kind)
        (tmp_path / f"{study}.json").write_text(to_json(plan))
    return tmp_path


def train(folder, study):
    arguments = (
        *("train-variant", "--plan", f"{study}.json", "--dataset", "dataset", "--seed", "0"),
        *("--store", "store", "--output", f"results/{study}"),
    )
    command = [sys.executable, "-m", "cifar_report.cli", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_second_waits_and_takes_the_first_ones_run(folder):
    """Under two studies' names for it; killed, the first leaves its lock to the second, which goes on from there."""
    first = train(folder, "one")
    wait_for(lambda: list(folder.glob("store/*/checkpoint.safetensors")) or first.poll() is not None)
    assert first.poll() is None, first.communicate()[0]
    second, third = train(folder, "two"), train(folder, "other")
    told = [process.communicate(timeout=500)[0] for process in (first, second, third)]
    assert [process.returncode for process in (first, second, third)] == [0, 0, 0], told
    assert "already trained, taken from the store" in told[1] and "step 2000/2000" not in told[1]
    assert "step 2000/2000" in told[0] and "step 2000/2000" in told[2], "another run needs no turn"
    records = [json.loads((folder / f"results/{name}/run.json").read_text()) for name in ("one", "two", "other")]
    assert [record.pop("variant") for record in records] == ["mlp-one", "mlp-two", "mlp-other"]
    assert records[0] == records[1] and records[0]["identity"] != records[2]["identity"]
    assert {path.name for path in folder.glob("store/*/*")} == {"lock", "finished"}


def test_the_second_goes_on_where_a_killed_first_was(folder):
    first = train(folder, "one")
    wait_for(lambda: list(folder.glob("store/*/checkpoint.safetensors")) or first.poll() is not None)
    second = train(folder, "two")
    first.kill()
    told = second.communicate(timeout=500)[0]
    assert first.wait() == -9 and first.stdout.close() is None
    assert second.returncode == 0 and "goes on from step" in told
    assert not list(folder.glob("store/*/checkpoint*")) and not list(folder.glob("store/**/*.tmp"))
