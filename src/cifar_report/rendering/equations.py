"""Which equations of the report have passed their checks: the marks beside their numbers."""

import hashlib
import os
from contextlib import suppress
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, write_text
from cifar_report.study.displays import digests

TESTS = "tests/equations"
KEYS = ("label", "test", "what", "how", "display", "outcome")


def run(stage: Path, kept: Path, checks: Path) -> None:
    """Writes the report of the equations' tests, from an earlier study where none of what they depend on has changed.

    Args:
        stage: the stage's file in plan/, which names the code, the tests and the displays, but no other sentence.
        kept: folder of such reports, shared by all studies, each after a line with the SHA-256 of what it
            depends on and of itself.
        checks: file to write.

    Raises:
        InputError: a test fails, or the tests cannot be run.
    """
    versions = "".join(version(package) for package in ("numpy", "scipy", "sympy", "torch"))
    depends = (stage.read_text() + versions).encode()
    earlier = kept / f"{hashlib.sha256(depends).hexdigest()}.txt"
    with suppress(OSError, ValueError):  # one that is damaged is made again
        seal, found = earlier.read_bytes().split(b"\n", 1)
        if seal.decode() == hashlib.sha256(depends + found).hexdigest():
            print(f"{earlier}: the same displays, tests and code passed before")
            write_text(checks, found.decode())
            return
    import pytest

    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]  # they leave tests out, or add others
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # and so may plugins
    code = pytest.main(["-p", "no:cacheprovider", "--confcutdir", TESTS, TESTS, "--equations-json", str(checks)])
    if code != pytest.ExitCode.OK:
        raise InputError(f"{TESTS}: expected all checks of the equations to pass, found otherwise; each is named above")
    found = checks.read_bytes()
    write_text(earlier, f"{hashlib.sha256(depends + found).hexdigest()}\n{found.decode()}")


def write(checks: Path, sources: Path, output: Path) -> None:
    r"""Writes what LaTeX reads of the checks; the HTML report has them all.

    Args:
        checks: JSON list of `{label, test, what, how, display, outcome}`, as the tests write it with
            `--equations-json`; `display` is the digest of the display that the check holds for, or empty.
        sources: folder of the report's LaTeX.
        output: file with `\setmark{label}{mark}` for each label with a mark.

    Raises:
        InputError: the checks are missing, are no such list, or are of other equations than the report's.
    """
    found = read(checks)
    displays = digests(sources)
    by_label = {label: list(group) for label, group in groupby(found, key=_label)}
    if missing := sorted(displays.keys() - by_label.keys()):
        expected = f"checks of all {len(displays)} displayed equations"
        raise InputError(f"{checks}: expected {expected}, found none of {', '.join(missing)}; delete it, it is remade")
    marks = {label: _mark(group, displays.get(label)) for label, group in by_label.items()}
    write_text(output, "".join(f"\\setmark{{{label}}}{{\\{mark}}}\n" for label, mark in marks.items() if mark))


def _mark(checks: list[dict[str, Any]], display: str | None) -> str:
    """The macro of an equation's mark: all its checks have passed, and one of them holds for what is displayed now."""
    how = [check["how"] for check in checks if check["display"] == display]
    if not how or any(check["outcome"] != "passed" for check in checks):
        return ""
    return "evaluatedmark" if "evaluated" in how else "writtenmark"


def read(report: Path) -> list[dict[str, Any]]:
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
