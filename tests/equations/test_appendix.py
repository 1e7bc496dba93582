"""The file of checks that the tests write, and the LaTeX that is made from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_report.base.errors import InputError
from cifar_report.rendering import equations

TESTS = '''
import pytest

@pytest.mark.equation("eq:b", how="symbolic")
def test_two():
    """Passes.

    Not this.
    """

@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.equation("eq:b", "eq:a", how="both")
def test_one(n):
    """Fails for 2."""
    assert n == 1

@pytest.fixture
def broken():
    raise RuntimeError

@pytest.mark.equation("eq:c", how="numeric")
def test_three(broken):
    """Never begins."""

def test_of_no_equation():
    pass
'''


def check(label: str, name: str, what: str = "Says what.", how: str = "symbolic", outcome: str = "passed") -> dict:
    """An entry of the report of checks."""
    return {"label": label, "test": f"test_x.py::{name}", "what": what, "how": how, "outcome": outcome}


def test_tests_report_what_they_check(tmp_path: Path):
    """One entry for each label and function, sorted, failed where any case fails."""
    conftest = Path(__file__).with_name("conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_x.py").write_text(TESTS)
    output = tmp_path / "checks.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path]
    subprocess.run([*command, tmp_path, "--equations-json", output], capture_output=True, check=False)
    assert json.loads(output.read_text()) == [
        check("eq:a", "test_one", "Fails for 2.", "both", "failed"),
        check("eq:b", "test_one", "Fails for 2.", "both", "failed"),
        check("eq:b", "test_two", "Passes."),
        check("eq:c", "test_three", "Never begins.", "numeric", "failed"),
    ]


def test_marks_and_table(tmp_path: Path):
    """Only equations whose checks all passed are marked; the table is sorted, and its text is safe for LaTeX."""
    checks = [
        check("eq:b", "test_two", outcome="failed"),
        check("eq:b", "test_one"),
        check("eq:a", "test_one", what="100 % of a_i & b^2, {x} ~ #1 $ \\"),
    ]
    written = []
    for order in (checks, checks[::-1]):
        (tmp_path / "checks.json").write_text(json.dumps(order))
        equations.write(tmp_path / "checks.json", tmp_path / "tables" / "equations.tex")
        written.append([path.read_bytes() for path in sorted((tmp_path / "tables").iterdir())])
    assert written[0] == written[1]
    assert (tmp_path / "tables" / "equations.tex").read_text() == "\\setchecked{eq:a}\n"
    rows = [line for line in (tmp_path / "tables" / "equations-table.tex").read_text().splitlines() if "test_" in line]
    assert rows == [
        r"\phantomsection\label{check:eq:a}(\ref{eq:a}) & \code{a} & 100 \% of a\_i \& b\textasciicircum{}2, \{x\}"
        r" \textasciitilde{} \#1 \$ \textbackslash{} \code{test_one} & symbolic\\",
        r"\phantomsection\label{check:eq:b}(\ref{eq:b}) & \code{b} & Says what. \code{test_one} & symbolic\\",
        r" &  & Says what. \code{test_two} \textbf{failed} & symbolic\\",
    ]


@pytest.mark.parametrize("document", ["{", "{}", "[1]", '[{"label": "eq:a"}]'])
def test_other_documents_are_refused(tmp_path: Path, document: str):
    """The message names the file and the rule to run."""
    path = tmp_path / "checks.json"
    path.write_text(document)
    with pytest.raises(InputError, match=r"checks\.json: expected"):
        equations.write(path, tmp_path / "equations.tex")
