"""Which displays the report has, what each states, and which of them the tests name."""

import ast
from functools import cache
from pathlib import Path

from cifar_report.study import displays

ROOT = Path(__file__).parents[2]


@cache
def digests() -> dict[str, str]:
    """The digest of each display, by label."""
    return displays.digests(ROOT / "report")


@cache
def statements() -> dict[str, str]:
    """What each display states, by label."""
    macros = displays.macros_of((ROOT / "report/preamble.tex").read_text())
    return {label: display.statement(macros) for label, display in displays.of_report(ROOT / "report").items()}


def marks(source: str, name: str) -> list[tuple[tuple, dict, str | None]]:
    """Arguments, keywords and the function's docstring of each `pytest.mark.<name>` in a Python file."""
    found = []
    for function in ast.walk(ast.parse(source)):
        for decorator in getattr(function, "decorator_list", ()):
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{name}":
                arguments = tuple(ast.literal_eval(argument) for argument in decorator.args)
                keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in decorator.keywords}
                found.append((arguments, keywords, ast.get_docstring(function)))
    return found
