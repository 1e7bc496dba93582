"""The real DAG, on the digits, in a folder of its own; and what reruns after which change."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pandas as pd
import pytest
import yaml
from pypdf import PdfReader

ROOT = Path(__file__).parent.parent
PARTS = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "report", "tests/equations", "environment.yml")
OVERLAY = {
    "study": "small",
    "seeds": [0, 1],
    "run": ["mlp-numpy", "mlp-tuned", "vgg"],
    "variants": {
        "mlp-numpy": {"steps": 60, "evaluate_every": 20},
        "mlp-torch": {"label": "Never trained itself"},
        "vgg": {"steps": 2, "evaluate_every": 1, "seeds": [0], "evaluation_images": 20},
    },
    "search": {"mlp-grid": {"grid": [{"setting": "batch_size", "values": [20, 50]}]}},
    "shifts": {"variants": ["mlp-tuned", "vgg"], "images": 20},
    "tensorboard": True,
}


def snakemake(folder, *arguments, check=True):
    arguments = ["--configfile", "config/demo.yaml", "overlay.yaml", "--cores", "2", *arguments]
    if "--dry-run" in arguments:
        code, output = forked.snakemake(folder, arguments)
    else:
        command = [sys.executable, "-m", "snakemake", *arguments]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
        code, output = done.returncode, done.stdout + done.stderr
    if check:
        logs = "".join(f"\n{p}:\n{p.read_text()[-2000:]}" for p in folder.glob("results/*/logs/**/*.log"))
        assert code == 0, output[-4000:] + (logs if "Error" in output else "")
    return code, output


def would_run(folder, *arguments):
    """The jobs of a dry run, as rule or rule:variant."""
    output = snakemake(folder, "--dry-run", *arguments)[1]
    jobs, rule = set(), None
    for line in output.splitlines():
        words = line.split()
        if line.startswith(("rule ", "localrule ")):
            rule = words[1].rstrip(":")
            jobs.add(rule)
        elif rule and line.strip().startswith("wildcards: variant="):
            jobs.discard(rule)
            jobs.add(f"{rule}:{words[1].removeprefix('variant=').rstrip(',')}")
    return jobs


def write_overlay(folder, **changes):
    (folder / "overlay.yaml").write_text(yaml.safe_dump(OVERLAY | changes))


@pytest.fixture
def results(study):
    return study / "results/small"


DOWNSTREAM = {
    *("summarise_runs", "write_events", "test_claims", "draw_figures", "write_tables", "write_pages"),
    *("render_report", "all"),
}


def test_the_pdf_says_what_the_runs_found(results):
    text = " ".join(page.extract_text() for page in PdfReader(results / "report.pdf").pages)
    summary = pd.read_csv(results / "summary.csv").set_index("variant")
    assert f"{100 * summary.loc['vgg', 'test_accuracy_mean']:.2f}" in text
    assert "handwritten digits" in text and "MLP, NumPy" in text
    assert "??" not in text
    assert len(json.loads((results / "claims.json").read_text())) == 5


def test_files_that_others_rely_on(results):
    for name in (
        "summary.csv",
        "costs.csv",
        "search.csv",
        "claims.json",
        "numbers.tex",
        "report.pdf",
        "source.tar.gz",
        "report.html",
    ):
        assert (results / name).is_file(), name
    run = json.loads((results / "runs/mlp-numpy/seed-1/run.json").read_text())
    assert (run["variant"], run["seed"], run["status"]) == ("mlp-numpy", 1, "completed")
    curve = pd.read_csv(results / "runs/mlp-numpy/seed-1/curve.csv")
    assert list(curve.columns) == ["step", "samples_seen", "split", "loss", "accuracy"]
    assert sorted(curve["step"].unique()) == [0, 20, 40, 60]
    assert set(curve["split"]) == {"train", "validation", "test"}
    assert (results / "tensorboard/mlp-numpy/seed-1/events.out.tfevents").is_file()
    selected = yaml.safe_load((results / "search/mlp-grid/selected.yaml").read_text())
    tuned = json.loads((results / "runs/mlp-tuned/seed-0/run.json").read_text())
    assert tuned["settings"]["batch_size"] == selected["settings"]["batch_size"]


def test_nothing_reruns_without_a_change(study):
    assert "Nothing to be done" in snakemake(study, "report")[1]


def test_a_lost_snakemake_folder_reruns_nothing(study):
    """While no time stamp has changed either: without its records, Snakemake has nothing else to go by."""
    (study / ".snakemake").rename(study / "lost")
    try:
        assert would_run(study, "all") == set()
    finally:
        shutil.rmtree(study / ".snakemake", ignore_errors=True)
        (study / "lost").rename(study / ".snakemake")


def test_touched_files_and_cores_rerun_nothing(study):
    for path in [*study.glob("report/**/*.tex"), *study.glob("config/*"), study / "config.yaml", study / "Snakefile"]:
        path.touch()
    assert would_run(study, "all", "--cores", "1", "--set-resources", "train_variant:seeds_per_job=1") == set()


def test_a_changed_variant_reruns_itself_and_what_depends_on_it(study):
    variants = OVERLAY["variants"] | {"vgg": OVERLAY["variants"]["vgg"] | {"learning_rate": 0.002}}
    write_overlay(study, variants=variants)
    assert would_run(study, "all") == {"train_variant:vgg", "measure_shifts", "measure_batch_statistics", *DOWNSTREAM}
    write_overlay(study)
    assert would_run(study, "all") == set()


def test_a_label_retrains_nothing(study):
    variants = OVERLAY["variants"] | {"mlp-numpy": OVERLAY["variants"]["mlp-numpy"] | {"label": "By hand"}}
    write_overlay(study, variants=variants)
    assert not {job for job in would_run(study, "all") if job.startswith("train")}
    write_overlay(study)
    assert would_run(study, "all") == set()


def test_a_lost_result_comes_from_the_store(study, results):
    weights = results / "runs/mlp-numpy/seed-0/model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    name = str(weights.relative_to(study))
    told = snakemake(study, name, "--forcerun", name)[1]
    assert "runs that are finished are not trained anew" in told and "`cifar-report forget VARIANT" in told
    assert weights.read_bytes() == before
    assert "taken from the store" in (results / "logs/train_variant/mlp-numpy-seed-0.log").read_text()
    snakemake(study, "all")


def test_each_file_that_a_rule_made_is_known_and_made_again_where_it_was_altered(study, results):
    """One file of each kind, read by the pipeline or not; a dry run says which jobs that takes."""
    made = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    aside = {results / name for name in ("logs", "timings", ".sha256", ".lock")}
    made = {path: content for path, content in made.items() if not aside & {path, *path.parents}}
    assert {path.relative_to(results) for path in made} == {
        path.relative_to(results / ".sha256") for path in (results / ".sha256").rglob("*") if path.is_file()
    }
    for name in ("html/style.css", "report.pdf"):
        (results / name).write_bytes(made[results / name] + b" ")
    assert {"write_pages", "render_report"} <= would_run(study, "all")
    for name, job in {
        "shifts.csv": "measure_shifts",
        "search/mlp-grid/selected.yaml": "select_trial",
        "figures/figures.json": "draw_figures",
        "tables/equations.tex": "check_equations",
        "runs/vgg/seed-0/run.json": "train_variant:vgg",
    }.items():
        (results / name).write_bytes(made[results / name][:-1])
        assert job in would_run(study, "all")
        (results / name).write_bytes(made[results / name])
        shutil.rmtree(study / ".snakemake/incomplete")
    told = snakemake(study, "all")[1]
    assert "report.pdf: was altered since it was made" in told
    assert {path: path.read_bytes() for path in made} == made
    assert would_run(study, "all") == set()


def test_a_wrong_configuration_stops_before_any_job(study):
    write_overlay(study, run=["mlp-numpi"])
    code, output = snakemake(study, "all", check=False)
    write_overlay(study)
    assert code == 1 and "did you mean 'mlp-numpy'?" in output and "rule " not in output
