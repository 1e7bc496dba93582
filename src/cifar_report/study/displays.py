"""The displayed equations of the report's sources: what each row states, as it is printed."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cifar_report.base.errors import InputError

OTHERS = ("multline", "eqnarray", "displaymath", "math")
ROWS = ("align", "gather", "flalign", "alignat")  # each row has a number of its own
UNNUMBERED = re.compile(
    r"\\begin\{(?:(?:equation|" + "|".join((*ROWS, *OTHERS)) + r")\*|eqnarray|displaymath|math)\}"
    r"|(?<!\\)\\\[|\$\$|\\nonumber|\\notag"
)
ENVIRONMENT = re.compile(r"\\begin\{(equation|align|gather|multline|flalign|alignat)\}(.*?)\\end\{\1\}", re.DOTALL)
NESTED = re.compile(r"\\begin\{(\w+)\}(?:(?!\\begin\{).)*?\\end\{\1\}", re.DOTALL)
LABEL = re.compile(r"\\label\{([^}]*)\}")
SLUG = re.compile(r"eq:[a-z0-9]+(?:-[a-z0-9]+)*")
TOKEN = re.compile(r"\\(?:begin|end|operatorname)\{\w+\}|\\text\{[^}]*\}|\\[a-zA-Z]+|\\.|\S")
COMMAND = re.compile(r"\\[a-zA-Z]+")
MACRO = re.compile(r"\\newcommand\{(\\[a-zA-Z]+)\}(?:\[(\d)\])?\{|\\DeclareMathOperator\{(\\[a-zA-Z]+)\}\{")
# What gives a command or environment another meaning, and the name that follows; and what changes single characters.
DEFINITION = re.compile(
    r"\\(?:[a-zA-Z@]*(?:def|let|cmd|ommands?|Operator|nvironment|Symbol|Accent|Alphabet|Delimiter|Radical|csname)"
    r"|letters@slot|letcs|font|new[a-z]+|(?:cs|tl)_\w+:\w+)(?![a-zA-Z@])"
    r"(?=\*?\s*\{?\s*\\?([a-zA-Z]+)(?![a-zA-Z@_:]))|\\(?:cat|math|del)code"
)


@dataclass(frozen=True)
class Display:
    """One numbered row.

    Args:
        label: `eq:<slug>`.
        row: its LaTeX, without label and comments.
        left: of a row that begins with a relation, the left side of the row that it goes on from; else empty.
    """

    label: str
    row: str
    left: str

    def statement(self, macros: dict[str, tuple[int, str]]) -> str:
        """What the row states, the report's macros replaced by what they print, its tokens apart by one space."""
        return " ".join(TOKEN.findall(expanded(f"{self.left} {self.row}", macros)))

    def digest(self, macros: dict[str, tuple[int, str]]) -> str:
        """The SHA-256 of the statement: white space and comments do not count, what a macro prints does."""
        return hashlib.sha256(self.statement(macros).encode()).hexdigest()


def without_comments(tex: str) -> str:
    """LaTeX without what stands behind a % that is not escaped."""
    return re.sub(r"(?<!\\)((?:\\\\)*)%.*", r"\1", tex)


def read(tex: str) -> list[Display]:
    """All displayed equations, one for each row that has a number.

    Raises:
        ValueError: a display without a number, a row without exactly one label, or a label of another form.
    """
    tex = without_comments(tex)
    if found := UNNUMBERED.search(tex):
        raise ValueError(f"a display that has no number: {found[0]}")
    displays = []
    for environment, body in ENVIRONMENT.findall(tex):
        left = ""
        for row in _rows(body) if environment in ROWS else [body]:
            labels = LABEL.findall(row)
            if len(labels) != 1 or not SLUG.fullmatch(labels[0]):
                raise ValueError(f"a row of {environment} needs one label eq:<slug>, found {labels}: {row.strip()}")
            row = LABEL.sub("", row).strip()
            goes_on = environment in ROWS and row.startswith("&")
            displays.append(Display(labels[0], row, left if goes_on else ""))
            left = left if goes_on else row.partition("&")[0].strip()
    inside = {display.label for display in displays}
    if elsewhere := sorted({label for label in LABEL.findall(tex) if label.startswith("eq:")} - inside):
        raise ValueError(f"labels of equations outside a display: {elsewhere}")
    return displays


def of_report(folder: Path) -> dict[str, Display]:
    """The displays of all sections by label.

    Raises:
        InputError: a file has a display that `read` refuses, two have one label, or something else than the one
            definition in the preamble that `macros_of` reads gives a meaning to what they print.
    """
    displays: dict[str, Display] = {}
    for path in sorted(folder.rglob("*.tex")):
        try:
            for display in read(path.read_text()):
                if display.label in displays:
                    raise ValueError(f"the label {display.label} stands twice in the report; give one another name")
                displays[display.label] = display
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
    _defined_once(folder, displays.values())
    return displays


def _defined_once(folder: Path, displays: Iterable[Display]) -> None:
    """Refuses what could make LaTeX print something else than `Display.statement`.

    Names that TeX puts together from parts are not followed, nor is what packages do.
    """
    preamble = folder / "preamble.tex"
    macros = macros_of(preamble.read_text()) if preamble.is_file() else {}
    used = " ".join(part for display in displays for part in (display.row, display.left, display.statement(macros)))
    names = {"equation", *ROWS, *re.findall(r"\\(?:begin\{)?([a-zA-Z]+)", used)}
    defined = set()
    for path in sorted(folder.rglob("*.tex")):
        tex = without_comments(path.read_text())
        for found in DEFINITION.finditer(tex):
            if found[1] and found[1] not in names:
                continue
            if path != preamble or found[1] in defined or not MACRO.match(tex, found.start()):
                line = tex.count("\n", 0, found.start()) + 1
                raise InputError(
                    f"{path}:{line}: expected that what displays print is defined once, in preamble.tex by "
                    rf"\newcommand{{\name}} or \DeclareMathOperator{{\name}}, found {found[0]} {found[1] or ''}"
                )
            defined.add(found[1])


def macros_of(preamble: str) -> dict[str, tuple[int, str]]:
    r"""Number of arguments and body of each \newcommand, and each operator's name."""
    preamble, macros = without_comments(preamble), {}
    for found in MACRO.finditer(preamble):
        name, arguments, operator = found.groups()
        body, _ = _group(preamble, found.end() - 1)
        macros[operator or name] = (int(arguments or 0), rf"\operatorname{{{body}}}" if operator else body)
    return macros


def expanded(tex: str, macros: dict[str, tuple[int, str]]) -> str:
    """LaTeX in which the macros stand for what they print; arguments are in braces, as the report has them."""
    position = 0
    while found := COMMAND.search(tex, position):
        position = found.end()
        if found[0] in macros:
            count, body = macros[found[0]]
            for number in range(1, count + 1):
                argument, position = _group(tex, position)
                body = body.replace(f"#{number}", argument)
            tex, position = tex[: found.start()] + body + tex[position:], found.start()
    return tex


def digests(report: Path) -> dict[str, str]:
    """The digest of each display by label, of the report's folder."""
    preamble = report / "preamble.tex"
    macros = macros_of(preamble.read_text()) if preamble.is_file() else {}
    return {label: display.digest(macros) for label, display in sorted(of_report(report).items())}


def _rows(body: str) -> Iterator[str]:
    """What stands between row breaks; one inside cases or a matrix ends no row of the display."""
    masked = body
    while found := NESTED.search(masked):
        masked = masked[: found.start()] + "x" * len(found[0]) + masked[found.end() :]
    start = 0
    for end in (*(m.start() for m in re.finditer(r"\\\\", masked)), len(body)):
        yield body[start:end]
        start = end + 2


def _group(tex: str, position: int) -> tuple[str, int]:
    """What stands in the braces that open at a position, and where it goes on behind them."""
    start = position = tex.index("{", position) + 1
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(tex[position], 0)
        position += 1
    return tex[start : position - 1], position
