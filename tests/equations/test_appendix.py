"""The file of checks that the tests write, and the LaTeX that is made from it."""

import hashlib
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

@pytest.mark.written_for("eq:a", "DIGEST")
@pytest.mark.equation("eq:a", how="numeric")
def test_four():
    """As displayed."""

@pytest.mark.written_for("eq:b", "another")
@pytest.mark.equation("eq:b", how="numeric")
def test_five():
    """Of another display."""

@pytest.mark.equation("eq:b", how="evaluated", what="By `Module`.")
def test_six():
    """Evaluated."""

def test_of_no_equation():
    pass
'''
DISPLAYS = r"\begin{align} a &= 1 \label{eq:a}\\ b &= 2 \label{eq:b}\\ c &= 3 \label{eq:c} \end{align}"
A, B, C = (hashlib.sha256(f"{name} & = {n}".encode()).hexdigest() for n, name in enumerate("abc", start=1))


def check(
    label: str, name: str, what: str = "Says what.", how: str = "symbolic", display: str = "", outcome: str = "passed"
) -> dict:
    """An entry of the report of checks."""
    return {
        "label": label,
        "test": f"test_x.py::{name}",
        "what": what,
        "how": how,
        "display": display,
        "outcome": outcome,
    }


def test_tests_report_what_they_check(tmp_path: Path):
    """One entry for each label and function, sorted, failed where any case fails or was written for another display."""
    tests = tmp_path / "tests/equations"
    tests.mkdir(parents=True)
    for name in ("__init__.py", "conftest.py", "labels.py"):
        (tests / name).write_text(Path(__file__).with_name(name).read_text())
    (tests / "test_x.py").write_text(TESTS.replace("DIGEST", A))
    (tmp_path / "report").mkdir()
    (tmp_path / "report/x.tex").write_text(DISPLAYS)
    output = tmp_path / "checks.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path]
    done = subprocess.run([*command, tests, "--equations-json", output], capture_output=True, text=True, check=False)
    assert json.loads(output.read_text()) == [
        check("eq:a", "test_four", "As displayed.", "numeric", A),
        check("eq:a", "test_one", "Fails for 2.", "both", outcome="failed"),
        check("eq:b", "test_five", "Of another display.", "numeric", "another", "failed"),
        check("eq:b", "test_one", "Fails for 2.", "both", outcome="failed"),
        check("eq:b", "test_six", "By Module.", "evaluated", B),
        check("eq:b", "test_two", "Passes."),
        check("eq:c", "test_three", "Never begins.", "numeric", outcome="failed"),
    ]
    assert "eq:b: the display is not the one that this test was written for; where" in done.stdout and B in done.stdout


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Sources with three displays."""
    (tmp_path / "report").mkdir()
    (tmp_path / "report/x.tex").write_text(DISPLAYS)
    return tmp_path / "report"


def test_marks_and_table(tmp_path: Path, report: Path):
    """A mark for each equation whose checks all passed, one of them for what is displayed; the table is sorted."""
    checks = [
        check("eq:c", "test_two", display=C, outcome="failed"),
        check("eq:c", "test_one", display=C),
        check("eq:b", "test_two", how="evaluated", display=B),
        check("eq:b", "test_one", display=B),
        check("eq:a", "test_one", what="100 % of a_i & b^2, {x} ~ #1 $ \\", display=A),
        check("eq:a", "test_two"),
    ]
    written = []
    for order in (checks, checks[::-1]):
        (tmp_path / "checks.json").write_text(json.dumps(order))
        equations.write(tmp_path / "checks.json", report, tmp_path / "tables" / "equations.tex")
        written.append([path.read_bytes() for path in sorted((tmp_path / "tables").iterdir())])
    assert written[0] == written[1]
    marks = "\\setmark{eq:a}{\\writtenmark}\n\\setmark{eq:b}{\\evaluatedmark}\n"
    assert (tmp_path / "tables" / "equations.tex").read_text() == marks


def test_a_mark_is_of_what_is_displayed(tmp_path: Path, report: Path):
    """A check of another display, or of none, gives no mark, and checks of fewer equations are refused."""
    checks, output = tmp_path / "checks.json", tmp_path / "equations.tex"
    checks.write_text(json.dumps([check("eq:a", "t", how="evaluated", display=A), check("eq:b", "t", display=A)]))
    with pytest.raises(InputError, match="checks of all 3 displayed equations, found none of eq:c"):
        equations.write(checks, report, output)
    assert not output.exists()
    (report / "x.tex").write_text(DISPLAYS.replace("c &= 3", "c &= 4"))
    stale = [check("eq:c", "t", how="evaluated", display=C)]
    checks.write_text(json.dumps(json.loads(checks.read_text()) + stale))
    equations.write(checks, report, output)
    assert output.read_text() == "\\setmark{eq:a}{\\evaluatedmark}\n"


def test_checks_are_kept_for_other_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tests run once for each content of the plan, without what the environment says, and what fails is not kept."""
    stage, kept, checks, calls = tmp_path / "stage.json", tmp_path / "kept", tmp_path / "checks.json", []

    def main(arguments: list[str]) -> int:
        calls.append({name: value for name, value in os.environ.items() if name.startswith("PYTEST_")})
        Path(arguments[-1]).write_text(f"checks {len(calls)}")
        return len(calls) == 1

    monkeypatch.setattr(pytest, "main", main)
    monkeypatch.setattr(os, "environ", os.environ | {"PYTEST_ADDOPTS": "-k nothing"})
    stage.write_text("one")
    with pytest.raises(InputError, match="expected all checks of the equations to pass"):
        equations.run(stage, kept, checks)
    for content, expected in (("one", "checks 2"), ("one", "checks 2"), ("two", "checks 3"), ("one", "checks 2")):
        stage.write_text(content)
        equations.run(stage, kept, checks)
        assert checks.read_text() == expected
    one, two = kept.iterdir()
    one_content, two_content = one.read_bytes(), two.read_bytes()
    one.write_bytes(two_content)
    two.write_bytes(one_content)
    equations.run(stage, kept, checks)  # another one's report is none
    assert checks.read_text() == "checks 4"
    for number, damage in enumerate((b"", b"null", b"\xff\n", b"checks 2"), 5):  # what is damaged stops no study
        for path in kept.iterdir():
            path.write_bytes(damage)
        for _ in range(2):
            equations.run(stage, kept, checks)
            assert checks.read_text() == f"checks {number}"
    assert calls == [{"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}] * 8


@pytest.mark.parametrize("document", ["{", "{}", "[1]", '[{"label": "eq:a"}]'])
def test_other_documents_are_refused(tmp_path: Path, report: Path, document: str):
    """The message names the file and the rule to run."""
    path = tmp_path / "checks.json"
    path.write_text(document)
    with pytest.raises(InputError, match=r"checks\.json: expected"):
        equations.write(path, report, tmp_path / "equations.tex")
