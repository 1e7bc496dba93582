"""`compare`: what changed between two studies, its reasons and intervals, and the pages that show it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from cifar_report.analysis.summary import write_summary
from cifar_report.base.errors import InputError
from cifar_report.cli import main
from cifar_report.inspection import compare, compare_page

REFERENCE = Path(__file__).parent.parent / "reference/cifar10-jpeg"
A = {"mlp-torch": [0, 1, 2, 3], "mlp-best": [0, 1, 2], "vgg": [0], "mlp-bn-torch": [0, 1]}
B = {"mlp-torch": [0, 1, 2, 3], "mlp-best": [0, 1], "vgg-best": [0], "mlp-bn-torch": [0, 1]}
GAINS = [0.02, 0.025, 0.03, 0.02]  # of mlp-torch, seed by seed
CONFIG = {"seeds": [0, 1], "defaults": {"threads": 1}, "search": {"grid": {"like": "mlp-torch", "seed": 1}}}


def copy(folder, variants):
    """A part of the reference as a study of its own."""
    for variant, seeds in variants.items():
        for seed in seeds:
            shutil.copytree(REFERENCE / f"runs/{variant}/seed-{seed}", folder / f"runs/{variant}/seed-{seed}")
    shutil.copy2(REFERENCE / "claims.json", folder)
    (folder / "plan").mkdir()
    return folder


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    if "identity" in record:
        del record["sha256"]  # of the record as it was
    path.write_text(json.dumps(record))


def finish(folder, variants, config):
    (folder / "plan/config.yaml").write_text(yaml.safe_dump(config))
    rows = [{"name": n, "seeds": seeds, "original_test_accuracy": None} for n, seeds in variants.items()]
    write_summary({"variants": rows}, folder / "runs", folder / "summary.csv", folder / "costs.csv")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A, and B after: another learning rate, a seed dropped, a variant replaced, other code, a claim flipped."""
    a, b = (copy(tmp_path_factory.mktemp(name), variants) for name, variants in (("a", A), ("b", B)))

    def retrained(seed):
        def change(record):
            record["settings"]["learning_rate"] = 0.001
            record["final"]["test"]["accuracy"] += GAINS[seed]
            record["digests"]["model.safetensors"] = "0" * 64
            record["identity"] = "1" * 64

        return change

    def recoded(record):
        record["digests"]["model.safetensors"] = "0" * 64
        record["identity"] = record["code"] = "2" * 64
        record["versions"]["torch"] = "9.9"
        record["device"]["kernels"] = "AVX2"

    def flipped(claims):
        claims[0] |= {"title": "Weights <b>matter</b>", "verdict": "supported", "estimate": 0.03, "ci95_low": 0.02}
        claims[1]["estimate"] += 1e-6
        del claims[-1]

    for seed in A["mlp-torch"]:
        edit(b / f"runs/mlp-torch/seed-{seed}/run.json", retrained(seed))
    for seed in A["mlp-bn-torch"]:
        edit(b / f"runs/mlp-bn-torch/seed-{seed}/run.json", recoded)
    edit(b / "claims.json", flipped)
    finish(a, A, CONFIG)
    finish(b, B, {"seeds": [0, 1], "defaults": {"threads": 2}, "tensorboard": True})
    return a, b


@pytest.fixture(scope="module")
def found(studies):
    return compare.compare(*(compare.read(str(folder)) for folder in studies))


def table(found, title):
    return next(table for table in found.tables if table.title == title)


def rows(found, title):
    return {row.cells[0]: row.cells[1:] for row in table(found, title).rows}


def accuracies(folder, variant, seeds):
    records = [json.loads((folder / f"runs/{variant}/seed-{seed}/run.json").read_text()) for seed in seeds]
    return np.array([record["final"]["test"]["accuracy"] for record in records])


def test_a_difference_is_paired_and_has_its_reason(found, studies):
    _, _, difference, reading, because = rows(found, "Test accuracy")["mlp-torch"]
    both = [accuracies(folder, "mlp-torch", A["mlp-torch"]) for folder in studies]
    interval = stats.ttest_rel(both[1], both[0]).confidence_interval()
    middle, half = 100 * np.mean(GAINS), 50 * (interval.high - interval.low)
    assert difference == f"+{middle:.2f} ± {half:.2f}"
    assert reading.startswith("higher (paired, 4 seeds; intervals ") and because == "learning_rate 0.002 → 0.001"


def test_each_variant_has_its_fate(found):
    told = rows(found, "Test accuracy")
    assert told["mlp-best"][3:] == ["other seeds (the shared 2 bit by bit)", "seeds dropped 2"]
    assert (told["vgg"][1], told["vgg"][3]) == ("–", "gone") and told["vgg-best"][3] == "new"
    assert told["mlp-bn-torch"][2:] == [
        "+0.00 ± 0.00",
        "no difference shown (paired, 2 seeds; intervals overlap)",
        "other code; torch 2.14.1 → 9.9; kernels AVX512 → AVX2",
    ]
    assert found.lead == [
        "3 variants are in both studies: higher (1), other seeds (1), no difference shown (1).",
        "New in B: vgg-best.",
        "No longer in B: vgg.",
        "Claims that flipped: Weights <b>matter</b>.",
    ]
    assert sorted(found.drawn) == ["mlp-best", "mlp-bn-torch", "mlp-torch", "vgg", "vgg-best"]


def test_claims_that_flipped_moved_or_left(found):
    claims = table(found, "Claims")
    assert claims.note.startswith("1 flipped; 10 keep their verdict, 1 of them with another estimate.")
    flipped, moved, gone = claims.rows
    assert flipped.tone == "flip" and flipped.cells[1] == "mixed: 2.58 [1.63, 3.52] points"
    assert flipped.cells[2].startswith("supported: 3.00 [2.00, ")
    assert moved.tone == "" and gone.cells[2] == "–" and gone.cells[3].startswith("gone: ")


def test_configuration_and_settings(found):
    assert rows(found, "Configuration") == {
        "defaults.threads": ["1", "2"],
        "search": ["{grid}", "–"],
        "tensorboard": ["–", "true"],
    }
    assert table(found, "Settings that differ").rows == [(["mlp-torch", "learning_rate", "0.002", "0.001"], "")]
    assert rows(found, "What made them")["torch"] == ["2.14.1", "2.14.1 (7), 9.9 (2)"]


def test_seeds_of_their_own_are_compared_as_welch_does(studies, tmp_path):
    a, variants = studies[0], {"mlp-torch": [0, 1, 2, 3]}
    b = copy(tmp_path / "b", {"mlp-torch": [4, 5, 6]})
    finish(b, {"mlp-torch": [4, 5, 6]}, CONFIG)
    told = rows(compare.compare(compare.read(str(a)), compare.read(str(b))), "Test accuracy")["mlp-torch"]
    old, new = accuracies(a, "mlp-torch", variants["mlp-torch"]), accuracies(b, "mlp-torch", [4, 5, 6])
    interval = stats.ttest_ind(new, old, equal_var=False).confidence_interval()
    assert told[2] == f"{100 * (new.mean() - old.mean()):+.2f} ± {50 * (interval.high - interval.low):.2f}".replace(
        "-", "−"
    )
    assert "seeds of their own" in told[3] and told[4].startswith("seeds added 4, 5, 6; seeds dropped 0, 1, 2, 3")


def test_a_variant_that_diverged_has_no_accuracy(studies, tmp_path):
    b = copy(tmp_path / "b", {"vgg": [0]})
    edit(b / "runs/vgg/seed-0/run.json", lambda record: record.update(status="diverged", digests={}))
    finish(b, {"vgg": [0]}, CONFIG)
    found = compare.compare(compare.read(str(studies[0])), compare.read(str(b)))
    reading = "no difference shown (no interval of less than two completed seeds)"
    assert rows(found, "Test accuracy")["vgg"][1:4] == ["all diverged (0)", "", reading]
    compare_page.write(found, tmp_path / "page.html")


def test_a_row_of_the_summary_without_runs_is_named(studies, tmp_path):
    shutil.copytree(studies[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "runs/vgg")
    with pytest.raises(InputError, match="runs/vgg: expected the runs of this row"):
        compare.read(str(tmp_path))


def test_a_damaged_configuration_is_named(studies, tmp_path):
    shutil.copytree(studies[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "plan/config.yaml").write_text("seeds: [0")
    with pytest.raises(InputError, match=r"plan/config\.yaml: expected YAML"):
        compare.read(str(tmp_path))


def test_a_study_is_like_itself():
    same = compare.compare(compare.read(str(REFERENCE)), compare.read(str(REFERENCE)))
    assert same.drawn == [] and [table.title for table in same.tables] == ["Test accuracy", "What made them"]
    assert {row.tone for table in same.tables for row in table.rows} == {"quiet"}
    assert same.lead[0] == "16 variants are in both studies: same runs (16)."


@pytest.fixture(scope="module")
def repository(studies, tmp_path_factory):
    """A checkout whose last two commits hold the two studies."""
    folder = tmp_path_factory.mktemp("repository")

    def git(*arguments):
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(("git", *identity, *arguments), cwd=folder, check=True, capture_output=True)

    git("init")
    for source, subject in zip(studies, ("The study", "A lower learning rate"), strict=True):
        shutil.rmtree(folder / "study", ignore_errors=True)
        # With times of their own: git takes a file of the same size and an older time for the one it knows.
        shutil.copytree(source, folder / "study", copy_function=shutil.copyfile)
        git("add", "--all")
        git("commit", "--message", subject)
    return folder


def test_two_commits_as_text_and_as_a_page(repository, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(repository)
    page = tmp_path / "page.html"
    assert main(["compare", "HEAD~1:study", "HEAD:study", "--output", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "B: HEAD:study  " in printed and "A lower learning rate" in printed and "\x1b" not in printed
    text = page.read_text()
    for part in ("A lower learning rate", "learning_rate 0.002 → 0.001", "defaults.threads", "seeds dropped 2"):
        assert part in printed and part in text, part
    # Self-contained: it names no other file, and what the studies say is text.
    assert "<svg" in text and "Weights &lt;b&gt;matter" in text
    assert not re.search(r'(src|href)="(?!#)|url\((?!#)|@import|<script|<link', text)


@pytest.mark.parametrize(
    "a,output,message",
    [
        ("nowhere", "page.html", "nowhere: expected a study's folder"),
        ("HEAD:nowhere", "page.html", "HEAD:nowhere: expected a study's folder, or <git revision>:<folder>"),
        ("--output=x:study", "page.html", "x:study: expected"),
        ("HEAD:study/claims.json", "page.html", "HEAD:study/claims.json: expected a study's folder"),
        ("HEAD:study/plan", "page.html", "HEAD:study/plan/runs: expected finished runs, found none"),
        ("HEAD:study", "page.pdf", "page.pdf: expected a page to write that ends in .html; for a PDF, print it"),
    ],
)
def test_what_cannot_be_compared_is_named(repository, monkeypatch, capsys, tmp_path, a, output, message):
    monkeypatch.chdir(repository)
    assert main(["compare", "--output", str(tmp_path / output), "--", a, "HEAD:study"]) == 1
    shown = capsys.readouterr()
    assert message in shown.err and not shown.out and not list(tmp_path.iterdir())


def test_a_page_takes_no_place_of_another(repository, monkeypatch, tmp_path, capsys):
    """But that of an earlier one."""
    monkeypatch.chdir(repository)
    call = ["compare", "HEAD:study", "HEAD:study", "--output"]
    (tmp_path / "report.html").write_text("<!doctype html>")
    assert main([*call, str(tmp_path / "report.html")]) == 1
    assert "report.html: expected no file or an earlier page of compare" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "<!doctype html>"
    for _ in range(2):
        assert main([*call, str(tmp_path / "page.html")]) == 0


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m cifar_report.cli compare {REFERENCE} {REFERENCE} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert not done.stderr
