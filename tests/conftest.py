"""What several test modules share."""

import shutil

import pytest
from test_workflow import PARTS, ROOT, snakemake, write_overlay

from cifar_report.data import datasets


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """For `--dist loadgroup`: one worker runs a module, and one all modules that take the finished study, first."""
    sharing = {item.path for item in items if "study" in item.fixturenames and not hasattr(item.module, "study")}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("study" if item.path in sharing else item.path.stem))
    items.sort(key=lambda item: item.path not in sharing)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The digits, 200 of them for validation. Read only: a test that changes them takes a copy of the folder."""
    folder = tmp_path_factory.mktemp("dataset")
    datasets.prepare("digits", {"source": "digits"}, 200, folder, folder)
    return datasets.load(folder)


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
