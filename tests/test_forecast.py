"""Forecasts against cases worked out by hand, and against the runs of the reference."""

import dataclasses
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest
from runs import write_run
from test_reruns import SCHEMA, merged

from cifar_report.base.files import to_json
from cifar_report.cli import main
from cifar_report.data import datasets
from cifar_report.inspection import forecast
from cifar_report.inspection.forecast import PUBLICATION, START_UP, Benchmark, Data, Seconds, Task
from cifar_report.runs import machine, store
from cifar_report.study import config, plan
from cifar_report.study.config import Settings
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
# 40 images to train on; subsets of 30, 20 and 30 images at steps 0 and 5, and 150 at the end: 310 to evaluate.
DATA = Data({"train": 80, "validation": 20, "test": 50})


def earlier(settings, train, evaluate, device="cpu"):
    flops = DATA.flops(settings) or 1
    return Benchmark(settings, device, machine.cpu_name(), flops, train, evaluate)


def task(name, seconds, row="a", **fields):
    return Task(name, row, Seconds(seconds, seconds, seconds), **fields)


# --- one run ----------------------------------------------------------------------------------------------------------


def test_a_run_takes_what_the_same_settings_took():
    """The median of 1, 2 and 6 s an image in training, and 0.5, 1 and 1 s in evaluation, as each run had them."""
    known = [earlier(SETTINGS, [1.0, 2.0, 6.0], [0.5, 1.0, 1.0])]
    assert forecast.run_seconds(SETTINGS, DATA, known)[0] == (40 * 2 + 310, 40 + 155, 40 * 6 + 310)
    both = dataclasses.replace(SETTINGS, train_on="train+validation")  # subsets of 30 and 30
    assert DATA.evaluated(both, test=True) == 2 * 60 + 150
    assert DATA.evaluated(SETTINGS, test=False) == 2 * 50 + 100
    longer = dataclasses.replace(SETTINGS, steps=20)  # 80 images, and two more evaluations of 80
    assert forecast.run_seconds(longer, DATA, known)[0].likely == 80 * 2 + 470


def test_another_size_goes_by_its_operations():
    """The same runs for twice as many hidden units: 2 * (3072 * 100 + 100 * 10) = 616400 operations, doubled."""
    known = [earlier(SETTINGS, [1.0], [0.0])]
    wider = dataclasses.replace(SETTINGS, hidden=(200,))
    assert DATA.flops(SETTINGS) == 616400
    assert forecast.run_seconds(wider, DATA, known)[0].likely == 80


def test_the_nearest_earlier_runs_tell():
    other = dataclasses.replace(SETTINGS, precision="float64")
    known = [earlier(SETTINGS, [1.0], [0.0]), earlier(other, [7.0], [0.0])]
    assert forecast.run_seconds(dataclasses.replace(other, learning_rate=0.2), DATA, known)[0].likely == 280
    kind = dataclasses.replace(SETTINGS, kind="torch-mlp")
    assert math.isnan(forecast.run_seconds(kind, DATA, known)[0].likely)
    gpu = [*known, earlier(SETTINGS, [0.1], [0.0], device="cuda")]
    assert forecast.run_seconds(SETTINGS, DATA, gpu)[0].likely == 40
    assert forecast.run_seconds(SETTINGS, DATA, gpu, device="cuda")[0].likely == 4


# --- many on some cores -----------------------------------------------------------------------------------------------


def test_the_wall_time_of_a_schedule():
    jobs = [task("1", 5), task("2", 3), task("3", 3)]
    assert forecast.wall_seconds(jobs, 1) == 11
    assert forecast.wall_seconds(jobs, 2) == 6  # 5 beside 3 + 3
    assert forecast.wall_seconds(jobs, 2, longest_first=False) == 8  # 3 beside 3, then 5
    assert forecast.wall(jobs, 2).likely == 7
    assert forecast.wall_seconds([*jobs, task("4", 9, finished=True)], 2) == 6
    assert forecast.wall_seconds([task("1", 4, threads=2), task("2", 3), task("3", 3)], 2) == 7
    assert forecast.wall_seconds([task("1", 4, threads=8), task("2", 3)], 2) == 7  # Snakemake gives it 2
    assert forecast.wall_seconds([task(str(i), 3, gpu=True) for i in range(2)], 2) == 6
    assert forecast.wall_seconds([task("1", 2), task("2", 9, row="b", after=frozenset("a"))], 2) == 11


def test_seeds_that_share_a_process_share_its_start_up():
    """Of four short runs on two cores two begin with a process, and two find their runs trained."""
    seeds = [task(str(i), 1.0, kind="torch-mlp") for i in range(4)]
    total = forecast.total(t.seconds for t in forecast._with_start_up(seeds, seeds_per_job=10, cores=2))
    assert total.likely == 4 + 2 * START_UP["torch"] + 2 * PUBLICATION
    long = [dataclasses.replace(t, seconds=Seconds(61, 61, 61)) for t in seeds]
    assert forecast._with_start_up(long, 10, 2)[3].seconds.likely == 61 + START_UP["torch"]
    assert forecast.SHORT_RUN == store.SHORT_RUN


def test_of_the_jobs_that_are_left_those_that_run_come_first():
    jobs = [task(f"train/{i}", 10 * i, run=f"run {i}") for i in (1, 2, 3)] + [task("draw", 7)]
    found = to_come(jobs, {"train": 2, "draw": 1}, ["train/3"], {"run 3": Seconds(6.0, 6.0, 6.0)})
    assert {(t.name, t.seconds.likely) for t in found} == {("train/3", 6.0), ("train/1", 10), ("draw", 7)}
    assert to_come(jobs, Counter(), [], {}) == []
    stored = to_come([dataclasses.replace(jobs[0], finished=True)], {"train": 1}, [], {})
    assert stored[0].seconds.likely == PUBLICATION and not stored[0].finished


# --- a study ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path):
    """A plan and its data, and one finished run of it in the store."""
    results, document = tmp_path / "results/small", merged()
    plan.write(config.load(document, SCHEMA), document, results / "plan")
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
    paths = forecast.earlier_runs(study.parent / ".store", study / "none")
    jobs = forecast.tasks(study, study.parent / ".store", forecast.benchmarks(paths))
    of = {job.name: job for job in jobs}
    assert len(paths) == 2  # the broken one is there and left out
    assert of["train_variant/mlp-numpy-seed-0"].finished and not of["train_variant/mlp-numpy-seed-1"].finished
    settings = plan.settings_of(json.loads((study / "plan/mlp-numpy.json").read_text()))
    likely = settings.steps * settings.batch_size * 0.01
    assert of["train_variant/mlp-numpy-seed-1"].seconds.likely == pytest.approx(likely + START_UP["numpy"])
    assert math.isnan(of["train_variant/vgg-seed-0"].seconds.likely)
    assert of["train_variant/mlp-tuned-seed-0"].after == {"data", "search mlp-grid"}
    assert main(["forecast", "--results", str(study), "--cores", "2", "--reference", str(study / "none")]) == 0
    told = capsys.readouterr().out
    assert "10 of the same settings" not in told and "1 of the same settings" in told
    row = next(line for line in told.splitlines() if line.startswith("mlp-numpy ")).split()
    assert row[1:4] == ["2", "1", f"{(likely + START_UP['numpy']) / 60:.1f}"]
    assert "without 5 job(s) of kinds that no earlier run tells of" in told  # two trials, two of their choice, a VGG


def test_a_search_and_the_variant_that_takes_its_winner_may_have_one_name(study):
    jobs = [
        task("search", 3, row=forecast._row_of("wide")),
        task("winner", 2, row="wide", after=frozenset({forecast._row_of("wide")})),
    ]
    assert forecast.wall(jobs, 2).likely == 5
    for job in forecast.tasks(study, study.parent / ".store", []):
        assert job.row not in job.after, job.name


def test_a_study_without_a_plan_is_refused(tmp_path, capsys):
    assert main(["forecast", "--results", str(tmp_path)]) == 1
    assert "snakemake -n" in capsys.readouterr().err
    assert main(["forecast", "--results", str(tmp_path), "--cores", "0"]) == 1
    assert "--cores: expected 1 or more" in capsys.readouterr().err


def test_other_jobs_take_what_their_timings_tell(study):
    timings = study.parent / "another/timings"
    timings.mkdir(parents=True)
    for name, seconds in (("draw_figures", 12.5), ("prepare_dataset", 3.0), ("check_equations", 20.0)):
        (timings / f"{name}.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:12\n")
    own = study / "timings/check_equations.tsv"
    own.parent.mkdir()
    own.write_text("s\th:m:s\n-\t-\n")
    jobs = {job.name: job for job in forecast.tasks(study, study.parent / ".store", [])}
    assert jobs["draw_figures"].seconds.likely == 12.5 and "mlp-numpy" in jobs["draw_figures"].after
    assert jobs["prepare_dataset"].row == "data" and "check_equations" not in jobs


# --- the reference ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    return {path: json.loads(path.read_text()) for path in sorted(REFERENCE.glob("*/*/*/*/run.json"))}


def test_operations_are_those_that_the_runs_counted(reference):
    mlps = [run for run in reference.values() if run["settings"]["kind"].endswith("mlp")]
    assert len(mlps) > 100
    for run in mlps:
        assert DATA.flops(Settings.from_mapping(run["settings"])) == run["forward_flops"]


def test_seeds_are_forecast_from_the_others_of_their_variant(reference):
    """Each run from all but itself: together within a tenth, although other work ran beside them."""
    data = Data({"train": 45_000, "validation": 5_000, "test": 10_000})
    seeds = [path for path, run in reference.items() if path.parts[-4] == "runs" and run["variant"][:3] == "mlp"]
    likely = sum(
        forecast.run_seconds(
            Settings.from_mapping(reference[path]["settings"]), data, forecast.benchmarks(set(reference) - {path})
        )[0].likely
        for path in seeds[::5]
    )
    real = sum(reference[path]["seconds"] + reference[path]["evaluation_seconds"] for path in seeds[::5])
    assert likely == pytest.approx(real, rel=0.1)
