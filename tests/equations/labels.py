"""Which equations the report displays, which the tests check, and which the code names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DISPLAYS = ("equation", "align", "gather", "multline", "flalign", "alignat", "eqnarray", "displaymath", "math")
ROWS = ("align", "gather", "flalign", "alignat")  # each row has a number of its own
UNNUMBERED = re.compile(
    r"\\begin\{(?:(?:" + "|".join(DISPLAYS) + r")\*|eqnarray|displaymath)\}|(?<!\\)\\\[|\$\$|\\nonumber|\\notag"
)
ENVIRONMENT = re.compile(r"\\begin\{(equation|align|gather|multline|flalign|alignat)\}(.*?)\\end\{\1\}", re.DOTALL)
NESTED = re.compile(r"\\begin\{(\w+)\}(?:(?!\\begin\{).)*?\\end\{\1\}", re.DOTALL)
LABEL = re.compile(r"\\label\{([^}]*)\}")
SLUG = re.compile(r"eq:[a-z0-9]+(?:-[a-z0-9]+)*")


def without_comments(tex: str) -> str:
    """LaTeX without what stands behind a % that is not escaped."""
    return re.sub(r"(?<!\\)((?:\\\\)*)%.*", r"\1", tex)


def equation_labels(tex: str) -> list[str]:
    """The labels of all displayed equations, one for each row that has a number.

    Raises:
        ValueError: a display without a number, a row without exactly one label, or a label of another form.
    """
    tex = without_comments(tex)
    if found := UNNUMBERED.search(tex):
        raise ValueError(f"a display that has no number: {found[0]}")
    labels = []
    for environment, body in ENVIRONMENT.findall(tex):
        while NESTED.search(body):  # a row break inside cases or a matrix ends no row of the display
            body = NESTED.sub("", body)
        for row in body.split(r"\\") if environment in ROWS else [body]:
            found = LABEL.findall(row)
            if len(found) != 1 or not SLUG.fullmatch(found[0]):
                raise ValueError(f"a row of {environment} needs one label eq:<slug>, found {found}: {row.strip()}")
            labels += found
    if elsewhere := sorted({label for label in LABEL.findall(tex) if label.startswith("eq:")} - set(labels)):
        raise ValueError(f"labels of equations outside a display: {elsewhere}")
    return labels


def checked_labels(source: str) -> list[tuple[str, str | None, str | None]]:
    """Label, `how` and docstring of each `pytest.mark.equation` in a Python file."""
    marks = []
    for function in ast.walk(ast.parse(source)):
        for decorator in getattr(function, "decorator_list", ()):
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.equation":
                how = {keyword.arg: ast.literal_eval(keyword.value) for keyword in decorator.keywords}.get("how")
                docstring = ast.get_docstring(function)
                marks += [(ast.literal_eval(argument), how, docstring) for argument in decorator.args]
    return marks


def named_labels(source: str) -> set[str]:
    """The labels that the docstrings and comments of a Python file name."""
    return set(SLUG.findall(source))


def report_sources() -> Iterator[Path]:
    """All LaTeX files of the report."""
    return iter(sorted((ROOT / "report").rglob("*.tex")))
