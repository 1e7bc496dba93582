"""The mutants of displays are those that a slip makes, and a sample of them dies; all are run by `make mutants`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mutate_displays
from display_mutants import generate
from equations.grammar import parse
from equations.labels import statements
from equations.scenes import scenes

from cifar_report.study.displays import Display, macros_of

MACROS = macros_of(
    r"""\newcommand{\vx}{\bm{x}} \newcommand{\mW}{\bm{W}} \newcommand{\tr}{^{\top}} \newcommand{\had}{\odot}
    \newcommand{\pd}[2]{\frac{\partial #1}{\partial #2}} \newcommand{\layer}[1]{^{(#1)}}"""
)
SLIPS = {
    r"x_i - y_j": {
        "x _ i + y _ j",
        "x _ j - y _ j",
        "y _ i - y _ j",
        "x - y _ j",
        "x _ i",
        "- y _ j",
        r"\bm { x } _ i - y _ j",
    },
    r"\mW\tr\vx": {r"\mW \vx", r"\mW \tr ( \vx ) \tr", r"\mW \tr", r"\vx", r"\vx \tr \vx"},
    r"\vx\had\mW": {r"\vx \mW"},
    r"\sum_{s=1}^{B}W_{sk}": {
        r"W _ { s k }",
        r"\sum _ { s = 2 } ^ { B } W _ { s k }",
        r"\sum _ { s = 1 } ^ { B } W _ { k s }",
    },
    r"x_i\sum_k W_{ik}x_k+y_k": {r"x _ i \sum _ i W _ { i i } x _ i + y _ k"},
    r"\frac{a}{b}": {r"\frac { b } { a }", r"\frac { b } { b }", r"\frac { a _ i } { b }"},
    r"\sqrt{a+b}": {"( a + b )", r"\sqrt { a - b }", r"\sqrt { a }", r"\sqrt { b }"},
    r"\max_k x_k": {r"\min _ k x _ k"},
    r"\vx\layer{l+1}-\vx\layer{l}": {
        r"\vx \layer { l } - \vx \layer { l }",
        r"\vx \layer { l - 1 } - \vx \layer { l }",
    },
}


@pytest.mark.parametrize("row", SLIPS)
def test_slips_are_among_the_mutants(row: str):
    """Signs, indices, transposes, terms, factors, symbols, bounds, fractions, roots and layers."""
    mutants = [mutant.display.row for mutant in generate(Display("eq:x", row, ""), MACROS)]
    assert SLIPS[row] <= set(mutants)
    assert len(mutants) == len(set(mutants))


def test_a_sample_is_killed():
    """Every so many, by values or by the digest; without Adam's, for whose steps PyTorch imports for seconds."""
    reasons = mutate_displays.equivalents()
    chosen = [m for m in mutate_displays.mutants()[::60] if "adam" not in m.display.label and m.name not in reasons]
    assert len(chosen) > 50
    assert [m.name for m in chosen if not mutate_displays.fate(m)] == []


def test_equivalent_mutants_are_mutants():
    """A name of none is out of date, as after a change of the display."""
    names = {mutant.name for mutant in mutate_displays.mutants()}
    assert sorted(mutate_displays.equivalents().keys() - names) == []


# Shifting by any number changes no softmax, Nesterov's m falls out of the row, and a sum that is zero has any mean.
ANYTHING = {("eq:softmax-invariance", "xi"), ("eq:nesterov-cancelled", "m"), ("eq:bn-zero-mean", "B")}


def test_nothing_stands_for_a_letter():
    """A number that a letter has in a draw, or another letter, in its place: a display is not true of both draws."""
    survivors, tried = set(), 0
    for label in mutate_displays.SCENES:
        tree, every = parse(statements()[label]), scenes(label)
        letters = {name for scene in every for name, v in scene.values.items() if isinstance(v, int | float)}
        letters = {name for name in letters if isinstance(name, str)}
        for name in letters:
            symbols = [("symbol", other, False, (), None) for other in letters - {name}]
            for instead in [*symbols, *(("number", scene.values[name]) for scene in (every[0], every[-1]))]:
                changed = _replaced(tree, ("symbol", name, False, (), None), instead)
                if changed != tree:
                    tried += 1
                    try:
                        for scene in every:
                            scene.check(changed)
                        survivors.add((label, name))
                    except (AssertionError, ValueError):
                        pass
    assert survivors == ANYTHING
    assert tried > 300


def _replaced(tree, symbol, instead):
    if tree == symbol or not isinstance(tree, tuple):
        return instead if tree == symbol else tree
    return tuple(_replaced(part, symbol, instead) for part in tree)
