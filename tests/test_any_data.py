"""The report is true of the study that it is about: the demo's, one of two MLPs on grey images, one of twelve classes
with long and Cyrillic names, and the reference's on CIFAR-10.

ANY_DATA=<folder> keeps the reports there, to be looked at.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from pypdf import PdfReader
from snakemake.utils import update_config
from test_workflow import PARTS, ROOT

from cifar_report.base.errors import InputError
from cifar_report.data import datasets
from cifar_report.rendering import claims as rendered_claims
from cifar_report.rendering import tables
from cifar_report.runs.finished import load_runs
from cifar_report.study import config

# What is said of the practical, of searches and of VGGs, and is untrue of a study without them.
OF_THE_PRACTICAL = ("original", "practical", "CIFAR-10", "52.5", "erratum", "this study does not run")
OF_SEARCHES = ("the search", "searches train", "halving", "trials")
OF_VGGS = ("convolutional network after VGG", "the VGG of this study", "one kind of VGG")
# A unit after a number that has one, and a plural of one.
NOWHERE = (
    "U+",  # a character that the fonts lack
    "% points",
    "points points",
    "points percentage points",
    "of 1 claims",
    "of 1 variants",
    "1 of the claims are",
    "the 1 wrong",
)
LONG = (
    "Млекопитающее, обезьяна",
    "Млекопитающее, собака",
    "αλεπού",
    "{braces} & 100 %",
    "automobile, estate",
    "automobile, saloon",
)
CLASSES = (*LONG, "a name of a class that is far longer than an image is wide", "猫", "four", "five", "six", "$x_1$")
GREY = {
    "study": "grey",
    "report": {"title": "Two perceptrons on grey images"},
    "dataset": "own",
    "datasets": {"own": {"source": "image-folder", "path": "images"}},
    "validation_images": 0,
    "run": ["mlp-numpy", "mlp-torch"],
    "variants": {
        "mlp-numpy": {"label": "By hand {in NumPy}", "steps": 40, "batch_size": 10, "seeds": [0, 1, 2]},
        "mlp-torch": {"seeds": [0, 1, 2]},
    },
}
TWELVE = {
    "study": "twelve",
    "report": {"title": "Двенадцать классов", "author": "Иван Петров, Αθήνα"},
    "dataset": "own",
    "datasets": {"own": {"source": "image-folder", "path": "images", "printed": {"猫": "кошка"}}},
    "validation_images": 24,
    "run": ["mlp-numpy", "vgg"],
    "variants": {
        "mlp-numpy": {"label": "Персептрон", "steps": 40, "batch_size": 20, "seeds": [0, 1]},
        "vgg": {"steps": 2, "evaluate_every": 1, "batch_size": 20, "seeds": [0], "evaluation_images": 20},
    },
}


def draw(folder, classes, mode):
    """Five training and three test images of each class, 18 pixels a side, each class another shade."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        for split, count in (("train", 5), ("test", 3)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                shape = (18, 18) if mode == "L" else (18, 18, 3)
                pixels = (20 * number + rng.normal(0, 10, shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels, mode).save(folder / split / name / f"{i}.png")


def made(folder, checked, overlay, classes, mode):
    """The results of a study of its own images, which is laid over config.yaml as it is.

    The checks of the equations are those of a study that has run: they are no other ones.
    """
    for part in PARTS:
        make = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        make(ROOT / part, folder / part)
    shutil.copytree(checked / "results/.equations", folder / "results/.equations")
    draw(folder / "images", classes, mode)
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay, allow_unicode=True))
    command = [sys.executable, "-m", "snakemake", "--configfile", "overlay.yaml", "--cores", "2", "--", "report"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return kept(folder / "results" / overlay["study"])


def kept(results):
    if folder := os.environ.get("ANY_DATA"):
        for name in ("report.pdf", "report.html", "source.tar.gz"):
            if (results / name).is_file():
                shutil.copy(results / name, Path(folder, f"{results.name}-{name}"))
    return results


def squeezed(text):
    """Without what the setting of lines adds: spaces, hyphens, and accents of their own."""
    return re.sub(r"[\s\u00ad-]", "", unicodedata.normalize("NFKC", text)).lower()


def text_of(pdf):
    return squeezed(" ".join(page.extract_text() for page in PdfReader(pdf).pages))


def found(phrases, text):
    return [phrase for phrase in phrases if squeezed(phrase) in text]


def told(results):
    """What the build warned of: what does not fit."""
    log = (results / "logs/render_report.log").read_text()
    return [line for line in log.splitlines() if line.startswith("Warning: ")]


@pytest.fixture(scope="module")
def grey(tmp_path_factory, study):
    return made(tmp_path_factory.mktemp("grey"), study, GREY, ("round", "{braces}", "square"), "L")


@pytest.fixture(scope="module")
def twelve(tmp_path_factory, study):
    return made(tmp_path_factory.mktemp("twelve"), study, TWELVE, CLASSES, "RGB")


def test_the_small_demo(study):
    results = kept(study / "results/small")
    text = text_of(results / "report.pdf")
    # It leaves out variants that the demo's claims compare, and says so.
    assert found((*OF_THE_PRACTICAL[:-1], *NOWHERE, "colour images"), text) == [] and told(results) == []
    assert found(("grey images of 32 × 32 pixels", *OF_VGGS, OF_SEARCHES[0]), text) != []


def test_grey_images_two_perceptrons_and_no_search(grey):
    text = text_of(grey / "report.pdf")
    untrue = (*OF_THE_PRACTICAL, *NOWHERE, *OF_SEARCHES, *OF_VGGS, "colour images", "claims")
    assert found(untrue, text) == [] and told(grey) == []
    true = (
        "Two perceptrons on grey images",
        "Mean test accuracies go from",
        "grey images of 18 × 18 pixels",
        "By hand {in NumPy}",
        "{braces}",
    )
    assert found(true, text) == list(true)
    assert "in NumPy}" in (grey / "report.html").read_text() and not (grey / "html/claims.html").exists()


def test_twelve_classes_with_long_and_cyrillic_names(twelve):
    text = text_of(twelve / "report.pdf")
    assert found((*OF_THE_PRACTICAL, *NOWHERE, *OF_SEARCHES, "grey images", "猫"), text) == [] and told(twelve) == []
    true = ("Двенадцать классов", "Иван Петров, Αθήνα", "Персептрон", "кошка", *(c for c in CLASSES if c != "猫"))
    assert found(true, text) == list(true)


def test_cifar_10_of_the_reference():
    true = ("original", "practical", "CIFAR-10", "erratum", OF_SEARCHES[0], OF_VGGS[1])
    text = text_of(ROOT / "reference/cifar10-jpeg/report.pdf")
    assert found(true, text) == list(true)
    assert found((*NOWHERE, "grey images", "successive halving"), text) == []  # the latter is not run there


def unpack(archive, folder):
    """As a reader would."""
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)


def test_the_archive_of_sources_makes_the_same_pdf(grey, tmp_path):
    """In an empty folder, by latexmk alone; what arXiv wants stands at its top, and no path leads elsewhere."""
    with tarfile.open(grey / "source.tar.gz") as archive:
        members = archive.getmembers()
    unpack(grey / "source.tar.gz", tmp_path)
    names = [member.name for member in members]
    assert {"report.tex", "report.bbl", "references.bib", "numbers.tex"} <= set(names) and names == sorted(names)
    assert {Path(name).suffix for name in names} == {".tex", ".bbl", ".bib", ".pdf", ""} and {
        m.mtime for m in members
    } == {0}
    for path in tmp_path.rglob("*.tex"):
        assert str(grey) not in path.read_text() and "/tmp" not in path.read_text()
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    subprocess.run(["latexmk"], cwd=tmp_path, env=clean, check=True, capture_output=True)
    assert (tmp_path / "report.pdf").read_bytes() == (grey / "report.pdf").read_bytes()


def test_a_table_longer_than_a_page_breaks_with_it(grey, study, tmp_path):
    """Those with a row a variant or a claim: each on several pages, its head on each, and nothing is too large."""
    unpack(grey / "source.tar.gz", tmp_path)
    stage = json.loads((grey / "plan/stages/tables.json").read_text())["settings"]
    summary = pd.concat([pd.read_csv(grey / "summary.csv", dtype={"variant": str})] * 60)
    claims = json.loads((study / "results/small/claims.json").read_text()) * 12
    long = {"summary": tables.summary_table(stage, summary, 9) + rendered_claims.table(claims)}
    stage["variants"] *= 60
    runs = load_runs(grey / "runs", stage["variants"])
    long["settings"] = tables.settings_table(stage, runs)
    for name, text in long.items():
        (tmp_path / f"tables/{name}.tex").write_text(text)
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    subprocess.run(["latexmk"], cwd=tmp_path, env=clean, check=True, capture_output=True)
    log = (tmp_path / "report.log").read_text(errors="replace")
    assert not re.findall(r"Float too large|Overfull", log)
    pages = [squeezed(page.extract_text()) for page in PdfReader(tmp_path / "report.pdf").pages]
    for head in ("VariantParametersImages seen", "ClaimEstimate, intervalBound", "VariantHidden unitsOptimiser"):
        assert sum(squeezed(head) in page for page in pages) >= 2, head


def test_the_readmes_study_of_ones_own_images_says_nothing_of_the_practical():
    readme = (ROOT / "README.md").read_text()
    snippet = re.search(r"\*\*Your own images\.\*\*.*?```yaml\n(.*?)```", readme, re.DOTALL)[1]
    whole = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(whole, yaml.safe_load(snippet))
    study = config.load(whole)
    assert (study.reproduces, study.claims, study.searches) == (False, "", {})
    assert study.report["title"] == "Networks that tell flowers apart"
    assert not any(variant.original_test_accuracy for variant in study.variants.values())


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ({}, "the class '猫' has '猫' (U+732B), which the report's fonts lack; write it in the letters that docs/"),
        ({"犬": "dog"}, "printed: '犬' is not among the classes; there are cat, 猫"),
        ({"猫": "cat"}, "two classes are printed 'cat'"),
    ],
)
def test_names_that_cannot_be_printed_are_refused_before_training(tmp_path, printed, message):
    draw(tmp_path / "images", ("cat", "猫"), "L")
    source = {"source": "image-folder", "path": str(tmp_path / "images"), "printed": printed}
    with pytest.raises(InputError) as error:
        datasets.prepare("own", source, 0, tmp_path / "dataset", tmp_path)
    assert message in str(error.value) and "datasets.own.printed" in str(error.value)


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("Float too large", r"\begin{table}\caption{C}\label{tab:tall}\rule{1pt}{1.2\textheight}\end{table}"),
        ("Overfull \\hbox", r"\begin{table}\caption{C}\label{tab:wide}\noindent\rule{1.2\textwidth}{1pt}\end{table}"),
    ],
)
def test_what_does_not_fit_is_told_by_its_label(tmp_path, what, body):
    from test_security import render

    text, log = render(tmp_path, body)
    assert text is not None
    assert re.search(rf"^Warning: at tab:(tall|wide): .*{re.escape(what)}", log, re.MULTILINE)
