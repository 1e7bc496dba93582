r"""Python values as LaTeX, and back: the one place that knows its special characters and siunitx's macros."""

import re

from cifar_report.base.letters import composed, is_printed

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "\u2009": r"\,",  # between the thousands
    **{c: "\\" + c for c in "&%$#_{}"},
}

_FLOATS = 30  # lines of a table that keeps to one page


def escape(text: str) -> str:
    """Text as LaTeX prints it literally; a character that the report's fonts lack as its code point, such as U+16A0."""
    return "".join(_ESCAPES.get(c, c if is_printed(c) else rf"\texttt{{U+{ord(c):04X}}}") for c in composed(text))


def num(value: float, digits: int | None = None) -> str:
    r"""A number as siunitx's `\num`, with so many digits after the point; without `digits` as it is."""
    if digits is not None:
        return rf"\num{{{value:.{digits}f}}}"
    return rf"\num{{{value:g}}}" if isinstance(value, float) else rf"\num{{{value}}}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun, in the plural unless it is one."""
    return f"{num(count)} {noun if count == 1 else plural or noun + 's'}"


def plain(text: str) -> str:
    r"""What `escape` and siunitx's macros made, for a terminal: `\qty{89.6 +- 0.4}{\percent}` is 89.6 +- 0.4 %."""
    text = re.sub(r"\\(?:num|texttt)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\qty\{([^{}]*)\}\{\\percent\}", r"\1 %", text)
    for character, escaped in {"x": r"\times", **_ESCAPES}.items():
        text = text.replace(escaped, character)
    return text


def growing(table: str) -> str:
    r"""A tabularx for `\growingtable`: in a float where it is short, else an xltabular, which breaks with the page."""
    opening, head, rows = re.split(r"\\(?:toprule|midrule)\n", table)
    if rows.count("\n") <= _FLOATS:
        return f"\\begin{{table}}[tp]\n\\centering\\footnotesize\\tablehead\n{table}\\end{{table}}\n"
    head = f"\\toprule\n{head}\\midrule\n"
    heads = f"\\tablehead\\\\\n{head}\\endfirsthead\n{head}\\endhead\n\\bottomrule\n\\endfoot\n"
    return (opening + heads + rows.replace("\\bottomrule\n", "")).replace("{tabularx}", "{xltabular}")
