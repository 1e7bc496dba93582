"""`--equations-json FILE`: what each check of an equation says, for the marks and the appendix of the report."""

from pathlib import Path

import pytest

from cifar_report.base.files import to_json, write_text

from .labels import digests

CHECKS = pytest.StashKey[dict[tuple[str, str], dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--equations-json",
        metavar="FILE",
        type=Path,
        help="write label, test, what, how, display and outcome of each check of an equation",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CHECKS] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that was written for other displays than those that are printed fails."""
    for label, digest in _written_for(item).items():
        if digests().get(label) != digest:
            pytest.fail(
                f"{label}: the display is not the one that this test was written for; where the test checks it as it "
                f"stands now, name its digest: {digests().get(label)}",
                pytrace=False,
            )


def _written_for(item: pytest.Item) -> dict[str, str]:
    return dict(mark.args for mark in item.iter_markers("written_for"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """One entry for each label and test function; of a parametrised function, all cases must pass."""
    report = yield
    if report.when == "call" or not report.passed:
        for mark in item.iter_markers("equation"):
            for label in mark.args:
                check = item.config.stash[CHECKS].setdefault(
                    (label, item.nodeid.partition("[")[0]),
                    {
                        "label": label,
                        "test": item.nodeid.rpartition("/")[2].partition("[")[0],
                        "what": mark.kwargs.get("what", item.function.__doc__.splitlines()[0]).replace("`", ""),
                        "how": mark.kwargs.get("how", "numeric"),
                        # The display that it holds for: evaluated as it stands, or the one that it was written for.
                        "display": digests().get(label, "")
                        if mark.kwargs.get("how") == "evaluated"
                        else _written_for(item).get(label, ""),
                        "outcome": "passed",
                    },
                )
                if not report.passed:
                    check["outcome"] = report.outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--equations-json", default=None)
    if path is not None:
        checks = session.config.stash[CHECKS]
        write_text(path, to_json([checks[key] for key in sorted(checks)]))
