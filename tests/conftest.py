"""What several test modules share."""

import shutil

import pytest
from test_workflow import PARTS, ROOT, snakemake, write_overlay


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A folder in which the small study has run, HTML report included."""
    folder = tmp_path_factory.mktemp("study")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    write_overlay(folder)
    snakemake(folder, "report")
    return folder
