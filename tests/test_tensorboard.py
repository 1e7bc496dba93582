"""TensorBoard event files: what TensorBoard reads from them is what `curve.csv` and `run.json` say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from cifar_report.base.errors import InputError
from cifar_report.base.files import to_json
from cifar_report.rendering import events

REFERENCE = Path(__file__).parent.parent / "reference/cifar10-jpeg"


def stage_of(*variants):
    return {"variants": [{"name": name, "seeds": seeds} for name, seeds in variants]}


def write(study, *variants, folder="tensorboard"):
    events.write(stage_of(*variants), study / "runs", study / folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two runs of the reference, one of which is made to diverge."""
    folder = tmp_path_factory.mktemp("events")
    for run in ("mlp-best/seed-1", "vgg/seed-0"):
        shutil.copytree(REFERENCE / "runs" / run, folder / "runs" / run)
    curve = (folder / "runs/vgg/seed-0/curve.csv").read_text().splitlines()
    (folder / "runs/vgg/seed-0/curve.csv").write_text("\n".join([*curve[:-1], "5000,160000,test,inf,0.1\n"]))
    record = json.loads((folder / "runs/vgg/seed-0/run.json").read_text())
    kept = {key: value for key, value in record.items() if key not in ("digests", "sha256")}
    (folder / "runs/vgg/seed-0/run.json").write_text(json.dumps(kept))
    write(folder, ("mlp-best", [1]), ("vgg", [0]))
    return folder


@pytest.mark.parametrize("run", ["mlp-best/seed-1", "vgg/seed-0"])
def test_scalars_are_those_of_the_curve(study, run):
    curve = pd.read_csv(study / "runs" / run / "curve.csv")
    record = json.loads((study / "runs" / run / "run.json").read_text())
    found = EventAccumulator(str(study / "tensorboard" / run)).Reload()
    splits = curve["split"].unique()
    assert sorted(found.Tags()["scalars"]) == sorted(f"{m}/{s}" for m in ("loss", "accuracy") for s in splits)
    for (split, rows), metric in ((item, m) for item in curve.groupby("split") for m in ("loss", "accuracy")):
        scalars = found.Scalars(f"{metric}/{split}")
        assert [scalar.step for scalar in scalars] == list(rows["step"])
        np.testing.assert_array_equal([scalar.value for scalar in scalars], rows[metric].astype(np.float32))
        assert scalars[-1].wall_time == pytest.approx(record["seconds"])
        times = record["seconds"] * rows["samples_seen"] / curve["samples_seen"].max()
        assert [scalar.wall_time for scalar in scalars] == pytest.approx(times.tolist())


def test_settings_are_those_of_the_run_and_seeds_are_one_group(study):
    found = EventAccumulator(str(study / "tensorboard/mlp-best/seed-1")).Reload()
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(content).session_start_info
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in started.hparams.items()}
    settings = json.loads((study / "runs/mlp-best/seed-1/run.json").read_text())["settings"]
    expected = {name: value for name, value in settings.items() if value is not None} | {"hidden": "500-500-500"}
    assert (values, started.group_name) == (expected, "mlp-best")


def test_the_same_runs_give_the_same_bytes_in_a_process_that_imports_no_torch(study):
    """A process of its own, whose hashes and imports nothing else has touched."""
    (study / "events.json").write_text(to_json({"settings": stage_of(("mlp-best", [1]))}))
    code = "import sys; from cifar_report.cli import main; code = main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", f"{code}; sys.exit(code)", "write-events", "--stage", study / "events.json"]
    command += ["--runs", study / "runs", "--output", study / "again"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"
    name = "mlp-best/seed-1/events.out.tfevents"
    assert (study / "again" / name).read_bytes() == (study / "tensorboard" / name).read_bytes()


def test_a_run_that_left_the_study_leaves_tensorboard_and_nothing_else_is_removed(study):
    kept = study / "left/notes/seed-0/notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    write(study, ("mlp-best", [1]), ("vgg", [0]), folder="left")
    write(study, ("vgg", [0]), folder="left")
    files = {path for path in (study / "left").rglob("*") if path.is_file()}
    assert files == {kept, study / "left/vgg/seed-0/events.out.tfevents"}


def test_a_missing_run_is_named_and_nothing_is_written(study):
    with pytest.raises(InputError, match=r"mlp-best/seed-2/run.json: expected a JSON file, found none"):
        write(study, ("mlp-best", [1, 2]), folder="none")
    assert not (study / "none").exists()
