"""Forecasts against cases worked out by hand, and against the runs of the reference."""

import dataclasses
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest
from runs import write_run
from test_reruns import merged

from cifar_report.base.files import to_json
from cifar_report.cli import main
from cifar_report.data import datasets
from cifar_report.inspection import forecast
from cifar_report.inspection.forecast import JOB, EarlierRun, Seconds, Task
from cifar_report.runs import machine
from cifar_report.study import config, plan
from cifar_report.study.settings import Settings
from snakemake_logger_plugin_training.outlook import to_come

REFERENCE = Path(__file__).parent.parent / "reference"
SETTINGS = Settings(
    kind="numpy-mlp",
    optimiser="sgd",
    learning_rate=0.1,
    steps=10,
    batch_size=4,
    preprocessing="mean-image",
    evaluate_every=5,
    evaluation_images=30,
    threads=1,
    hidden=(100,),
)
FLOPS = 600  # of one image's forward pass


def earlier(settings, seconds, flops=FLOPS, device="cpu"):
    return EarlierRun(settings, device, machine.cpu_name(), flops, settings.steps * settings.batch_size, seconds)


def task(name, seconds, row="a", **fields):
    return Task(name, row, Seconds(seconds, seconds, seconds), **fields)


def seconds_of(settings, known, flops=FLOPS, device="cpu"):
    return forecast.run_seconds(settings, flops, known, device)[0]


# --- one run ----------------------------------------------------------------------------------------------------------


def test_a_run_takes_what_the_same_settings_took():
    known = [earlier(SETTINGS, seconds) for seconds in (10, 20, 60, 30)]
    known += [earlier(dataclasses.replace(SETTINGS, learning_rate=0.2), 1000)]
    assert forecast.run_seconds(SETTINGS, FLOPS, known) == ((25, 10, 60), "4 of the same settings")


def test_other_settings_go_by_their_arithmetic():
    """Three times the steps and twice the operations of an image."""
    other = dataclasses.replace(SETTINGS, steps=30, hidden=(200,))
    assert forecast.run_seconds(other, 2 * FLOPS, [earlier(SETTINGS, 7)]) == ((42, 42, 42), "1 like it")
    assert seconds_of(other, [earlier(SETTINGS, 7)], flops=None).likely == 21  # a VGG, whose operations none tells


def test_the_nearest_earlier_runs_tell():
    """The same precision first, then the most alike in batch and size; few equal runs have the range of the nearest."""
    double = dataclasses.replace(SETTINGS, precision="float64")
    known = [earlier(double, 99)] + [earlier(SETTINGS, 10 * n, n * FLOPS) for n in (8, 4, 2)]
    near = dataclasses.replace(SETTINGS, learning_rate=0.2)
    assert seconds_of(near, known) == (10, 10, 10)
    assert seconds_of(dataclasses.replace(double, learning_rate=0.2), known) == (10, 10, 99)
    assert seconds_of(double, known) == (99, 10, 99)
    kind = dataclasses.replace(SETTINGS, kind="torch-mlp")
    assert math.isnan(seconds_of(kind, known).likely)
    gpu = [*known, earlier(SETTINGS, 0.1, device="cuda")]
    assert seconds_of(SETTINGS, gpu).low == 10 and seconds_of(SETTINGS, gpu, device="cuda") == (0.1, 0.1, 0.1)


# --- many on some cores -----------------------------------------------------------------------------------------------


def test_the_wall_time_of_many():
    jobs = [task("1", 5), task("2", 3), task("3", 3), task("4", 9, finished=True), task("5", math.nan)]
    assert forecast.wall(jobs, 1) == (11, 11, 11)
    assert forecast.wall(jobs, 2).likely == 5.5
    assert forecast.wall(jobs, 8).likely == 5  # the longest
    assert forecast.wall([task("1", 4, threads=8), task("2", 3)], 2).likely == 5.5  # Snakemake gives it 2
    assert forecast.wall([task(str(i), 3, gpu=True) for i in range(2)], 2).likely == 6  # one after the other
    assert forecast.wall([], 2) == (0, 0, 0)


def test_of_the_jobs_that_are_left_those_that_run_come_first():
    jobs = [task(f"train/{i}", 10 * i, run=f"run {i}") for i in (1, 2, 3)] + [task("draw", 7)]
    left = to_come(jobs, {"train": 2, "draw": 1}, ["train/3"], {"run 3": Seconds(6.0, 6.0, 6.0)})
    assert {(t.name, t.seconds.likely) for t in left} == {("train/3", 6.0), ("train/1", 10), ("draw", 7)}
    assert to_come(jobs, Counter(), [], {}) == []
    stored = to_come([dataclasses.replace(jobs[0], finished=True)], {"train": 1}, [], {})
    assert stored[0].seconds.likely == JOB and not stored[0].finished


# --- a study ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path):
    """A plan and its data, and one finished run of it in the store."""
    results, document = tmp_path / "results/small", merged()
    plan.write(config.load(document), document, results / "plan")
    datasets.prepare("digits", {"source": "digits"}, 200, results / "dataset", tmp_path)
    write_run(
        results,
        "runs/mlp-numpy/seed-0",
        datasets.load(results / "dataset").digests(),
        samples_seen=6000,
        forward_flops=206800,
        seconds=60.0,  # 10 ms an image
        evaluation_seconds=0.0,
        evaluation_subsets={"test": {"images": 10, "of": 10}},
    )
    record = json.loads((results / "runs/mlp-numpy/seed-0/run.json").read_text())
    shutil.move(results / "runs/mlp-numpy/seed-0", tmp_path / "results/.store" / record["identity"] / "finished")
    shutil.rmtree(results / "runs")
    (tmp_path / "results/.store/broken/finished").mkdir(parents=True)
    (tmp_path / "results/.store/broken/finished/run.json").write_text(to_json({"settings": {}}))
    return results


def test_a_study_costs_what_is_not_in_the_store(study, monkeypatch, capsys):
    monkeypatch.setattr(machine, "cpu_name", lambda: "A")
    known = forecast.earlier_runs(study.parent / ".store", study / "none")
    jobs = forecast.tasks(study, study.parent / ".store", known)
    of = {job.name: job for job in jobs}
    assert len(known) == 1  # the broken one is left out
    assert of["train_variant/mlp-numpy-seed-0"].finished and not of["train_variant/mlp-numpy-seed-1"].finished
    settings = plan.settings_of(json.loads((study / "plan/mlp-numpy.json").read_text()))
    inputs = math.prod(datasets.load(study / "dataset").shape)
    flops = 2 * (inputs * settings.hidden[0] + settings.hidden[0] * 10)
    likely = settings.steps * settings.batch_size * 0.01 * flops / 206800 + JOB
    assert of["train_variant/mlp-numpy-seed-1"].seconds.likely == pytest.approx(likely)
    assert math.isnan(of["train_variant/vgg-seed-0"].seconds.likely)
    assert of["train_variant/mlp-tuned-seed-0"].basis == "mean of 2 that may be chosen"
    assert main(["forecast", "--results", str(study), "--cores", "2", "--reference", str(study / "none")]) == 0
    shown = capsys.readouterr().out
    assert "10 of the same settings" not in shown and "1 of the same settings" in shown
    row = next(line for line in shown.splitlines() if line.startswith("mlp-numpy ")).split()
    assert row[1:4] == ["2", "1", f"{likely / 60:.1f}"]
    assert "without 7 job(s) of kinds that no earlier run tells of" in shown  # four trials, two of their choice, a VGG


def test_of_a_finished_study_nothing_is_left_to_train():
    finished = dataclasses.replace(task("train/1", 0), finished=True)
    assert forecast.report([finished], 2).endswith("\nnothing is left to train")
    assert forecast.report([finished, task("train/2", 4)], 2).endswith("report: 4 s (4 s to 4 s)")


def test_a_search_that_draws_its_trials_is_one_job(tmp_path, monkeypatch):
    """Of 8 trials on 2 workers the best half goes on to twice as many steps: 4 times 10 steps' time, then twice 20."""
    monkeypatch.setattr(machine, "gpu_visible", lambda: False)
    document = {
        "settings": SETTINGS.full() | {"steps": 0},
        "grid": {"learning_rate": {"low": 0.1, "high": 1.0}},
        "rung_steps": [10, 20],
        "halving": {"trials": 8, "reduction": 2, "workers": 2},
    }
    for name, content in (("halving/drawn", document), ("stages/search", {"settings": {"drawn": {}}})):
        path = tmp_path / f"plan/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(content))
    (tmp_path / "plan/stages/summarise.json").write_text(to_json({"settings": {"variants": []}}))
    known = [earlier(SETTINGS, 6, 2 * (3072 * 100 + 100 * 10))]
    (job,) = forecast.tasks(tmp_path, tmp_path / "store", known)
    assert (job.name, job.threads, job.seconds.likely) == ("search_halving/drawn", 2, 4 * 6 + 2 * 12 + JOB)
    assert math.isnan(forecast.tasks(tmp_path, tmp_path / "store", [])[0].seconds.likely)
    (tmp_path / "search/drawn").mkdir(parents=True)
    (tmp_path / "search/drawn/trials.json").write_text("{}")
    assert forecast.tasks(tmp_path, tmp_path / "store", known)[0].finished


def test_a_study_without_a_plan_is_refused(tmp_path, capsys):
    assert main(["forecast", "--results", str(tmp_path)]) == 1
    assert "snakemake -n" in capsys.readouterr().err
    assert main(["forecast", "--results", str(tmp_path), "--cores", "0"]) == 1
    assert "--cores: expected 1 or more" in capsys.readouterr().err


# --- the reference ----------------------------------------------------------------------------------------------------


def test_seeds_are_forecast_from_the_others_of_their_variant():
    """Each run from all but itself: together within a tenth, although other work ran beside some of them."""
    known = forecast.earlier_runs(REFERENCE / "none", REFERENCE)
    assert len(known) == len(list(REFERENCE.glob("*/*/*/*/run.json"))) > 100
    mlps = [run for run in known if run.settings.kind.endswith("mlp")]
    likely = sum(seconds_of(run.settings, [other for other in known if other != run], run.flops).likely for run in mlps)
    assert likely == pytest.approx(sum(run.seconds for run in mlps), rel=0.1)
