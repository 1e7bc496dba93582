"""TensorBoard event files of a study's runs: curves and settings, written from `curve.csv` and `run.json`.

TensorBoard's own record writer and messages make them, without its queue and thread: the files are whole or absent, and
the same runs give the same bytes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # `hparams.api` has it too, and imports TensorFlow
from tensorboard.summary.writer.record_writer import RecordWriter

from cifar_report.base.files import atomic
from cifar_report.runs.finished import Run, load_runs

NAME = "events.out.tfevents"  # TensorBoard looks for the last part


def write(stage: dict[str, Any], runs: Path, output: Path) -> None:
    """Writes `<variant>/seed-<n>/events.out.tfevents` for each run, and removes those of runs that left the study.

    Args:
        stage: {"variants": [{"name", "seeds"}]}.
        runs: folder of `<variant>/seed-<n>/`; output: folder for TensorBoard's `--logdir`.

    Raises:
        InputError: a run is missing, or is not what it should be.
    """
    all_runs = [run for members in load_runs(runs, stage["variants"]).values() for run in members]
    files = {output / run.variant / f"seed-{run.seed}" / NAME: run for run in all_runs}
    for old in set(output.glob(f"*/seed-*/{NAME}")) - set(files):
        old.unlink()
    for path, run in files.items():
        with atomic(path) as file:
            writer = RecordWriter(file)
            for event in events(run):
                writer.write(event.SerializeToString())


def events(run: Run) -> Iterator[Event]:
    """Scalars `<loss or accuracy>/<split>` by step, float32 as TensorBoard keeps them, after the settings.

    The seeds of a variant are one group of its table of settings. Curves hold no times: a run's training seconds are
    spread evenly over the images that it saw.
    """
    yield Event(file_version="brain.Event:2")
    yield Event(summary=_settings(run))
    pace = run.record["seconds"] / max(run.curve["samples_seen"].iloc[-1], 1)
    for row in run.curve.itertuples():
        values = [
            Summary.Value(tag=f"{metric}/{row.split}", simple_value=getattr(row, metric))
            for metric in ("loss", "accuracy")
        ]
        yield Event(step=row.step, wall_time=pace * row.samples_seen, summary=Summary(value=values))


def _settings(run: Run) -> Summary:
    """The settings for TensorBoard's table of them; those that are None are left out, since it knows no such value."""
    settings = {
        name: "-".join(map(str, value)) if isinstance(value, list) else value
        for name, value in run.record["settings"].items()
        if value is not None
    }
    summary = hparams_pb(settings, trial_id=run.variant, start_time_secs=0)
    data = summary.value[0].metadata.plugin_data  # holds a mapping, whose order is by chance unless one asks
    data.content = HParamsPluginData.FromString(data.content).SerializeToString(deterministic=True)
    return summary
