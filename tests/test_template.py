"""docs/template.md does what it says: its commands, its overlays, its new kind of model and its claim."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cifar_report.analysis.claims import file

ROOT = Path(__file__).parent.parent
CHAPTERS = dict(
    re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", (ROOT / "docs/template.md").read_text(), re.MULTILINE | re.DOTALL)
)
PARTS = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "report", "tests/equations", "environment.yml")
NEW_KIND = """
import numpy as np
import yaml
from cifar_report.study import config
from cifar_report.study.kinds import entries
entry = yaml.safe_load(open("mine.yaml"))["variants"]["resnet"]
settings = config.Settings(**{"evaluation_images": 10, "threads": 1} | {k: v for k, v in entry.items() if k != "label"})
trainer, build = entries(settings.kind)
images = np.random.default_rng(0).integers(0, 256, (100, 3, 24, 24), np.uint8)
trainer = trainer(build, settings, images, np.arange(100) % 5, 5, 0)
before = {name: array.copy() for name, array in trainer.parameters().items()}
trainer.advance(2)
assert trainer.logits(images).shape == (100, 5)
assert all((array != before[name]).any() for name, array in trainer.parameters().items())
"""


def blocks(chapter, language):
    return re.findall(rf"^```{language}\n(.*?)^```", CHAPTERS[chapter], re.MULTILINE | re.DOTALL)


def dry_runs():
    return [
        (chapter, line)
        for chapter in CHAPTERS
        for text in blocks(chapter, "sh")
        for line in text.splitlines()
        if " -n " in line
    ]


def run(folder, command):
    variables = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
    }
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository with the new kind of model in it."""
    folder = tmp_path_factory.mktemp("template")
    for part in (*PARTS, "src", "docs/examples"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    (folder / "kind.diff").write_text(blocks("Add a model kind", "diff")[0])
    run(folder, ["git", "apply", "kind.diff"])
    return folder


def test_the_shapes_are_an_image_folder_of_the_size_that_is_asked_for_and_come_out_alike(tmp_path):
    for name in ("one", "two"):
        script = ROOT / "docs/examples/make_shapes.py"
        run(ROOT, [sys.executable, str(script), str(tmp_path / name), "--train", "10", "--test", "5"])
    files = {name: sorted(p for p in (tmp_path / name).rglob("*.png")) for name in ("one", "two")}
    assert [p.read_bytes() for p in files["one"]] == [p.read_bytes() for p in files["two"]]
    folders = {str(p.parent.relative_to(tmp_path / "one")) for p in files["one"]}
    classes = ("cross", "disc", "square", "star", "triangle")
    assert folders == {f"{split}/{name}" for split in ("train", "test") for name in classes}
    assert len(files["one"]) == 15


@pytest.mark.parametrize(("chapter", "command"), dry_runs(), ids=[chapter for chapter, _ in dry_runs()])
def test_the_dry_runs_of_each_chapter_work(copy, chapter, command):
    if "mine.yaml" in command:
        (copy / "mine.yaml").write_text(blocks(chapter, "yaml")[0])
    output = run(copy, command.split())
    assert "render_report" in output
    for name in ("mlp-narrow", "resnet"):
        assert (f"variant={name}" in output) == (name in "".join(blocks(chapter, "yaml")))


def test_every_dry_run_is_tried():
    assert [chapter for chapter, _ in dry_runs()] == list(CHAPTERS)[:4]


def test_the_new_kind_trains(copy):
    (copy / "mine.yaml").write_text(blocks("Add a model kind", "yaml")[0])
    run(copy, [sys.executable, "-c", NEW_KIND])


def test_the_claim_is_accepted(tmp_path):
    variants = yaml.safe_load((ROOT / "config.yaml").read_text())["variants"]
    catalogue = {*variants, *yaml.safe_load(blocks("Add a variant", "yaml")[0])["variants"]}
    path = tmp_path / "claims.yaml"
    path.write_text(blocks("Add a claim", "yaml")[0])
    assert [claim.id for claim in file.load(path, catalogue)] == ["width-matters"]
