"""Which equations of the report have passed their checks: the marks beside their numbers, and the appendix."""

from itertools import groupby
from pathlib import Path
from typing import Any

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, write_text
from cifar_report.rendering.latex import escape

KEYS = ("label", "test", "what", "how", "outcome")
TABLE = r"""\begingroup\footnotesize
\begin{longtable}{@{}r>{\raggedright\arraybackslash}p{.2\linewidth}>{\raggedright\arraybackslash}p{.52\linewidth}l@{}}
\caption{The checks of each equation, and the names of the tests in \code{tests/equations}.}\label{tab:checks}\\
\toprule
Equation & Label & Check & Kind\\
\midrule
\endfirsthead
\toprule
Equation & Label & Check & Kind\\
\midrule
\endhead
\bottomrule
\endfoot
"""


def write(report: Path, output: Path) -> None:
    r"""Writes what LaTeX reads of the checks, and the table of them beside it as `<name>-table.tex`.

    Args:
        report: JSON list of `{label, test, what, how, outcome}`, as the tests write it with `--equations-json`.
        output: file with `\setchecked{label}` for each label whose checks have all passed.

    Raises:
        InputError: the report is missing or is not such a list.
    """
    checks = _read(report)
    by_label = {label: list(group) for label, group in groupby(checks, key=_label)}
    passed = [label for label, group in by_label.items() if all(check["outcome"] == "passed" for check in group)]
    write_text(output, "".join(f"\\setchecked{{{label}}}\n" for label in passed))
    rows = [_row(check, first=check is group[0]) for group in by_label.values() for check in group]
    table = "".join((TABLE, *rows, "\\end{longtable}\n\\endgroup\n"))
    write_text(output.with_name(f"{output.stem}-table.tex"), table)


def _read(report: Path) -> list[dict[str, Any]]:
    """The checks of the report, sorted by label and test."""
    checks = read_json(report)
    well_formed = isinstance(checks, list) and all(
        isinstance(check, dict) and all(isinstance(check.get(key), str) for key in KEYS) for check in checks
    )
    if not well_formed:
        expected = "a list of checks, each with the texts " + ", ".join(KEYS)
        raise InputError(f"{report}: expected {expected}, found something else; run the rule `check_equations` again")
    return sorted(checks, key=lambda check: (check["label"], check["test"]))


def _label(check: dict[str, Any]) -> str:
    return check["label"]


def _row(check: dict[str, Any], first: bool) -> str:
    """A row of the table: the equation's number stands in the first row of its checks, where the marks lead to."""
    label, outcome = check["label"], check["outcome"]
    slug = label.removeprefix("eq:")
    head = f"\\phantomsection\\label{{check:{label}}}(\\ref{{{label}}}) & \\code{{{slug}}}" if first else " & "
    failed = "" if outcome == "passed" else f" \\textbf{{{escape(outcome)}}}"
    name = check["test"].rpartition("::")[2]
    return f"{head} & {escape(check['what'])} \\code{{{name}}}{failed} & {escape(check['how'])}\\\\\n"
