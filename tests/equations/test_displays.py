"""Each display as it is printed: evaluated against the code, or the one that its test was written for."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from .evaluate import Indexed, Meaningless, NotTrue, Scene
from .grammar import NotReadable, parse
from .labels import digests, marks, statements
from .scenes import SCENES, scenes

SOURCES = [path.read_text() for path in sorted(Path(__file__).parent.glob("test_*.py"))]


def evaluated(label: str) -> object:
    """A case of the test below; the first line of the scene's docstring says what the display is held against."""
    scene = SCENES[label]
    says = (scene.func if isinstance(scene, partial) else scene).__doc__.splitlines()[0]
    return pytest.param(label, marks=pytest.mark.equation(label, how="evaluated", what=says))


@pytest.mark.parametrize("label", [evaluated(label) for label in SCENES])
def test_display_is_true(label: str):
    """All sides, as they are printed, have the values that the code or PyTorch gives, for all indices."""
    statement = parse(statements()[label])
    for scene in scenes(label):
        scene.check(statement)


@pytest.mark.parametrize("label", SCENES)
def test_draws_differ(label: str):
    """Each scalar, size and number of layers has two values at least, and whole numbers differ from one another.

    But Adam's means and shares are two by definition.
    """
    seen: dict[object, set] = {}
    for scene in scenes(label):
        whole = [value for value in scene.values.values() if isinstance(value, int)]
        assert len(whole) == len(set(whole)), scene.values
        for name, value in scene.values.items():
            array = value.array if isinstance(value, Indexed) else value
            if isinstance(array, dict):
                seen.setdefault((name, "layers"), set()).add(tuple(array))
            elif isinstance(array, int | float):
                seen.setdefault(name, set()).add(array)
                assert array not in (0, 1) or name in ("h", "v", "tau", "kappa") or isinstance(name, tuple), name
            elif isinstance(array, np.ndarray) and name not in ("zeta", "psi", "hat psi"):
                for axis, size in enumerate(array.shape):
                    seen.setdefault((name, "axis", axis), set()).add(size)
        for name, values in scene.ranges.items():
            seen.setdefault((name, "range"), set()).add(values)
    assert [name for name, found in seen.items() if len(found) < 2] == []


def test_every_display_is_evaluated_or_written_for():
    """A new display needs a scene, or a test that names its digest; a scene or a mark of no display is idle."""
    written = {arguments[0] for source in SOURCES for arguments, _, _ in marks(source, "written_for")}
    checked = {label for source in SOURCES for arguments, _, _ in marks(source, "equation") for label in arguments}
    assert sorted(digests().keys() - SCENES.keys() - written) == [], "no scene, and no test that names the digest"
    assert sorted((SCENES.keys() | written | checked) - digests().keys()) == [], "not displayed"
    assert sorted(SCENES.keys() & written) == [], "evaluated, so that no digest is needed"
    assert sorted(written - checked) == [], "written for, but of no test's `equation`"


def test_every_check_says_what_it_does():
    """The table of checks prints the first line of each docstring, and how it checks."""
    for source in SOURCES:
        for labels, keywords, docstring in marks(source, "equation"):
            assert docstring and docstring.splitlines()[0].isascii(), labels
            assert keywords["how"] in ("symbolic", "numeric", "both"), labels


A = np.array([[2.0, 3.0, 5.0], [7.0, 11.0, 13.0]])
V, U = np.array([2.0, -3.0, 4.0]), np.array([5.0, 7.0])
SMALL = Scene(
    {
        "A": A,
        "x": V,
        "y": U,
        "c": 2.0,
        "n": 3,
        "1": np.ones(2),
        "z": Indexed(np.array([1.0, 4.0]), (0,), 0.0),
        ("L", "x"): np.array([1.0, 2.0, 3.0]),
        ("y", "x"): A,
        ("y", "x", "c"): 2 * A,
    },
    {"i": range(1, 3), "k": range(1, 4), "p": range(2)},
    after={"c": 16.0},
)
# Each is a number that can be found by hand.
TRUE = (
    r"\sum _ k A _ { 1 , k } = 1 0",
    r"\sum _ { k = 1 } ^ { n } x _ k = 3",
    r"\sum _ { k = 2 } ^ n x _ k = 1",
    r"\sum _ i \sum _ k A _ { i k } = 4 1",
    r"\sum _ { i , k } A _ { i k } = 4 1",
    r"\sum _ k x _ k + 1 = 4",  # a sum ends before a plus
    r"2 \sum _ k x _ k c = 1 2",
    r"- x _ 2 ^ 2 = - 9",
    r"\max _ k x _ k - \min ( x _ 1 , x _ 2 ) = 7",
    r"\frac 1 2 c = 1",
    r"\frac { c } { 4 } = 1 / 2",
    r"1 / c c = 1",  # from the left
    r"\log e ^ { c } = c",
    r"\log ( e ^ { c } ) c = c \log e ^ { c }",
    r"\sqrt { c + 2 } = c",
    r"[ c > 2 ] = 0",
    r"[ c \ge 2 ] = 1",
    r"| x _ 2 | = 3",
    r"| \bm { A } | = 6",
    r"\bm { A } \bm { x } = \bm { A } \operatorname{diag} ( \bm { x } ) \bm { A } ^ { \top } \bm { 1 }"
    r" - \bm { A } \operatorname{diag} ( \bm { x } ) \bm { A } ^ { \top } \bm { 1 } + \bm { A } \bm { x }",
    r"\bm { x } ^ { \top } \bm { x } = 2 9",
    r"\bm { x } \odot \bm { x } \oslash \bm { x } = \bm { x }",
    r"\frac { \partial \bm { y } } { \partial \bm { x } } = \bm { A }",
    r"\frac { \partial y _ i } { \partial x _ k } = A _ { i k }",
    r"\frac { \partial y _ i } { \partial x _ k } | _ { c } = 2 A _ { i k }",
    r"\frac { \partial L } { \partial x _ k } = k",
    r"\frac { \partial } { \partial c } ( c ^ 2 + c ) = 5",
    r"z _ { p } + z _ { p + 1 } = \begin{cases} 5 , & p = 0 , \\ 4 , & \text{else.} \end{cases}",
    r"\delta _ { i k } = 1 , \qquad ( i = k )",
    r"c \leftarrow c ^ 4",
    r"k = 1 , \dots , n , \qquad \frac { \partial L } { \partial x _ k } = k",
)
FALSE = (
    r"\sum _ k A _ { 2 , k } = 1 0",
    r"x _ k = x _ 1",  # for all k
    r"k = 1 , \dots , 2 , \qquad \frac { \partial L } { \partial x _ k } = k",
    r"\frac { \partial y _ i } { \partial x _ k } | _ { c } = A _ { i k }",
    r"c \leftarrow c ^ 3",
    r"\bm { A } = \bm { x }",
)
MEANINGLESS = (
    r"\bm { A } ^ { \top } \bm { x } = 0",
    r"x = 1",  # an array without an index is no number
    r"x _ { 4 } = 1",
    r"c = \text{any}",
    r"A _ { 3 , k } = 1",
    r"w = c",
    r"\bm { x } _ k = 2",  # an element is not bold
    r"x _ i = 2",  # i runs over another axis
    r"c = \begin{cases} 2 , & c > 1 , \\ 2 , & c < 3 . \end{cases}",
    r"\frac { \partial L } { \partial x _ k } | _ { c = 1 } = k",
    r"c + \bm { x } = c",
    r"\bm { x } \odot \bm { y } = 1",
    r"x _ k = c , \qquad ( k > 5 )",  # for no k
    r"x _ k = x _ k \sum _ k x _ k / 3",  # k is free too
    r"\sum _ k \sum _ k x _ k = 9",
    r"\sum _ { n = 1 } ^ { n } x _ n = 3",
)
UNREADABLE = (
    "c",
    r"c \sim 1",
    r"c = = c",
    r"c = c",
    r"( c = c",
    r"\bm { A } _ i _ k = c",
    r"\log c c = 2 \log c",  # of c, or of its square
)


@pytest.mark.parametrize("statement", TRUE)
def test_true(statement: str):
    SMALL.check(parse(statement))


@pytest.mark.parametrize(
    ("statement", "error"),
    [(s, NotTrue) for s in FALSE] + [(s, Meaningless) for s in MEANINGLESS] + [(s, NotReadable) for s in UNREADABLE],
)
def test_not_true(statement: str, error: type[Exception]):
    """Other values, no value, and no mathematics are told apart."""
    with pytest.raises(error):
        SMALL.check(parse(statement))
