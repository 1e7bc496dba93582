"""Numbers are traced: none is typed, each names its files, and Snakemake's records lead back from there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import write_run
from test_audit import write_records

from cifar_report.analysis import searches, selection, summary
from cifar_report.analysis.measurements import AGREEMENT, BATCH_STATISTICS, FLIPS
from cifar_report.base.files import array_digest, write_text
from cifar_report.cli import main
from cifar_report.rendering import figures, tables
from cifar_report.rendering.latex import escape, num, plain
from cifar_report.rendering.words import shortened

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "report"

# --- no literal results in the LaTeX sources --------------------------------------------------------------------------

# Numbers that may be typed: where, the text around one, which must stand there exactly once, and why.
LITERALS = [
    ("preamble.tex", "[T1]{fontenc}", "name of a font encoding"),
    ("preamble.tex", "a4paper", "size of the paper"),
    ("preamble.tex", r"\DeclareFontShape{T1}{lmtt}{m}{n}{<-> ec-lmtt10}", "name of a font"),
    ("preamble.tex", "algorithm2e", "name of a package"),
    ("preamble.tex", r"\pdfsuppressptexinfo=-1", "a flag of pdfTeX"),
    ("preamble.tex", "{ 8 } }", "a category code of TeX"),
    ("preamble.tex", r"\newcommand{\vone}{\bm{1}}", "the vector of ones"),
    ("preamble.tex", r"\sqrt{\sigma_{#1}^2+\varepsilon}", "a standard deviation"),
    ("preamble.tex", r"{\topfraction}{.9}", "layout of pages"),
    ("preamble.tex", r"{\bottomfraction}{.8}", "layout of pages"),
    ("preamble.tex", r"{\textfraction}{.08}", "layout of pages"),
    ("preamble.tex", r"{\floatpagefraction}{.8}", "layout of pages"),
    ("preamble.tex", r"\qty{95}{\percent}", "the level of all intervals, compared with statistics.py below"),
    ("report.tex", "a4paper", "size of the paper"),
    ("report.tex", r"{tocdepth}{1}", "depth of the contents"),
    ("report.tex", "bookmarksdepth=2", "depth of the bookmarks"),
    ("report.tex", r"\@dottedtocline{1}", "depth of the contents"),
    ("sections/batches.tex", r"{18\,n_0}", "a factor of an equation"),
    ("sections/data.tex", "values from 0 to 255", "the range of a byte"),
    ("sections/claims.tex", r"{\arraystretch}{.89}", "layout of a table"),
    (
        "sections/claims.tex",
        r"level of \num{0.05} divided",
        "the share of false verdicts, compared with verdicts.py below",
    ),
    ("sections/checks.tex", "$10^{-9}$", "the tolerance of the checks"),
    ("sections/front.tex", r"{multicols}{2}", "layout of the contents"),
    ("sections/findings.tex", r"\num{0.05} false", "the same"),
    ("sections/findings.tex", r"\qty{6.8}{\percent}", "a simulated rate, compared with verdicts.json by a test"),
    ("sections/findings.tex", r"\qty{5.8}{\percent}", "the same"),
    ("sections/erratum.tex", r"\log(x_\tau+10^{-9})", "quotation of the original's code"),
    ("sections/erratum.tex", r"\frac{1}{x_\tau+10^{-9}}", "the same"),
    ("sections/erratum.tex", r"far below $10^{-9}$", "the same"),
    ("sections/erratum.tex", r"exact \qty{95}{\percent} interval", "the level of a binomial interval in its check"),
]
NAMES = ("CIFAR-10", "SHA-256")
SLOTS = "letters.tex"  # numbers of letters in fonts
# Commands whose first argument is a name, not text.
NAMING = (
    r"label|[Cc]ref|eqref|ref|result|IfResult|WithResult|ByVerdict|sources|theirs|input|InputIfFileExists|cite\w*|code|"
    r"resultfigure"
)
LENGTH = r"\d*\.?\d+(pt|mm|em|ex|\\linewidth|\\textwidth|\\baselineskip)\b"


def literals(text):
    """What is left of each line that holds a number: maths may hold single digits, nothing else any."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    text = re.sub(rf"\\({NAMING})(\[[^\]]*\])*\{{[^{{}}]*\}}|{LENGTH}|{'|'.join(NAMES)}", " ", text)
    text = re.sub(r"!\d+|#\d|\[\d\]", " ", text)  # shades, parameters of macros
    for start, end in reversed(list(mathematics(text))):
        digits = re.sub(r"\\frac\d\d|(?<![\d.])\d(?!\.?\d)", " ", text[start:end])
        text = text[:start] + digits + text[end:]
    return [line.strip() for line in text.splitlines() if re.search(r"\d", line)]


def mathematics(text):
    """Where formulas begin and end."""
    for found in re.finditer(r"\$[^$]*\$|\\begin\{(equation|align)\}.*?\\end\{\1\}|\\slipmath(?=\{)", text, re.DOTALL):
        end, depth = found.end(), 0
        while found[0] == r"\slipmath":
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
            if depth == 0:
                break
        yield found.start(), end


@pytest.mark.parametrize(
    "name", sorted(str(path.relative_to(REPORT)) for path in REPORT.rglob("*.tex") if path.name != SLOTS)
)
def test_no_result_is_typed(name):
    text = (REPORT / name).read_text()
    for file, literal, reason in LITERALS:
        if file == name:
            assert text.count(literal) == 1 and reason, f"{name}: {literal!r} is allowed once"
            text = text.replace(literal, " ")
    assert literals(text) == [], "results are printed by \\result; what is none belongs into LITERALS, with its reason"


def test_the_search_for_literals_finds_them():
    assert literals("reaches 46.6 of them\n$x = 0.5$ and $\\frac12 x_1^2$ \\vspace{3pt} \\cref{fig:1} % 7\n") == (
        ["reaches 46.6 of them", "$x = 0.5$ and $  x_ ^ $ \\vspace{ }"]
    )
    assert literals(r"{\slipmath{\frac{1}{2}} and 3 in 4}")


def test_the_level_of_intervals_is_that_of_the_code():
    from inspect import signature

    from cifar_report.analysis.statistics import t_interval

    level = signature(t_interval).parameters["confidence"].default
    assert (
        rf"\newcommand{{\confidence}}{{\qty{{{100 * level:g}}}{{\percent}}}}" in (REPORT / "preamble.tex").read_text()
    )


def test_each_table_and_figure_leads_back_to_its_rule(dag):
    rule_of = {output.removeprefix("results/demo/"): rule for rule, _, outputs in dag[1] for output in outputs}
    rule_of["figures/{figure}.pdf"] = rule_of["figures/figures.json"]
    for path in (REPORT / "sections").glob("*.tex"):
        text = path.read_text()
        floats = re.findall(r"\\begin\{(?:table|figure)\}.*?\\end\{(?:table|figure)\}", text, re.DOTALL)
        assert all(r"\trace{" in float_ for float_ in floats if r"\input{" in float_), path.name
        for rule, source in re.findall(r"\\trace\{(\w+)\}\{(?:\\sources\{)?([\w/.-]+)", text):
            assert rule_of.get(f"{source}.tex") == rule or rule_of.get(source) == rule, f"{path.name}: {source}"


# --- a study without training -----------------------------------------------------------------------------------------

DIGESTS = {
    f"{split}-{part}": f"{split}{part}" for split in ("train", "validation", "test") for part in ("images", "labels")
}


@pytest.fixture(scope="module")
def dag(tmp_path_factory):
    """The demo study as Snakemake plans it: (rule, inputs, outputs) of each job, in a folder of its own."""
    folder = tmp_path_factory.mktemp("dag")
    for part in ("Snakefile", "config.yaml", "config", "workflow", "profiles", "report", "tests/equations"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        copy(ROOT / part, folder / part)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "report",
        "--configfile",
        "config/demo.yaml",
        "--dry-run",
        "--forceall",
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    jobs = []
    for block in re.split(r"\n(?:local)?rule ", done.stdout + done.stderr)[1:]:
        listed = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
        if "output" in listed:
            jobs.append((block.partition(":")[0], *(listed[key].split(", ") for key in ("input", "output"))))
    return folder / "results/demo", jobs


@pytest.fixture(scope="module")
def study(dag):
    """The demo study as if it had been computed: its runs are written by hand, the last of mlp-numpy diverged."""
    results, jobs = dag
    stages = {path.stem: json.loads(path.read_text())["settings"] for path in (results / "plan/stages").glob("*.json")}
    (results / "dataset").mkdir()
    description = {"name": "digits", "source": "digits", "class_names": ["a", "b"], "shape": [3, 32, 32]}
    counts = {"train": 4, "validation": 2, "test": 2}
    arrays = {"images": np.zeros((2, 3, 32, 32), dtype=np.uint8), "labels": np.arange(2)}
    for part, array in arrays.items():
        np.save(results / f"dataset/test-{part}.npy", array)
    digests = DIGESTS | {f"test-{part}": array_digest(array) for part, array in arrays.items()}
    (results / "dataset/dataset.json").write_text(json.dumps(description | {"counts": counts, "sha256": digests}))
    for search, entry in stages["search"].items():
        for place, trial in enumerate(entry.get("trials", ())):
            write_run(results, f"search/{search}/{trial}", digests, 0.5 + place / 100)
        if "trials" not in entry:
            write_drawn(results, search, digests)
        selection.select(entry, results / "search" / search, results / "search" / search / "selected.yaml")
    for variant in stages["tables"]["variants"]:
        for seed in variant["seeds"]:
            diverged = (variant["name"], seed) == ("mlp-numpy", variant["seeds"][-1])
            folder = f"runs/{variant['name']}/seed-{seed}"
            status, logits = "diverged" if diverged else "completed", np.eye(2, dtype=np.float32)
            write_run(results, folder, digests, 0.5 + seed / 10, status, logits=logits)
    flips = [(v["name"], 0, 2, 1.0, 0.9, 0.5, 0.75) for v in stages["flips"]["variants"]]
    pd.DataFrame(flips, columns=FLIPS).to_csv(results / "flips.csv", index=False)
    measured = [("vgg", 0, 2, 32, 2, 0.5, 0.75)]
    pd.DataFrame(columns=AGREEMENT).to_csv(results / "agreement.csv", index=False)
    pd.DataFrame(measured, columns=BATCH_STATISTICS).to_csv(results / "batch-statistics.csv", index=False)
    searches.write(stages["search"], results / "search", results / "search.csv")
    summary.write_summary(stages["summarise"], results / "runs", results / "summary.csv", results / "costs.csv")
    drawn = [
        {"name": name, "title": "T", "caption": "50 %", "facts": {}, "sources": ["runs/vgg/seed-0/run.json"]}
        for name in figures.names(stages["figures"])
    ]
    (results / "figures").mkdir()
    (results / "figures/figures.json").write_text(json.dumps(drawn))
    (results / "claims.json").write_text("[]")
    tables.write(stages["tables"], results)
    for job in jobs:
        write_records(results, *job)
    return results


def write_drawn(results, search, digests):
    """A search that draws its trials, with a trial on the last of its rungs alone."""
    drawing = json.loads((results / f"plan/halving/{search}.json").read_text())
    values = {name: axis[0] if isinstance(axis, list) else axis["low"] for name, axis in drawing["grid"].items()}
    document = {"variant": search, "settings": drawing["settings"] | values, "code": drawing["code"], "seed": 0}
    (results / "drawn.json").write_text(json.dumps(document))
    write_run(results, f"search/{search}/{'0' * 16}", digests, 0.6, document="drawn.json")
    trials = [{"trial": "0" * 16, "rung": 1}]
    (results / f"search/{search}/trials.json").write_text(json.dumps({"trials": trials}))


def explained(capsys, results, what):
    code = main(["explain", what, "--results", str(results)])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_numbers_name_their_files(dag, study):
    """The JSON holds what LaTeX prints; every file is one of the study; a mean names the runs that completed."""
    found = json.loads((study / "numbers.json").read_text())
    lines = (study / "numbers.tex").read_text().splitlines()
    assert lines[1:] == [f"\\setresult{{{key}}}{{{number['text']}}}" for key, number in found.items()]
    known = {name.removeprefix("results/demo/") for _, *files in dag[1] for names in files for name in names}
    assert not {file for number in found.values() for file in number["files"]} - known
    mean = found["mlp-numpy.test-accuracy"]
    assert mean["runs"] == [f"runs/mlp-numpy/seed-{seed}/run.json" for seed in (0, 1)]
    assert mean["text"] == r"\qty{55.00 +- 63.53}{\percent}"  # t of one degree of freedom is 12.706, times 0.05
    assert "runs" not in found["mlp-numpy.diverged"] and len(found["mlp-numpy.diverged"]["files"]) == 3


def test_explain_a_number(study, capsys):
    code, text = explained(capsys, study, r"\result{mlp-tuned.test-accuracy}")
    assert code == 0
    head, _, foot = text.partition("\nRuns\n")
    assert [line for line in head.splitlines() if line] == [
        "mlp-tuned.test-accuracy = 60.00 +- 24.84 %, the mean over 3 runs",
        "numbers.tex  <- write_tables",
        "  runs/mlp-tuned/seed-*/run.json  <- train_variant",
        "    plan/mlp-tuned.json",
        "    dataset/*  <- prepare_dataset",
        "      plan/stages/prepare.json",
        "    search/mlp-grid/selected.yaml  <- select_trial",
        "      plan/select/mlp-grid.json",
        "      search/mlp-grid/*/run.json  <- train_trial",
        "        plan/search/mlp-grid/*.json",
        "        dataset/*  <- prepare_dataset, as above",
    ]
    assert text.rpartition("\n\n")[2].startswith("numbers.tex would be made again: ")
    assert len(re.findall(r"runs/mlp-tuned/seed-\d  completed, identity \w{12}, as the plan", foot)) == 3
    document = json.loads((study / "plan/mlp-tuned.json").read_text())
    for part in (
        document["code"],
        "hidden [100, 100]",
        "0123456789abcdef of 2023-11-14: 11 runs",
        "trainimages  train-images",
    ):
        assert part in foot


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("comparison", "figures/comparison.pdf  <- draw_figures\n  runs/vgg/seed-0/run.json  <- train_variant"),
        ("figures.comparison", "figures/comparison.pdf  <- draw_figures\n  runs/vgg/seed-0/run.json"),
        ("tab:summary", "tables/summary.tex  <- write_tables\n  summary.csv  <- summarise_runs"),
        ("summary.csv", "summary.csv  <- summarise_runs\n  plan/stages/summarise.json\n  runs/"),
        ("report.pdf", "report.pdf  <- render_report\n  plan/stages/report.json, repository:report/"),
        ("runs/mlp-numpy/seed-2/run.json", "runs/mlp-numpy/seed-2  diverged, identity"),
        ("study", "study = demo\nnumbers.tex  <- write_tables\n  plan/stages/tables.json"),
    ],
)
def test_explain_whatever_the_report_shows(study, capsys, what, expected):
    code, text = explained(capsys, study, what)
    assert code == 0 and expected in text


def test_explain_takes_a_path(study, capsys):
    assert "shifts.csv  <- measure_shifts" in explained(capsys, study, str(study / "shifts.csv"))[1]


def test_explain_an_unknown_name(study, capsys):
    code, text = explained(capsys, study, "mlp-numpy.test-acuracy")
    assert code == 1 and "did you mean mlp-numpy.test-accuracy" in text


def test_a_run_of_another_plan_is_told(study, capsys):
    path = study / "plan/vgg.json"
    before = path.read_text()
    write_text(path, before.replace('"steps": 80', '"steps": 81'))  # as the plan is written
    text = explained(capsys, study, "vgg.test-accuracy")[1]
    write_text(path, before)
    assert "NOT of this plan and data" in text


def test_paths_are_shortened():
    runs = [f"runs/{name}/seed-{seed}/run.json" for name in ("mlp-a", "mlp-b", "mlp-c") for seed in (0, 1, 2)]
    assert shortened(runs) == "runs/mlp-*/seed-*/run.json"
    assert shortened(["a/train-images.npy", "a/train-labels.npy", "b.csv"]) == (
        "a/{train-images.npy,train-labels.npy}, b.csv"
    )


def test_latex_and_back():
    assert escape(r"50 % of {a_b} & c\d") == r"50 \% of \{a\_b\} \& c\textbackslash{}d"
    assert plain(escape(r"50 % of {a_b} & c\d ~^$#")) == r"50 % of {a_b} & c\d ~^$#"
    assert (num(3), num(0.002), num(0.5, 3)) == (r"\num{3}", r"\num{0.002}", r"\num{0.500}")
    assert plain(r"\num{3} of \qty{55.0 +- 1.2}{\percent}, 3 \times 2") == "3 of 55.0 +- 1.2 %, 3 x 2"
