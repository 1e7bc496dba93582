"""The benchmarks' records: which goals count as met, and what the README says of them."""

import importlib
import json

import pytest
import torch
from test_workflow import ROOT

from cifar_report.models.torch_nn.convolution import Convolution


@pytest.fixture
def records(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("records")


def record(processor, cores=2, **parts):
    """One whose parts are {part: (time of the commit, {goal: met})}."""
    return {
        "processor": processor,
        "model": "1 2",
        "cores": cores,
        "parts": {
            part: {
                "commit": {"hash": f"{time:x}", "time": time},
                "results": [{"name": name, "goal": "value <= 1", "met": met} for name, met in goals.items()],
                "info": [],
            }
            for part, (time, goals) in parts.items()
        },
    }


def test_a_goal_is_met_where_all_records_of_the_newest_measured_commit_meet_it(records):
    found = records.goals(
        [
            record("A", vgg=(20, {"speed": True, "memory": True}), demo=(10, {"demo": False, "gone": True})),
            record("B", vgg=(20, {"speed": True, "memory": False}), demo=(30, {"demo": True, "not measured": None})),
            record("C", vgg=(10, {"speed": False, "of another name then": True})),
        ]
    )
    assert {name: records.is_met(rows) for name, rows in found.items()} == {
        "speed": True,
        "memory": False,
        "demo": True,
        "not measured": None,
    }
    assert [(row.processor[0], row.newest) for row in found["speed"]] == [("A", True), ("B", True), ("C", False)]


def test_one_processor_with_other_cores_is_another_machine(records):
    found = records.goals([record("A", 2, vgg=(20, {"speed": True})), record("A", 4, vgg=(20, {"speed": False}))])
    assert [row.processor for row in found["speed"]] == ["A (1 2), 2 cores", "A (1 2), 4 cores"]


def test_a_part_that_is_measured_again_leaves_the_others(records, tmp_path):
    for part, measured in (("vgg", {"results": [1]}), ("demo", {"results": [2]}), ("vgg", {"results": [3]})):
        records.update(tmp_path, part, measured)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["parts"] == {"vgg": {"results": [3]}, "demo": {"results": [2]}}


def test_the_readme_says_what_the_records_say_a_study_costs(records):
    table = records.costs(records.read())
    assert table and f"<!-- costs -->\n\n{table}\n<!-- /costs -->" in (ROOT / "README.md").read_text()


def test_the_arithmetic_of_a_convolution_leaves_out_the_zeros_around_a_map(records):
    """Of ones with kernels of ones, the outputs' sum is the number of multiplications that are no zero's."""
    x = torch.ones(200, 3, 4, 5)
    counted = torch.nn.functional.conv2d(x, torch.ones(7, 3, 3, 3), padding=1).sum().item()
    found = importlib.import_module("vgg").arithmetic(layer := Convolution(3, 7), x, layer(x))
    assert found == {"shape": "3→7 at 4×5", "GFLOP": round(2 * counted / 1e9, 6)}
