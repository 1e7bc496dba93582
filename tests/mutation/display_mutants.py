r"""Mutants of the displayed equations: every small change of a row's LaTeX that a slip of the pen could make."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from cifar_report.study.displays import TOKEN, Display

Macros = dict[str, tuple[int, str]]
OPENING = {"{": "}", "(": ")", "[": "]"}
ARGUMENTS = {r"\frac": 2, r"\dfrac": 2, r"\sqrt": 1} | dict.fromkeys(
    (r"\bm", r"\hat", r"\tilde", r"\bar", r"\check", r"\mathcal"), 1
)
SPACES = re.compile(r"\\[,;:!]|\\[bB]ig+[lrm]?")
OPERATORS = (r"\sum", r"\exp", r"\top", r"\iverson", r"\sim")
SKIP = re.compile(r"\\\\\[[\w.]+\]")  # between the rows of cases
SEPARATORS = {"=", "<", ">", ",", ".", "&", "|", ":", r"\le", r"\ge", r"\ne", r"\qquad", r"\quad", r"\leftarrow", r"\\"}
SEPARATORS |= {r"\dots", r"\begin{cases}", r"\end{cases}"}
OTHERS = {r"\max": r"\min", r"\min": r"\max", r"\had": "", r"\oslash": r"\had", r"\le": r"\ge", r"\ge": r"\le"}
OTHERS |= {"<": ">", ">": "<", r"\ne": "=", r"\log": "", r"\cos": "", r"\diag": "", r"\leftarrow": "="}
NAME = re.compile(r"[a-zA-Z]")


@dataclass(frozen=True)
class DisplayMutant:
    """A changed row, and what kind of change it is."""

    display: Display
    rule: str

    @property
    def name(self) -> str:
        """Label and changed row: what `equivalent_displays.yaml` calls it."""
        return f"{self.display.label}: {self.display.row}"


def generate(display: Display, macros: Macros) -> list[DisplayMutant]:
    """All mutants of a display that state something else, in the order of the row; the left side goes on unchanged."""
    tokens = TOKEN.findall(SKIP.sub(r"\\\\", display.row))
    row = _Row([token for token in tokens if not SPACES.fullmatch(token)], macros)
    unchanged = replace(display, row=" ".join(row.tokens))
    seen, mutants = {unchanged.statement(macros)}, []
    for rule, start, end, instead in row.changes():
        changed = replace(display, row=" ".join([*row.tokens[:start], *instead, *row.tokens[end:]]))
        if (statement := changed.statement(macros)) not in seen:
            seen.add(statement)
            mutants.append(DisplayMutant(changed, rule))
    return mutants


Change = tuple[str, int, int, list[str]]  # the rule, which tokens go, and what stands in their place


class _Row:
    """The tokens of a row, and how they belong together."""

    def __init__(self, tokens: list[str], macros: Macros):
        self.tokens = tokens
        self.arguments = {name: count for name, (count, _) in macros.items()} | ARGUMENTS
        # A macro without arguments that prints one letter is a name, as a letter is.
        prints = re.compile(r"(?:\\(?:bm|tilde|hat|bar|check)\{)*(?:[a-zA-Z]|\\[a-z]+)\}*")
        self.names = {n for n, (count, body) in macros.items() if not count and prints.fullmatch(body)}
        self.names -= {r"\had", r"\Mean", r"\Var"}
        self.bold = {n for n in self.names if r"\bm" in macros[n][1]}
        self.match: dict[int, int] = {}
        waiting: list[int] = []
        for i, token in enumerate(tokens):
            if token in OPENING:
                waiting.append(i)
            elif waiting and token == OPENING[tokens[waiting[-1]]]:
                self.match[waiting.pop()] = i
        # So is a command that takes nothing and is no operator: a Greek letter.
        known = {*self.arguments, *SEPARATORS, *OTHERS, *OPERATORS}
        self.greek = {token for token in tokens if re.fullmatch(r"\\[a-zA-Z]+", token)} - known

    def changes(self) -> Iterator[Change]:
        """All changes, also such as LaTeX could not print or as change nothing."""
        yield from self._tokens()
        yield from self._indices()
        yield from self._region(0, len(self.tokens))

    def _is_name(self, i: int) -> bool:
        token = self.tokens[i]
        return bool(NAME.fullmatch(token)) or token in self.names or token in self.greek

    def _tokens(self) -> Iterator[Change]:
        """One token for another: a sign, a number, an operator, a name."""
        subscripted = self._subscripted()
        names = list(dict.fromkeys(t for i, t in enumerate(self.tokens) if self._is_name(i) and i not in subscripted))
        for i, token in enumerate(self.tokens):
            if token in "+-":
                yield "sign", i, i + 1, ["-" if token == "+" else "+"]
            if re.fullmatch(r"\d", token):
                yield "number", i, i + 1, [str((int(token) + 1) % 10)]
            if token in OTHERS:
                yield "operator", i, i + 1, [OTHERS[token]] if OTHERS[token] else []
            if token == r"\tr":
                yield "transpose dropped", i, i + 1, []
            if token in self.bold and r"\tr" not in self.tokens[self._unit(i) - 1 : self._unit(i) + 1]:
                end = self._unit(i)
                yield "transpose added", i, end, ["(", *self.tokens[i:end], ")", r"\tr"]
            if token in (r"\frac", r"\dfrac"):
                first = self._argument(i + 1)
                second = self._argument(first)
                swapped = [*self.tokens[first:second], *self.tokens[i + 1 : first]]
                if self.tokens[first] == "{" and self.tokens[i + 1] == "{":
                    yield "fraction upside down", i + 1, second, swapped
            if token == r"\sqrt":
                end = self._argument(i + 1)
                inside = self.tokens[i + 2 : end - 1] if self.tokens[i + 1] == "{" else [self.tokens[i + 1]]
                yield "root dropped", i, end, ["(", *inside, ")"]
            if self._is_name(i) and i not in subscripted:
                if token not in self.bold:
                    yield "bold added", i, i + 1, [r"\bm", "{", token, "}"]
                at = names.index(token)
                for other in {names[(at + 1) % len(names)], names[at - 1]} - {token}:
                    yield "another symbol", i, i + 1, [other]

    def _subscripted(self) -> set[int]:
        """The places of all tokens that stand in a subscript."""
        found: set[int] = set()
        for i, token in enumerate(self.tokens):
            if token == "_":
                found |= set(range(i + 1, self._argument(i + 1)))
        return found

    def _indices(self) -> Iterator[Change]:
        """In a subscript: another index, two of them swapped, one left out; all of it left out; another layer.

        An index is added where there is none. And the index of a sum or maximum, wherever it stands under it, is
        another one of the display.
        """
        letters = list(dict.fromkeys(self.tokens[i] for i in sorted(self._subscripted()) if self._is_name(i)))
        layers = [self.tokens[i : self._argument(i + 1)] for i, t in enumerate(self.tokens) if t == r"\layer"]
        subscripted = self._subscripted()
        for i, token in enumerate(self.tokens):
            if self._is_name(i) and i not in subscripted:
                end = i + 1
                while self.tokens[end : end + 1] == ["'"]:
                    end += 1
                if self.tokens[end : end + 1] != ["_"]:
                    yield "index added", end, end, ["_", letters[0] if letters else "i"]
            if token in (r"\sum", r"\max", r"\min") and self.tokens[i + 1] == "_":
                running, end = self.tokens[i + 2 : self._argument(i + 2)], self._product(i)
                for index in [name for name in running[: (*running, "=").index("=")] if name in letters]:
                    for other in letters:
                        under = [other if name == index else name for name in self.tokens[i:end]]
                        yield "another index of a sum", i, end, under
            if token == "_":
                end = self._argument(i + 1)
                inside = [k for k in range(i + 1, end) if self._is_name(k)]
                for k in inside:
                    at = letters.index(self.tokens[k])
                    for other in {letters[(at + 1) % len(letters)], letters[at - 1]} - {self.tokens[k]}:
                        yield "another index", k, k + 1, [other]
                    if len(inside) > 1:
                        yield "index dropped", k, k + 1, []
                for k, after in pairwise(inside):
                    if after == k + 1:
                        yield "indices swapped", k, after + 1, [self.tokens[after], self.tokens[k]]
                yield "subscript dropped", i, end, []
            if token == r"\layer":
                own = self.tokens[i : self._argument(i + 1)]
                for other in [layer for layer in layers if layer != own][:2]:
                    yield "another layer", i, i + len(own), other

    def _argument(self, i: int) -> int:
        """Where the argument that begins at i ends."""
        if i >= len(self.tokens):
            return i
        return self.match[i] + 1 if self.tokens[i] == "{" else i + 1

    def _unit(self, i: int) -> int:
        """Where the symbol, command or bracket that begins at i ends, with its arguments and scripts."""
        token = self.tokens[i]
        if token in OPENING and i in self.match:
            end = self.match[i] + 1
        else:
            end = i + 1
            for _ in range(self.arguments.get(token, 0)):
                end = self._argument(end)
        while end < len(self.tokens):
            if self.tokens[end] in ("_", "^", r"\layer"):
                end = self._argument(end + 1)
            elif self.tokens[end] in ("'", r"\tr"):
                end += 1
            elif self.tokens[end : end + 2] == ["|", "_"]:
                end = self._argument(end + 2)
            else:
                break
        return end

    def _product(self, i: int) -> int:
        """Where the product ends that a sum at i is the first factor of."""
        closing = {*OPENING.values(), *SEPARATORS, "+", "-"}
        while i < len(self.tokens) and self.tokens[i] not in closing:
            i = self._unit(i)
        return i

    def _region(self, start: int, end: int) -> Iterator[Change]:
        """Factors and terms left out, between two separators, and inside of every unit."""
        terms: list[tuple[int, list[tuple[int, int]]]] = [(start, [])]  # where each begins, its sign included
        i = start
        while i < end:
            token = self.tokens[i]
            if token in SEPARATORS:
                yield from self._drop(terms, i)
                terms = [(i + 1, [])]
                i += 1
            elif token in "+-":
                if terms[-1][1] or len(terms) > 1:
                    terms.append((i, []))
                i += 1
            else:
                after = min(self._unit(i), end)
                terms[-1][1].append((i, after))
                for k in range(i, after):
                    if self.tokens[k] in OPENING and k in self.match and self.match[k] < after:
                        before = self.tokens[k - 1] if k else ""
                        if before not in ("_", r"\layer"):
                            yield from self._region(k + 1, self.match[k])
                i = after
        yield from self._drop(terms, end)

    def _drop(self, terms: list[tuple[int, list[tuple[int, int]]]], end: int) -> Iterator[Change]:
        ends = [*(begin for begin, _ in terms[1:]), end]
        for (begin, factors), after in zip(terms, ends, strict=True):
            if len(terms) > 1 and factors:
                # Without the first term the next sign goes too, if it is a plus.
                plus = begin == terms[0][0] and after < end and self.tokens[after] == "+"
                yield "term dropped", begin, after + plus, []
            if len(factors) > 1:
                for first, last in factors:
                    yield "factor dropped", first, last, []
