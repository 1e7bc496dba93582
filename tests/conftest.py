"""What several test modules share."""

import shutil

import pytest
from test_workflow import PARTS, ROOT, snakemake, write_overlay
from xdist.scheduler import LoadScopeScheduling

from cifar_report.data import datasets

OF_THE_STUDY = ("test_any_data.py", "test_damage.py", "test_html_report.py", "test_workflow.py")


class Scheduling(LoadScopeScheduling):
    """One worker runs a module, and one all modules that take the finished study.

    pytest-xdist's own `--dist loadgroup` groups nothing under pytest 9.2, which keeps the names of tests elsewhere.
    """

    def _split_scope(self, nodeid):
        path = nodeid.split("::")[0]
        return "study" if path.rpartition("/")[2] in OF_THE_STUDY else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """The modules that take the finished study come first, as they take longest."""
    sharing = {item.path.name for item in items if "study" in item.fixturenames and not hasattr(item.module, "study")}
    assert sharing <= set(OF_THE_STUDY), (
        f"{sharing}: expected only {OF_THE_STUDY} to take `study`; add the module there"
    )
    items.sort(key=lambda item: item.path.name not in OF_THE_STUDY)


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
