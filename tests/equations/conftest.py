"""`--equations-json FILE`: what each check of an equation says, for the marks and the appendix of the report."""

from pathlib import Path

import pytest

from cifar_report.base.files import to_json, write_text

CHECKS = pytest.StashKey[dict[tuple[str, str], dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--equations-json",
        metavar="FILE",
        type=Path,
        help="write label, test, what, how and outcome of each check of an equation",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CHECKS] = {}


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
                        "what": item.function.__doc__.splitlines()[0],
                        "how": mark.kwargs.get("how", "numeric"),
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
