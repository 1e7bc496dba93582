"""The displays of the report are found and told apart, and its text and the code name equations and code that exist."""

import pkgutil
import re
from pathlib import Path

import pytest

from cifar_report.base.errors import InputError
from cifar_report.rendering.pages import equations_table
from cifar_report.study import displays

ROOT = Path(__file__).parents[1]
SECTIONS = sorted((ROOT / "report").rglob("*.tex"))
LABELS = displays.digests(ROOT / "report").keys()


def test_code_names_equations_that_exist():
    """Each label in the package's sources is displayed in the report."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        assert set(displays.SLUG.findall(path.read_text())) - LABELS == set(), path.name


def test_text_refers_to_equations_that_exist():
    """Each reference to an equation in the text has its label."""
    for path in SECTIONS:
        references = re.findall(r"\\(?:eq|c|C|auto)?ref\{([^}]*)\}", displays.without_comments(path.read_text()))
        for label in (part for reference in references for part in reference.split(",")):
            assert not label.startswith("eq:") or label in LABELS, (path.name, label)


def test_text_names_code_that_exists():
    r"""Each \code{module.Class.method} of this package in the text can be imported."""
    rooms = "base|models|training"
    names = [n for path in SECTIONS for n in re.findall(rf"\\code\{{((?:{rooms})\.[\w.]+)\}}", path.read_text())]
    assert len(names) > 20
    for name in names:
        pkgutil.resolve_name(f"cifar_report.{name}")


MACROS = displays.macros_of(
    r"""\newcommand{\xt}{\tilde{x}}
\newcommand{\pd}[2]{\frac{\partial #1}{\partial #2}}
\DeclareMathOperator{\diag}{diag} % \newcommand{\no}{x}
\newcommand{\half}[1]{\frac{#1}{2}}"""
)
ROW = r"a &= b \label{eq:a}"
GOOD = {
    r"\begin{equation} x = \begin{cases} 1, & a \\ 2, & b \end{cases} \label{eq:x} \end{equation}": {
        "eq:x": r"x = \begin{cases} 1 , & a \\ 2 , & b \end{cases}"
    },
    rf"\begin{{align}} {ROW} \\ &= d \label{{eq:b}} \\ c &= e \label{{eq:c-2}}\end{{align}} \\[2ex]": {
        "eq:a": "a & = b",
        "eq:b": "a & = d",  # the left side goes on
        "eq:c-2": "c & = e",
    },
    "\\begin{equation}\n\\pd{L}{\\xt_i} % but\n = \\half{\\diag(\\pd{a}{b})} \\label{eq:m}\n\\end{equation}": {
        "eq:m": r"\frac { \partial L } { \partial \tilde { x } _ i } = "
        r"\frac { \operatorname{diag} ( \frac { \partial a } { \partial b } ) } { 2 }"
    },
    "text % \\[ in a comment \\]\n": {},
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
def test_statements(tex: str):
    """Rows of displays are told from rows of what is nested in them, and macros stand for what they print."""
    assert {display.label: display.statement(MACROS) for display in displays.read(tex)} == GOOD[tex]


@pytest.mark.parametrize("tex", BAD)
def test_unlabelled_displays_are_refused(tex: str):
    """Displays and rows without a number or a label are refused, whatever their environment."""
    with pytest.raises(ValueError, match=r"^(a display|a row|labels of)"):
        displays.read(tex)


def test_a_label_that_stands_twice_is_refused(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.tex").write_text(r"\begin{equation} x = 1 \label{eq:x} \end{equation}")
    with pytest.raises(InputError, match=r"b\.tex: the label eq:x stands twice"):
        displays.of_report(tmp_path)


DISPLAY = r"\begin{equation} \tr \std{1} = \odot \begin{cases} 1, & a \end{cases} \label{eq:x} \end{equation}"
REDEFINED = {
    "section.tex": (
        r"\renewcommand{\tr}{}",
        r"\newcommand{\tr}{}",
        r"\def\tr{}",
        r"\let\odot\oplus",
        r"\AtBeginDocument{\gdef \std#1{#1}}",
        r"\RenewDocumentCommand{\std}{m}{#1}",
        r"\expandafter\let\csname tr\endcsname\relax",
        r"\renewenvironment{cases}{}{}",
        r"\DeclareMathSymbol{\odot}{\mathbin}{symbols}{8}",
        r"\mathcode`+=`-",
        r"\newcount\top",
        r"\renewcommand{\top}{}",  # what a macro prints
    ),
    "letters.tex": (r"\letters@slot{tr}{65}{A}{0410}", r"\renewcommand*\tr{}"),
    "preamble.tex": (
        r"\renewcommand{\tr}{}",
        r"\newcommand{\tr}{}",
        r"\newcommand{\odot}[2][x]{}",
        r"\ExplSyntaxOn \cs_set:Npn \tr {} \ExplSyntaxOff",
        r"\makeatletter\@namedef{tr}{}",
    ),
}


@pytest.mark.parametrize(("name", "tex"), [(name, tex) for name, texts in REDEFINED.items() for tex in texts])
def test_another_definition_of_what_displays_print_is_refused(tmp_path: Path, name: str, tex: str):
    """Whatever defines it, and wherever; other names may be defined."""
    preamble = "\\newcommand{\\tr}{^{\\top}}\n\\newcommand{\\std}[1]{#1}\n"
    (tmp_path / "preamble.tex").write_text(preamble)
    (tmp_path / "section.tex").write_text(DISPLAY + r"\newcommand{\trace}{x}\let\mine\tr\def\tr@mine{}\fontcases")
    assert [*displays.of_report(tmp_path)] == ["eq:x"]
    with (tmp_path / name).open("a") as file:
        file.write("\n" + tex)
    with pytest.raises(InputError, match=rf"{name}:\d+: expected that what displays print is defined once"):
        displays.of_report(tmp_path)


def test_digest_is_of_what_is_printed():
    """White space, comments and line breaks do not count; a sign does, and so does what a macro prints."""

    def digest(tex: str, macros: dict = MACROS) -> str:
        return displays.read(rf"\begin{{equation}}{tex}\label{{eq:x}}\end{{equation}}")[0].digest(macros)

    assert digest(r"\xt = -1") == digest("% why\n  \\xt =\n - 1 ") == digest(r"\tilde{x} = -1")
    assert len({digest(r"\xt = -1"), digest(r"\xt = 1"), digest(r"\xt = -1", {r"\xt": (0, r"\hat{x}")})}) == 3


def test_the_table_of_checks_has_a_row_a_check():
    check = {"label": "eq:a", "test": "test_x.py::test_one", "what": "100 % of a_i", "how": "both", "outcome": "failed"}
    row = dict(equations_table([check]).loc[0])
    assert row == {
        "Equation": "a",
        "Check": "100 % of a_i",
        "Kind": "both",
        "Test": "test_x.py::test_one",
        "Outcome": "failed",
    }
