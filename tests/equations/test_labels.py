"""The report, the checks and the code name the same equations."""

import pkgutil
import re
from collections import Counter

import pytest

from .labels import LABEL, ROOT, checked_labels, equation_labels, named_labels, report_sources, without_comments

LABELS = Counter(label for path in report_sources() for label in equation_labels(path.read_text()))
CHECKS = [
    mark for path in sorted((ROOT / "tests/equations").glob("test_*.py")) for mark in checked_labels(path.read_text())
]


def test_every_equation_has_one_label_and_a_check():
    """Labels are unique, and the sets of displayed and of checked equations are equal."""
    assert [label for label, count in LABELS.items() if count > 1] == []
    checked = {label for label, _, _ in CHECKS}
    assert sorted(set(LABELS) - checked) == [], "displayed without a check"
    assert sorted(checked - set(LABELS)) == [], "checked but not displayed"


def test_every_check_says_what_it_does():
    """The appendix prints the first line of each check's docstring, and how it checks."""
    for label, how, docstring in CHECKS:
        assert docstring and docstring.splitlines()[0].isascii(), label
        assert how in ("symbolic", "numeric", "both"), label


def test_code_names_equations_that_exist():
    """Each label in the package's sources is displayed in the report."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        assert named_labels(path.read_text()) - set(LABELS) == set(), path.name


def test_text_refers_to_equations_that_exist():
    """Each reference to an equation in the text has its label."""
    for path in report_sources():
        references = re.findall(r"\\(?:eq|c|C|auto)?ref\{([^}]*)\}", without_comments(path.read_text()))
        for label in (part for reference in references for part in reference.split(",")):
            assert not label.startswith("eq:") or label in LABELS, (path.name, label)


def test_text_names_code_that_exists():
    r"""Each \code{module.Class.method} of this package in the text can be imported."""
    for path in report_sources():
        for name in re.findall(r"\\code\{((?:numpy_nn|torch_nn|training|randomness)\.[\w.]+)\}", path.read_text()):
            pkgutil.resolve_name(f"cifar_report.{name}")


ROW = r"a &= b \label{eq:a}"
GOOD = {
    r"\begin{equation} x = \begin{cases} 1 \\ 2 \end{cases} \label{eq:x} \end{equation}": ["eq:x"],
    rf"\begin{{align}} {ROW} \\ c &= d \label{{eq:c-2}} \end{{align}} \\[2ex]": ["eq:a", "eq:c-2"],
    "text % \\[ in a comment \\]\n": [],
}
BAD = (
    r"\begin{equation*} x \end{equation*}",
    rf"\begin{{align*}} {ROW} \end{{align*}}",
    r"\[ x \]",
    "$$ x $$",
    r"\begin{displaymath} x \end{displaymath}",
    r"\begin{equation} x \end{equation}",
    rf"\begin{{align}} {ROW} \\ c &= d \end{{align}}",
    rf"\begin{{align}} {ROW} \\ c &= d \nonumber \end{{align}}",
    r"\begin{equation} x \label{eq:a} \label{eq:b} \end{equation}",
    r"\begin{equation} x \label{x} \end{equation}",
    r"text \label{eq:nowhere}",
)


@pytest.mark.parametrize("tex", GOOD)
def test_labels_are_found(tex: str):
    """Rows of displays are told from rows of what is nested in them."""
    assert equation_labels(tex) == GOOD[tex]
    assert all(label in LABEL.findall(tex) for label in GOOD[tex])


@pytest.mark.parametrize("tex", BAD)
def test_unlabelled_displays_are_refused(tex: str):
    """Displays and rows without a number or a label are refused, whatever their environment."""
    with pytest.raises(ValueError, match=r"^(a display|a row|labels of)"):
        equation_labels(tex)
