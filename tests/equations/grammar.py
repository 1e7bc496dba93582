r"""The mathematics of the report's displays as syntax trees: what LaTeX prints, read as a mathematician reads it.

A tree is a tuple whose first entry says what it is: `("sum", indices, body)`. A product is read from the left, a sum
takes the product that follows it, a function the next factor, and bold letters are whole vectors and matrices. After a
function whose argument is in no brackets no other factor may stand: readers would differ on whether it belongs to it.
"""

import re
from functools import cache
from typing import Any

import pyparsing as pp

Tree = tuple[Any, ...]
pp.ParserElement.enable_packrat(None)

SPACE = re.compile(
    r"(?<!\\)\\[,;:! ]|~|\\(?:[bB]igg?[lrm]?|left|right|displaystyle)(?![a-zA-Z])|(?<=\\\\) \[ (?:[\w.] )+\]"
)
GREEK = "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma varsigma tau phi"
GREEK += " varphi chi psi omega Sigma Omega Gamma Delta"
RELATIONS = {r"\le": "<=", r"\leq": "<=", r"\ge": ">=", r"\geq": ">=", r"\ne": "!=", r"\neq": "!=", "<": "<", ">": ">"}
RELATIONS |= {"=": "="}
FUNCTIONS = ("log", "exp", "cos", "sin")


class NotReadable(ValueError):
    """A display that is no mathematics of this grammar."""


@cache
def parse(statement: str) -> tuple[Tree, ...]:
    r"""The statements of a display, which \quad and \qquad keep apart, each

    - `("equal", sides)`: all are equal;
    - `("becomes", side, side)`: the value after a step is this, of the values before it;
    - `("range", index, first, last)`: the display holds for an index that runs from one to the other, in steps of one;
    - `("where", comparison)`: it holds where this is true.

    Raises:
        NotReadable: it has something else.
    """
    text = SPACE.sub(" ", statement)
    text = re.sub(r"\\dfrac|\\tfrac", r"\\frac", text)
    parts = [part.strip(" ,.;&") for part in _parts(text)]
    try:
        found = [PART.parse_string(part.replace("&", " ") if "cases" not in part else part, True)[0] for part in parts]
    except (pp.ParseBaseException, RecursionError) as error:
        where = getattr(error, "pstr", "")[getattr(error, "loc", 0) :][:40]
        raise NotReadable(f"cannot be read from '{where}'") from error
    if len(found) > 1 and found[0][0] == "text":  # a name in words, and what it is
        found = [("equal", (found[0], found[1][1][0])), *found[2:]]
    if any((part[0] == "equal" and len(part[1]) < 2) or part[0] == "text" for part in found):
        raise NotReadable("states nothing: a part has no relation")
    if any(part[0] == "equal" and len(set(part[1])) < len(part[1]) for part in found):
        raise NotReadable("states nothing: two sides are the same")
    return tuple(found)


def _parts(text: str) -> list[str]:
    """The display between \\quad, but not inside braces or cases."""
    parts, depth, start = [], 0, 0
    for found in re.finditer(r"\\begin\{\w+\}|\\end\{\w+\}|\{|\}|\\q?quad\b", text):
        token = found[0]
        if token in ("{", "}") or token.startswith((r"\begin", r"\end")):
            depth += 1 if token == "{" or token.startswith(r"\begin") else -1
        elif depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    # `&` after the relation of a row: only between two columns of cases has it a meaning.
    return [part if r"\begin{cases}" not in part else _one_column(part) for part in (*parts, text[start:])]


def _one_column(part: str) -> str:
    before, begin, rest = part.partition(r"\begin{cases}")
    return before.replace("&", " ") + begin + rest


def _grammar() -> pp.ParserElement:
    def command(*names: str) -> pp.ParserElement:
        return pp.Regex(r"\\(?:" + "|".join(names) + r")(?![a-zA-Z])")

    def skip(text: str) -> pp.ParserElement:
        return pp.Suppress(pp.Literal(text))

    def braced(inside: pp.ParserElement) -> pp.ParserElement:
        return skip("{") + inside + skip("}")

    def node(kind: str):
        return lambda tokens: [(kind, *tokens)]

    expression, factor, product, comparison = pp.Forward(), pp.Forward(), pp.Forward(), pp.Forward()
    digit = pp.Regex(r"\d").set_parse_action(lambda t: [("number", int(t[0]))])
    number = pp.Combine(pp.OneOrMore(pp.Regex(r"\d")), adjacent=False)
    number = number.set_parse_action(lambda t: [("number", int(t[0]))])

    # Names: ("name", as in `hat x'`, whether it is bold).
    letter = pp.Regex(r"[a-zA-Z1](?![a-zA-Z])") | command(*GREEK.split()).set_parse_action(lambda t: t[0][1:])
    plain = pp.Regex(r"[a-zA-Z]") | command(*GREEK.split()).set_parse_action(lambda t: t[0][1:])
    name = pp.Forward()
    bold = (pp.Suppress(command("bm")) + braced(letter)).set_parse_action(lambda t: [(t[0], True)])
    accent = (command("tilde", "hat", "bar", "check", "mathcal") + (braced(name) | name)).set_parse_action(
        lambda t: [(f"{t[0][1:]} {t[1][0]}", t[1][1])]
    )
    bare = plain.copy().set_parse_action(lambda t: [(t[0].lstrip("\\"), False)])
    name <<= (bold | accent | bare) + pp.ZeroOrMore(pp.Literal("'"))
    name.set_parse_action(lambda t: [(t[0][0] + "".join(t[1:]), t[0][1])])

    # Indices: letters side by side are one each, and whatever has a sign, a digit or a comma stands between commas.
    index = (plain.copy() + pp.ZeroOrMore("'")).set_parse_action(
        lambda t: [("symbol", "".join(t).lstrip("\\"), False, (), None)]
    )
    side_by_side = pp.OneOrMore(index) + pp.FollowedBy(pp.Literal(",") | pp.Literal("}"))
    indices = braced(pp.DelimitedList(side_by_side | expression)) | index | digit
    subscript = (skip("_") + indices).set_parse_action(lambda t: [("sub", tuple(t))])
    layer = (skip("^") + braced(skip("(") + expression + skip(")"))).set_parse_action(node("layer"))
    transposed = (skip("^") + braced(command("top"))).set_parse_action(lambda t: [("transposed",)])
    power = (skip("^") + (braced(expression) | digit | index)).set_parse_action(node("power"))
    script = subscript | layer | transposed | power

    argument = braced(expression) | digit | name.copy().add_parse_action(lambda t: [("symbol", *t[0], (), None)])

    # Derivatives: of a name by a name, and what is held fixed, or where it is taken.
    differential = pp.Suppress(command("partial")) + factor
    held = skip("|") + skip("_") + (braced(pp.Group(pp.DelimitedList(comparison | factor))) | pp.Group(factor))
    derivative = (
        pp.Suppress(command("frac")) + braced(differential) + braced(differential) + pp.Opt(held)
    ).set_parse_action(lambda t: [("derivative", t[0], t[1], tuple(t[2]) if len(t) > 2 else ())])
    operator = pp.Suppress(command("frac")) + braced(pp.Suppress(command("partial"))) + braced(differential)
    operator = (operator + skip("(") + expression + skip(")")).set_parse_action(node("differentiate"))
    fraction = (pp.Suppress(command("frac")) + argument + argument).set_parse_action(node("quotient"))

    # Sums and maxima over indices.
    between = (
        expression + pp.Suppress(command("leq?")) + pp.Group(pp.DelimitedList(index)) + pp.Suppress(command("leq?"))
    )
    between = (between + expression).set_parse_action(lambda t: [tuple((i, t[0], t[2]) for i in t[1])])
    bounds = skip("_") + braced(index + skip("=") + expression) + skip("^") + (braced(expression) | digit | index)
    bounds = bounds.set_parse_action(lambda t: [((t[0], t[1], t[2]),)])
    over = skip("_") + (braced(pp.Group(pp.DelimitedList(index))) | pp.Group(index))
    over = over.set_parse_action(lambda t: [tuple((i, None, None) for i in t[0])])
    running = bounds | (skip("_") + braced(between)) | over
    total = (command("sum", "max", "min") + running + product).set_parse_action(lambda t: [(t[0][1:], t[1], t[2])])

    functions = command(*FUNCTIONS)
    function = (functions + (total | factor)).set_parse_action(lambda t: [("function", t[0][1:], (t[1],))])
    several = command("max", "min") + skip("(") + pp.DelimitedList(expression) + skip(")")
    several = several.set_parse_action(lambda t: [("function", t[0][1:], tuple(t[1:]))])
    diagonal = (pp.Suppress(pp.Literal(r"\operatorname{diag}")) + skip("(") + expression + skip(")")).set_parse_action(
        lambda t: [("function", "diag", (t[0],))]
    )
    root = (pp.Suppress(command("sqrt")) + argument).set_parse_action(lambda t: [("function", "sqrt", (t[0],))])
    absolute = (skip("|") + expression + skip("|")).set_parse_action(lambda t: [("function", "abs", (t[0],))])
    bracket = (skip("(") + expression + skip(")")).set_parse_action(lambda t: [("bracket", t[0])])
    iverson = (skip("[") + comparison + skip("]")).set_parse_action(node("iverson"))
    words = pp.Regex(r"\\text\{(?! ?(?:and|else|otherwise)\b)[^}]*\}").set_parse_action(
        lambda t: [("text", t[0][6:-1].strip(" .,"))]
    )
    symbol = name.copy().add_parse_action(lambda t: [("symbol", *t[0], (), None)])

    along = expression + skip("=") + expression + skip(",") + pp.Suppress(command("dots")) + skip(",") + expression
    along = along.set_parse_action(node("range"))
    conjunction = pp.Suppress(pp.Regex(r"\\text\{ ?and ?\}"))
    otherwise = pp.Suppress(pp.Regex(r"\\text\{ ?(?:else|otherwise)\.? ?\}")).set_parse_action(lambda t: [("always",)])
    condition = otherwise | along | pp.DelimitedList(comparison, conjunction).set_parse_action(node("all"))
    case = (expression + pp.Opt(skip(",")) + skip("&") + condition + pp.Opt(skip(",") | skip("."))).set_parse_action(
        lambda t: [(t[0], t[1])]
    )
    cases = skip(r"\begin{cases}") + pp.DelimitedList(case, pp.Suppress(pp.Literal("\\\\"))) + skip(r"\end{cases}")
    cases = cases.set_parse_action(node("cases"))

    base = derivative | operator | fraction | total | several | function | diagonal | root | absolute
    base = base | bracket | iverson | cases | words | number | symbol
    factor <<= (base + pp.ZeroOrMore(script)).set_parse_action(lambda t: [_with_scripts(t[0], list(t[1:]))])

    times = command("odot", "oslash", "cdot", "times") | pp.Literal("/")
    product <<= (factor + pp.ZeroOrMore(pp.Group(pp.Opt(times, default="") + factor))).set_parse_action(
        lambda t: [_product(t[0], [(op.lstrip("\\"), right) for op, right in t[1:]])]
    )
    signed = pp.Group(pp.one_of("+ -") + product)
    expression <<= (pp.Group(pp.Opt(pp.one_of("+ -"), default="+") + product) + pp.ZeroOrMore(signed)).set_parse_action(
        lambda t: [("terms", tuple((sign, term) for sign, term in t))] if len(t) > 1 or t[0][0] == "-" else [t[0][1]]
    )
    relation = pp.MatchFirst(
        [pp.Regex(re.escape(r) + r"(?![a-zA-Z])") for r in sorted(RELATIONS, key=len, reverse=True)]
    )
    comparison <<= (expression + relation + expression).set_parse_action(
        lambda t: [("compare", RELATIONS[t[1]], t[0], t[2])]
    )

    equals = pp.Suppress(pp.Literal(": =") | pp.Literal("="))
    equal = pp.DelimitedList(expression, equals).set_parse_action(lambda t: [("equal", tuple(t))])
    becomes = (expression + pp.Suppress(command("leftarrow")) + expression).set_parse_action(node("becomes"))
    where = (skip("(") + comparison + skip(")") + pp.StringEnd()).set_parse_action(node("where"))
    alone = words + pp.StringEnd()
    return alone | where | along | becomes | equal


def _product(first: Tree, rest: list[tuple[str, Tree]]) -> Tree:
    """Factors from the left; none may follow log, exp, cos or sin of what is in no brackets."""
    for factor in [first, *(right for _, right in rest)][:-1]:
        if factor[0] == "function" and factor[1] in FUNCTIONS and factor[2][0][0] != "bracket":
            raise pp.ParseFatalException(f"a factor behind {factor[1]} of what is in no brackets")
    return ("product", first, tuple(rest)) if rest else first


def _with_scripts(base: Tree, scripts: list[Tree]) -> Tree:
    """Subscripts and layers are part of a symbol's name; powers and transposition apply to what stands before them."""
    for script in scripts:
        match script:
            case ("sub", indices) if base[0] == "symbol" and not base[3]:
                base = (*base[:3], indices, base[4])
            case ("layer", number) if base[0] == "symbol" and base[4] is None:
                base = (*base[:4], number)
            case ("transposed",):
                base = ("transposed", base)
            case ("power", exponent):
                base = ("power", base, exponent)
            case _:
                raise pp.ParseFatalException(f"a subscript or layer of what has none: {base[0]}")
    return base


PART = _grammar()
