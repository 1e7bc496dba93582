"""The documentation: the site builds, says what the code says, and every command in it works."""

import csv
import importlib.metadata
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from test_template import dry_runs
from test_workflow import PARTS

from cifar_report import cli

ROOT = Path(__file__).parent.parent
MADE = (*PARTS, "Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock", "docs/examples")
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SHELL = ("indented", "sh", "bash", "shell", "console")


def dry(command):
    return command.replace("snakemake", "snakemake -n", 1)


# Commands that are not run as they stand, what is run in their place, and why. A dry run resolves the configuration and
# every job; `make -n` tells that the target is there.
LONG = "trains for hours"
JPEG = "snakemake --configfile config/cifar10-jpeg.yaml -- "
OVERLAY = "snakemake --configfile config/demo.yaml mine.yaml -- "
INSTEAD = {
    "docker build --tag cifar-report .": ("", "needs Docker; GitHub's CI does it"),
    'docker run --rm --volume "$PWD/out:/study/results" cifar-report': ("", "needs Docker; GitHub's CI does it"),
    "make test": ("make -n test", "this test is part of it"),
    "make report": ("make -n report", f"{LONG}; README.md's `snakemake report` is the same"),
    "make report-cpu": ("make -n report-cpu", LONG),
    "make mutants": ("make -n mutants", "takes an hour; tests/mutation does some"),
    "make twice": ("make -n twice", "CI runs it after the demo"),
    "make chaos": ("make -n chaos", "takes an hour; tests/test_chaos.py is its short form"),
    "make simulation": ("make -n simulation", "takes minutes; tests/test_verdict_rates.py is its short form"),
    "make fuzz vulnerabilities": (
        "make -n fuzz vulnerabilities",
        "takes minutes, and a network; tests/test_fuzz.py is the short form",
    ),
    "make bench growth": ("make -n bench growth", "takes an idle machine and a quarter of an hour"),
    "make docs graphs terminal": ("make -n docs graphs terminal", "a test builds the site, others hold the pictures"),
    **{
        command: (dry(command), LONG)
        for command in (
            "snakemake --cores 4 all",
            "snakemake report",
            "snakemake results/cifar10/runs/vgg/seed-0/run.json",
            "snakemake --workflow-profile slurm --resources gpu=8 -- report",
            "snakemake --configfile config/cpu.yaml config/cifar10-jpeg.yaml "
            "--config 'datasets={cifar10-jpeg: {path: FILE}}' -- report",
        )
    },
    "cifar-report forget mlp-numpy --results results/demo --store results/.store": (
        "cp -r results copy && cifar-report forget mlp-numpy --results copy/demo --store copy/.store",
        "other commands need the runs",
    ),
    # docs/import-runs.md
    f"{JPEG}results/cifar10-jpeg/summary.csv": (
        f"{dry(JPEG)}results/cifar10-jpeg/summary.csv results/cifar10-jpeg/dataset/dataset.json all",
        f"{LONG}; and so do the two others that have these targets",
    ),
    f"{JPEG}results/cifar10-jpeg/dataset/dataset.json": ("", "see the one above"),
    f"{JPEG}all": ("", "see the one above"),
    **{
        command: (command.replace("cifar10-jpeg", "demo"), LONG)
        for command in (
            "cifar-report export-runs --results results/cifar10-jpeg --store results/.store --output runs.tar",
            "cifar-report import-runs runs.tar --store results/.store --results results/cifar10-jpeg",
        )
    },
    "cifar-report verify --results results/cifar10-jpeg --reference reference/cifar10-jpeg": (
        "cp -r results/demo other && cifar-report verify --results results/demo --reference other",
        LONG,
    ),
    # docs/compare.md
    "cifar-report compare results/cifar10 results/other": (
        "cifar-report compare results/demo results/demo",
        "there is one study here; tests/test_compare.py has two",
    ),
    "cifar-report compare HEAD~3:reference/cifar10-jpeg reference/cifar10-jpeg --output changes.html": (
        "",
        "tests/test_compare.py compares commits",
    ),
    # docs/template.md
    **{command: ("", "tests/test_template.py runs it") for _, command in dry_runs()},
    "snakemake --configfile config/shapes.yaml --cores 2 -- all": ("", "tests/test_template.py runs its dry run"),
    # docs/slurm.md
    "snakemake --workflow-profile slurm -- report": ("", "as the one with gpu=8, which is tried"),
    "snakemake --workflow-profile slurm --default-resources mem_mb=2000 runtime=30 slurm_partition=cpu -- report": (
        "",
        "needs Slurm; as the one with gpu=8, which is tried",
    ),
    "snakemake -- results/cifar10/dataset/dataset.json": ("", "needs a network; docs/import-runs.md has its like"),
    # docs/cloud.md
    "pip install snakemake-executor-plugin-kubernetes": ("", "needs a network"),
    "aws s3 sync s3://BUCKET/results results": ("", "needs a bucket"),
    "snakemake --workflow-profile kubernetes --default-storage-prefix s3://BUCKET --container-image IMAGE -- all": (
        "",
        "needs a cluster; tests/test_profiles.py has what one would call for a job",
    ),
    "snakemake --workflow-profile none --cores 2 --default-storage-provider s3 --default-storage-prefix s3://BUCKET "
    "--shared-fs-usage persistence sources source-cache software-deployment storage-local-copies -- all": (
        "",
        "needs a bucket; tests/test_profiles.py has a local one",
    ),
    "snakemake -- report": ("", "README.md's `snakemake report` is the same"),
    # docs/tutorial.md
    f"{OVERLAY}all": (f"{OVERLAY}results/demo/summary.csv", "the report of it adds nothing"),
    "snakemake --configfile config/demo.yaml -- all": (
        "snakemake --configfile config/demo.yaml -- results/demo/summary.csv",
        "the report of it adds nothing",
    ),
}


def steps(text):
    """(kind, content) in a page's order: each command, fenced or indented, as "sh"; other blocks by their language."""
    language, block, before = None, [], ""
    for line in [*text.splitlines(), ""]:
        indented = line.startswith("    ") and (not before or language == "indented")
        if language is None and (indented or line.startswith("```")):
            language, block = ("indented" if indented else line[3:].partition(" ")[0]), [line] if indented else []
        elif language is not None and (line.startswith("```") or (language == "indented" and not indented)):
            content = "".join(f"{line}\n" for line in block)
            yield from commands(content) if language in SHELL else [(language, content)]
            language = None
        elif language is not None:
            block.append(line)
        before = line


def commands(block):
    lines = (re.sub(r"(^|\s+)#.*", "", line) for line in block.replace("\\\n", " ").splitlines())
    return [("sh", " ".join(line.split())) for line in lines if line.strip()]


def rows(text):
    """The lines of an output, whatever their order, and however wide a table is."""
    return {tuple(line.split()) for line in text.splitlines() if not line.startswith("---")}


def environment():
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "NO_MKDOCS_2_WARNING": "1"}


def run(command, folder):
    """Runs a command line as a user would type it; the environment in the folder is not made anew."""
    command = re.sub(r"^make ", "make -o .venv/.ready -o .venv/.ready-dev ", command)
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{(done.stdout + done.stderr)[-4000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout whose demo is smaller still, and has been made."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in MADE:
        source = ROOT / part
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "kernel-*"))
        else:
            shutil.copy2(source, folder / part)
    (folder / ".venv").symlink_to(sys.prefix)
    demo = yaml.safe_load((folder / "config/demo.yaml").read_text())
    demo["run"] = ["mlp-numpy", "mlp-bn-torch"]
    demo["variants"]["mlp-numpy"] |= {"steps": 20, "evaluate_every": 10}
    (folder / "config/demo.yaml").write_text(yaml.safe_dump(demo))
    run("make demo", folder)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    run(f"mkdocs build --quiet --strict --site-dir {folder}", ROOT)
    return folder


# In the order of their names: tutorial.md, the last one, changes the study.
@pytest.mark.parametrize(
    "page",
    [
        str(text.relative_to(ROOT))
        for text in TEXTS
        if any(kind in ("sh", "python") for kind, _ in steps(text.read_text()))
    ],
)
def test_every_command_of_a_page_works(checkout, page):
    overlay = output = ""
    for kind, content in steps((ROOT / page).read_text()):
        if kind == "yaml":
            overlay = content
        elif kind == "text":
            assert rows(content) <= rows(output)
        elif kind == "python":
            run(f"python -c {shlex.quote(content)}", ROOT)
        elif kind == "sh":
            command, _ = INSTEAD.get(content, (content, ""))
            if "mine.yaml" in command:
                (checkout / "mine.yaml").write_text(overlay)
            output = run(command, checkout) if command else ""


def test_no_exception_is_kept_for_a_command_that_is_gone():
    assert set(INSTEAD) <= {content for text in TEXTS for kind, content in steps(text.read_text()) if kind == "sh"}


def test_commands_within_sentences_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    subcommands = set(cli._parser()[1])
    for text in [*TEXTS, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"]:
        for program, name in re.findall(r"`(make|cifar-report) ([a-z-]+)", text.read_text()):
            assert name in (targets if program == "make" else subcommands), f"{text}: {program} {name}"


def test_the_site_takes_nothing_from_elsewhere(site):
    taken = re.compile(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"?(https?:)?//", re.DOTALL)
    assert not [page.name for page in site.rglob("*.html") if taken.search(page.read_text())]


def test_the_site_has_every_setting_and_subcommand(site):
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    page = (site / "configuration.html").read_text()
    for key in (*schema["properties"], *schema["properties"]["variants"]["additionalProperties"]["properties"]):
        assert f"<code>{key}</code>" in page, key
    page = (site / "commands.html").read_text()
    usage = subprocess.run(["cifar-report", "--help"], env=environment(), capture_output=True, text=True, check=True)
    names = re.findall(r"^    ([a-z-]+)", usage.stdout, re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert f'<h3 id="{name}">' in page, name


def test_search_works_from_disk(site):
    browser = shutil.which("chromium")
    if not browser:
        pytest.skip("no chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        page.goto((site / "index.html").as_uri())
        page.click(".md-search__input")
        page.keyboard.type("average_decay")
        page.wait_for_selector(".md-search-result__item a[href*='configuration.html']", state="attached")


def described(page, heading):
    """The names in the first column of the table below a heading."""
    chapter = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)[1]
    cells = [line.split("|")[1] for line in chapter.splitlines() if line.startswith("|")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_results_are_described_as_they_are(checkout):
    page, results = (ROOT / "docs/results.md").read_text(), checkout / "results/demo"
    folder = results / "runs/mlp-numpy/seed-0"
    tables = [
        results / f"{name}.csv" for name in ("summary", "costs", "shifts", "flips", "batch-statistics", "agreement")
    ]
    for path in (*tables, folder / "curve.csv"):
        with path.open() as file:
            assert sorted(described(page, path.name)) == sorted(next(csv.reader(file))), path.name
    assert sorted(described(page, "run.json")) == sorted(json.loads((folder / "run.json").read_text()))
    claim = json.loads((results / "claims.json").read_text())[0]
    assert set(claim) <= set(described(page, "claims.json"))
    with (ROOT / "reference/cifar10-jpeg/search.csv").open() as file:
        assert set(described(page, "search.csv")) <= set(next(csv.reader(file)))
    there = {path.name for path in results.iterdir() if path.name != ".lock"}
    listed = {name.split("/")[0] for name in described(page, "Results")}
    assert there <= listed and listed - there <= {"search.csv", "search", "tensorboard"}


def test_the_readme_shows_the_accuracies_of_the_references():
    chapter = (ROOT / "README.md").read_text().split("\n## Results\n")[1].split("\n## ")[0]
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in chapter.splitlines() if "|" in line][2:]
    measured = {}
    for study in ("cifar10-jpeg-long", "cifar10-jpeg"):  # what both have is told by the one with more seeds
        with (ROOT / f"reference/{study}/summary.csv").open() as file:
            measured |= {row["variant"]: row for row in csv.DictReader(file)}
    assert len(shown) > 5 and {"`mlp-halving`", "`vgg-long`"} <= {row[0] for row in shown}
    for variant, _, original, reproduced, seeds in shown:
        row = measured[variant.strip("`")]
        mean, low, high, then = (
            100 * float(row[name] or "nan")
            for name in (
                "test_accuracy_mean",
                "test_accuracy_ci95_low",
                "test_accuracy_ci95_high",
                "original_test_accuracy",
            )
        )
        interval = f" ± {(high - low) / 2:.1f}" if int(seeds) > 2 else ""
        assert [original, reproduced, seeds] == [
            "" if math.isnan(then) else f"{then:.1f}",
            f"{mean:.1f}{interval}",
            row["seeds"],
        ]


def test_what_both_processors_trained_is_told():
    """The runs that two references have are the same bit for bit, as README and guarantees say, with their number."""
    folders = [ROOT / "reference" / study / "runs" for study in ("cifar10-jpeg", "cifar10-jpeg-long")]
    shared = sorted(path.relative_to(folders[1]) for path in folders[1].glob("*/*/run.json"))
    pairs = [
        [json.loads((folder / path).read_text()) for folder in folders]
        for path in shared
        if (folders[0] / path).is_file()
    ]
    assert pairs and all(here["identity"] == there["identity"] for here, there in pairs)
    assert {(here["device"]["model"], there["device"]["model"]) for here, there in pairs} == {
        ("AuthenticAMD 25 17", "AuthenticAMD 26 2")
    }
    same = [here["digests"] == there["digests"] for here, there in pairs]
    told = f"{len(same)} runs that both"
    assert all(same) and told in (ROOT / "README.md").read_text() and told in (ROOT / "docs/guarantees.md").read_text()


def licence(package):
    """What a package's metadata say, in the form that is least free."""
    metadata = importlib.metadata.metadata(package)
    classes = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    short = [text for text in [metadata.get("License")] if text and len(text) < 30]
    return [metadata.get("License-Expression"), *short, *classes, None]


def test_every_dependency_stands_in_the_table_with_its_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    page = (ROOT / "docs/dependencies.md").read_text()
    for heading, wanted in (
        ("To run a study", project["project"]["dependencies"]),
        ("To install", project["dependency-groups"]["install"]),
        ("To develop", project["dependency-groups"]["dev"]),
    ):
        chapter = page.split(f"## {heading}\n")[1].split("\n## ")[0]
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in chapter.splitlines() if "|" in line][2:]
        assert [row[0] for row in rows] == [re.match(r"[\w-]+", requirement)[0] for requirement in wanted]
        for name, what, others, told in rows:
            assert what and others
            assert told in licence(name), f"{name}: {licence(name)}"
