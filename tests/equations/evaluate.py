"""Whether a display is true of given numbers: all its sides, in double precision, for all its indices."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .grammar import Tree

TOLERANCE = 1e-9
COMPARISONS = {
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "<": np.less,
    ">": np.greater,
    "=": np.equal,
    "!=": np.not_equal,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log": np.log,
    "exp": np.exp,
    "cos": np.cos,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "max": max,
    "min": min,
}


class NotTrue(AssertionError):
    """The sides of a relation differ."""


class Meaningless(ValueError):
    """What is printed has no value: shapes that do not fit, an index out of range, a letter without a meaning."""


@dataclass(frozen=True)
class Indexed:
    """An array whose indices begin elsewhere than at one, and that may have a value outside.

    Args:
        first: the first index of each axis.
        outside: the value there; None where there is none.
    """

    array: np.ndarray
    first: tuple[int, ...]
    outside: float | None = None


@dataclass(frozen=True)
class Of:
    """What depends on a scalar, such as a loss on its parameter: a function that takes complex numbers too."""

    name: str
    function: Callable[[Any], Any]


@dataclass
class Scene:
    """The numbers that a display is held against.

    Args:
        values: by name as `grammar` reads it (`hat x'`): scalars, arrays whose indices begin at one, `Indexed`, `Of`,
            functions, and for layers a dictionary by number. What has a value with an index and another without one is
            named with `_` for the first. A derivative is named by a tuple: of what, by what, and what is held fixed.
        ranges: of each index.
        after: the values after a step, for `becomes`.
        sides: how many sides of a relation it is held against, where the last ones are true of special numbers only.
    """

    values: Mapping[Any, Any]
    ranges: Mapping[str, range] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    sides: int | None = None

    def check(self, statements: tuple[Tree, ...]) -> None:
        """Evaluates a display.

        Raises:
            NotTrue: two sides differ, with the indices and both values.
            Meaningless: a side cannot be evaluated.
        """
        try:
            for statement in statements:
                if statement[0] == "range":
                    self._same_range(*statement[1:])
            conditions = [s[1] for s in statements if s[0] == "where"]
            relations = [s for s in statements if s[0] in ("equal", "becomes")]
            with np.errstate(all="ignore"):  # what is not finite is told by the comparison
                checked = [self._relation(s, conditions) for s in relations]
        except (TypeError, LookupError, ValueError, ArithmeticError, AttributeError) as error:
            raise Meaningless(f"cannot be evaluated: {error!r}") from error
        if not all(checked) or not checked:
            raise Meaningless("holds for no index, so it says nothing")

    def _same_range(self, index: Tree, first: Tree, last: Tree) -> None:
        """What the display says of the range of an index must be that range."""
        _must_be_plain(index)
        ends = sorted(int(self.of(end, {})) for end in (first, last))
        if [*range(ends[0], ends[1] + 1)] != [*self.ranges[index[1]]]:
            raise NotTrue(f"{index[1]} runs over {[*self.ranges[index[1]]]}, not from {ends[0]} to {ends[1]}")

    def _relation(self, statement: Tree, conditions: list[Tree]) -> int:
        """Compares the sides for all values of the indices that are free in it; how many there are."""
        sides = statement[1] if statement[0] == "equal" else statement[1:]
        names = sorted(name for name in _names(sides) if name in self.ranges)
        count = 0
        for numbers in itertools.product(*(self.ranges[name] for name in names)):
            indices = dict(zip(names, numbers, strict=True))
            if not all(self.of(condition, indices) for condition in conditions):
                continue
            count += 1
            if statement[0] == "becomes":
                first = Scene(self.after, self.ranges).of(sides[0], indices)
            else:
                first = self.of(sides[0], indices)
            for side in sides[1 : self.sides]:
                _compare(first, self.of(side, indices), indices)
        return count

    def of(self, tree: Tree, indices: Mapping[str, int]) -> Any:
        """The value of a tree: a number, a column or matrix, a function, or a truth value."""
        match tree:
            case ("number", value):
                return value
            case ("symbol", *_):
                return self._symbol(tree, indices)
            case ("text", words):
                return self.values[words]
            case ("bracket", inside):
                return self.of(inside, indices)
            case ("terms", terms):
                total: Any = 0
                for sign, term in terms:
                    value = self.of(term, indices)
                    if np.ndim(value) and np.ndim(total) and np.shape(value) != np.shape(total):
                        raise ValueError(f"a sum of shapes {np.shape(total)} and {np.shape(value)}")
                    if (np.ndim(value) > 0) != (np.ndim(total) > 0) and term is not terms[0][1]:
                        raise ValueError("a sum of a number and a matrix")
                    total = total + value if sign == "+" else total - value
                return total
            case ("product", first, rest):
                value = self.of(first, indices)
                for sign, factor in rest:
                    value = _times(value, sign, self.of(factor, indices))
                return value
            case ("quotient", above, below):
                return _number(self.of(above, indices)) / _number(self.of(below, indices))
            case ("power", base, exponent):
                return _number(self.of(base, indices)) ** _number(self.of(exponent, indices))
            case ("transposed", inside):
                return _matrix(self.of(inside, indices)).T
            case ("function", "diag", (inside,)):
                return np.diag(_column(self.of(inside, indices)))
            case ("function", "abs", (inside,)):
                value = self.of(inside, indices)
                return value.size if isinstance(value, np.ndarray) else abs(value)  # of a matrix, how many elements
            case ("function", name, arguments):
                return FUNCTIONS[name](*(_number(self.of(argument, indices)) for argument in arguments))
            case ("sum" | "max" | "min" as kind, over, inside):
                values = [self.of(inside, indices | bound) for bound in self._bound(over, indices)]
                return sum(values) if kind == "sum" else FUNCTIONS[kind](map(_number, values))
            case ("iverson", condition):
                return int(self.of(condition, indices))
            case ("compare", sign, left, right):
                return bool(COMPARISONS[sign](_number(self.of(left, indices)), _number(self.of(right, indices))))
            case ("all", *conditions):
                return all(self.of(condition, indices) for condition in conditions)
            case ("always",):
                return True
            case ("range", index, first, last):
                return self.of(first, indices) <= self.of(index, indices) <= self.of(last, indices)
            case ("cases", *cases):
                holds = [value for value, condition in cases if self.of(condition, indices)]
                if len(holds) > 1 + (cases[-1][1] == ("always",)) or not holds:
                    raise ValueError(f"{len(holds)} cases hold")
                return self.of(holds[0], indices)
            case ("derivative", of, by, held):
                return self._derivative(of, by, held, indices)
            case ("differentiate", by, inside):
                _must_be_plain(by)
                step = 1e-100  # a complex step: the imaginary part is the derivative, and nothing cancels
                moved = Scene({**self.values, by[1]: self.values[by[1]] + step * 1j}, self.ranges)
                return moved.of(inside, indices).imag / step
        raise ValueError(f"no value of {tree[0]}")

    def _bound(self, over: Tree, indices: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """All values of the indices of a sum, none of which may have a meaning outside of it."""
        names = [index[1] for index, _, _ in over]
        if any(name in indices or name in self.values or names.count(name) > 1 for name in names):
            raise ValueError(f"a sum over {', '.join(names)}, of which one has a meaning outside of it")
        ranges = []
        for index, first, last in over:
            if first is None:
                ranges.append(self.ranges[index[1]])
            else:
                ranges.append(range(int(self.of(first, indices)), int(self.of(last, indices)) + 1))
        for numbers in itertools.product(*ranges):
            yield dict(zip(names, numbers, strict=True))

    def _symbol(self, tree: Tree, indices: Mapping[str, int]) -> Any:
        _, name, bold, subscripts, layer = tree
        if name in indices and _is_plain(tree):
            return indices[name]
        if name in ("e", "pi") and name not in self.values:
            _must_be_plain(tree)
            return getattr(math, name)
        if name == "delta" and name not in self.values:
            _must_be_plain(("symbol", name, bold, (), layer))
            row, column = (self.of(subscript, indices) for subscript in subscripts)
            return int(row == column)
        value = self.values[f"{name}_" if subscripts and f"{name}_" in self.values else name]
        if layer is not None:
            value = _of_layers(value)[self.of(layer, indices)]
        if isinstance(value, Of) or callable(value):
            _must_be_plain(("symbol", name, bold, subscripts, None))
            return value.function(self.values[value.name]) if isinstance(value, Of) else value
        return self._part(value, subscripts, bold, indices)

    def _derivative(self, of: Tree, by: Tree, held: Tree, indices: Mapping[str, int]) -> Any:
        """Its axes are those of what is differentiated, then those of what it is differentiated by."""
        at = None
        if held and held[0][0] == "compare":
            if held[0][1:3] != ("=", by):
                raise ValueError("taken where something else has a value")
            at, held = self.of(held[0][3], indices), ()
        parts = [_root(part) for part in (of, by)]
        names = tuple(_name(part, self.values) for part in (of, by))
        value = self.values[(*names, ",".join(_name(part, {}) for part in held)) if held else names]
        if callable(value):
            for part in parts:
                _must_be_plain(part)
            return value(at)
        layers = {self.of(part[4], indices) for part in parts if part[4] is not None}
        if layers:
            (layer,) = layers
            value = _of_layers(value)[layer]
        ndim = np.ndim(value.array if isinstance(value, Indexed) else value)
        axes = [len(part[3]) for part in parts]
        if not parts[0][2]:
            axes[1] = ndim - axes[0]
        elif not parts[1][2]:
            axes[0] = ndim - axes[1]
        else:
            axes[1] = np.ndim(_array(self.values[names[1]])) if names[1] in self.values else ndim // 2
            axes[0] = ndim - axes[1]
        chosen: list[Tree | None] = []
        for part, count in zip(parts, axes, strict=True):
            if part[2] and count <= len(part[3]):
                raise ValueError("an element is not bold")
            chosen += [None] * (count - len(part[3]) if part[2] else 0) + [*part[3]]
        return self._pick(value, chosen, indices)

    def _part(self, value: Any, subscripts: tuple[Tree, ...], bold: bool, indices: Mapping[str, int]) -> Any:
        """An element; of bold letters the whole, or for indices its last axes' part, as a column or a matrix."""
        if isinstance(value, int | float | complex) and not subscripts and not bold:
            return value
        whole = np.ndim(value.array if isinstance(value, Indexed) else value) - len(subscripts) if bold else 0
        if bold and whole < 1:
            raise ValueError("an element is not bold")
        return self._pick(value, [*[None] * whole, *subscripts], indices)

    def _pick(self, value: Any, chosen: list[Tree | None], indices: Mapping[str, int]) -> Any:
        """The part of an array: an index for each axis, or None for all of it. An index runs over all of its axis."""
        indexed = value if isinstance(value, Indexed) else Indexed(np.asarray(value), (1,) * np.ndim(value))
        array = indexed.array
        if len(chosen) != array.ndim:
            raise ValueError(f"{len(chosen)} indices of an array of {array.ndim} axes")
        places: list[Any] = []
        for subscript, first, size in zip(chosen, indexed.first, array.shape, strict=True):
            if subscript is None:
                places.append(slice(None))
                continue
            if subscript[0] == "symbol" and indexed is not value:
                count = len(self.ranges.get(subscript[1], range(size)))
                if count != size:
                    raise IndexError(f"{subscript[1]} has {count} values, and the axis {size}")
            number = self.of(subscript, indices)
            if not first <= number < first + size:
                if indexed.outside is not None:
                    return indexed.outside
                raise IndexError(f"{number} is outside {first} to {first + size - 1}")
            places.append(int(number) - first)
        part = array[tuple(places)]
        return part.item() if part.ndim == 0 else part[:, None] if part.ndim == 1 else part


def _times(left: Any, sign: str, right: Any) -> Any:
    if callable(left):
        return left(right)
    if sign == "/":
        return _number(left) / _number(right)
    if sign in ("odot", "oslash"):
        left, right = _matrix(left), _matrix(right)
        if left.shape != right.shape:
            raise ValueError(f"element by element, shapes {left.shape} and {right.shape}")
        return left * right if sign == "odot" else left / right
    if np.ndim(left) == 0 or np.ndim(right) == 0:
        return left * right
    if left.shape[1] != right.shape[0]:
        raise ValueError(f"a product of shapes {left.shape} and {right.shape}")
    return left @ right


def _number(value: Any) -> Any:
    if np.shape(value) == (1, 1):
        return value[0, 0]
    if np.ndim(value):
        raise ValueError(f"a number is wanted, not an array of shape {np.shape(value)}")
    return value


def _matrix(value: Any) -> np.ndarray:
    if np.ndim(value) != 2:
        raise ValueError("a vector or matrix is wanted, not a number")
    return value


def _column(value: Any) -> np.ndarray:
    if np.ndim(value) != 2 or value.shape[1] != 1:
        raise ValueError(f"a column is wanted, not shape {np.shape(value)}")
    return value[:, 0]


def _is_plain(symbol: Tree) -> bool:
    """Whether it is a letter alone: not bold, and without index and layer."""
    return symbol[2:] == (False, (), None)


def _must_be_plain(symbol: Tree) -> None:
    if not _is_plain(symbol):
        raise ValueError(f"{symbol[1]} has no parts, so it is not bold and has neither index nor layer")


def _array(value: Any) -> Any:
    """What holds the numbers; of layers, those of any."""
    value = next(iter(value.values())) if isinstance(value, Mapping) else value
    return value.array if isinstance(value, Indexed) else value


def _of_layers(value: Any) -> Mapping[int, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("it belongs to no layer")
    return value


def _root(tree: Tree) -> Tree:
    return tree[1] if tree[0] == "power" else tree


def _name(tree: Tree, values: Mapping[Any, Any]) -> str:
    """Of what is differentiated, or by what: `x`, `sigma^2`, and `L_` where L also has no index."""
    root = _root(tree)
    if root[0] != "symbol":
        raise ValueError(f"a derivative of or by {root[0]}")
    name = f"{root[1]}_" if root[3] and f"{root[1]}_" in values else root[1]
    return f"{name}^{tree[2][1]}" if tree[0] == "power" else name


def _names(tree: Any, bound: frozenset[str] = frozenset()) -> set[str]:
    """The names that stand in a tree, without those that a sum of it binds."""
    match tree:
        case ("symbol", name, _, subscripts, layer):
            return ({name} - bound) | _names((subscripts, layer), bound)
        case ("sum" | "max" | "min", over, inside):
            own = frozenset(index[1] for index, _, _ in over)
            return _names(inside, bound | own) | _names([(first, last) for _, first, last in over], bound)
        case tuple() | list():
            return set().union(*(_names(part, bound) for part in tree))
    return set()


def _compare(left: Any, right: Any, indices: Mapping[str, int]) -> None:
    if callable(left) or callable(right):
        if left is not right:
            raise NotTrue(f"other functions where {indices}")
        return
    left, right = (_number(v) if np.shape(v) == (1, 1) else v for v in (left, right))
    if np.shape(left) != np.shape(right):
        raise NotTrue(f"shapes {np.shape(left)} and {np.shape(right)}")
    if not np.all(np.isfinite(left)) or not np.allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE):
        where = ", ".join(f"{name} = {number}" for name, number in indices.items())
        raise NotTrue(f"{left} is not {right}" + (f" where {where}" if where else ""))
