"""Mutants of the code: small changes of a function's syntax tree, such as a slip could make.

None is made of what is no number: the text of an error (whether it is raised is changed), what is logged, how paths are
joined, whether lengths are compared (`strict`), and how a figure looks (`LAYOUT`, `LOOKS`).
"""

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import CodeType

import cifar_report

PACKAGE = Path(cifar_report.__file__).parent
EQUATIONS = ("models.numpy_nn.modules", "models.numpy_nn.mlp", "models.numpy_nn.sgd", "models.torch_nn.batchnorm")

OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add, ast.Mult),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.Sub),
    ast.MatMult: (ast.Mult, ast.Add),
    ast.Pow: (ast.Mult,),
    ast.FloorDiv: (ast.Mult, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,),
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Gt: (ast.GtE, ast.Lt, ast.NotEq),
    ast.Lt: (ast.LtE, ast.Gt, ast.NotEq),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}


def _both_ways(pairs: str) -> dict[str, str]:
    return {a: b for pair in pairs.split(",") for a, b in (pair.split(), reversed(pair.split()))}


FUNCTIONS = _both_ways("sum mean,max min,exp expm1,log log1p,sqrt rsqrt,zeros ones,zeros_like ones_like") | {
    "var": "std"
}
VARIABLES = _both_ways(
    "weight bias,grad_weight grad_bias,running_mean running_var,inverse_std normalised,momentum weight_decay"
)
PLACES = re.compile(r"\.(\d)")  # of a number that is printed
# One text for another: what a column, a key, a split or a state is called.
TEXTS = _both_ways(
    "train test,loss accuracy,completed diverged,low high,ci95_low ci95_high,min max,step rung,variant seed,mean std,"
    "validation_accuracy validation_loss"
)
LOGGED = ("print", "warn", "warning", "info", "debug", "set_verbosity")
LAYOUT = (
    *("add_axes", "add_patch", "align_ylabels", "axvline", "colorbar", "grid", "legend", "legend_key", "margins"),
    *("new_figure", "note", "plain_ticks", "remove", "scale_loss", "set", "set_axis_off", "set_label", "set_title"),
    *("set_layout_engine", "set_visible", "set_xlim", "set_ylim", "suptitle", "tick_params", "subfigures", "subplots"),
)
PATHS = ("dataset", "folder", "output", "parent", "path", "report", "results", "root", "runs", "search", "trials")
LOOKS = (
    *("alpha", "aspect", "bbox", "capsize", "clip_on", "cmap", "color", "edgecolor", "extent", "facecolor", "fill"),
    *("fontsize", "ha", "handlelength", "linestyle", "linewidth", "loc", "marker", "markersize", "mec", "mew", "mfc"),
    *("ncols", "pad", "rasterized", "rotation", "rotation_mode", "size", "style", "va", "vmax", "vmin", "zorder"),
)


@dataclass(frozen=True, eq=False)
class Mutant:
    """One changed function: where, and the statement with the change as source, before and after."""

    module: str
    function: str
    line: int
    rule: str
    old: str
    new: str
    node: ast.FunctionDef
    original: ast.FunctionDef
    scope: ast.stmt  # the class that it stands in, or itself
    again: int = 0  # how many before it in the function have the same statements

    @property
    def name(self) -> str:
        """Module, function and change: what `equivalent.yaml` calls it."""
        count = f" ({self.again + 1})" if self.again else ""
        return f"{self.module}:{self.function}: {self.old} -> {self.new}{count}"

    @cached_property
    def code(self) -> CodeType | None:
        """What runs in the function's place; None where Python does not take it."""
        try:
            code = _compiled(self.node, self.scope, self.function)
        except SyntaxError:
            return None
        # Without `super()`, for instance, it could not take the function's place.
        return code if code.co_freevars == _compiled(self.original, self.scope, self.function).co_freevars else None

    @cached_property
    def defaults(self) -> tuple[tuple | None, dict | None] | None:
        """Its defaults by place and by name; None where they are as they were."""
        changed = self.node.args
        if ast.unparse(changed) == ast.unparse(self.original.args):
            return None
        by_name = {a.arg: d for a, d in zip(changed.kwonlyargs, changed.kw_defaults, strict=True) if d}
        return (
            tuple(map(ast.literal_eval, changed.defaults)) or None,
            {name: ast.literal_eval(default) for name, default in by_name.items()} or None,
        )

    @cached_property
    def can_run(self) -> bool:
        """Whether it can take the function's place."""
        with suppress(ValueError):  # of a default that is no literal
            self.defaults  # noqa: B018
            return self.code is not None
        return False


def generate(module: str) -> list[Mutant]:
    """All mutants of every function of a module (such as `models.numpy_nn.sgd`) that can run, as of `changed`."""
    return [mutant for mutant in changed(module) if mutant.can_run]


@cache
def functions(module: str) -> tuple[tuple[str, ast.FunctionDef, ast.stmt], ...]:
    """The name of each function and method of a module, its syntax tree, and that of its class or again its own."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
    return tuple(
        (function.name if scope is function else f"{scope.name}.{function.name}", function, scope)
        for scope in tree.body
        for function in (scope.body if isinstance(scope, ast.ClassDef) else [scope])
        if isinstance(function, ast.FunctionDef)
    )


@cache
def changed(module: str) -> tuple[Mutant, ...]:
    """A mutant for every change of every function of a module, in order, whether it can run or not."""
    mutants = []
    for name, function, scope in functions(module):
        counts: Counter[tuple[str, str]] = Counter()
        unlike = {(c.statement, c.new): c for c in _descend(function) if c.new != c.old}
        for change in sorted(unlike.values(), key=lambda change: change.line):
            texts = (change.old, change.new)
            where = (module, name, change.line, change.rule)
            mutants.append(Mutant(*where, *texts, change.node, function, scope, counts[texts]))
            counts[texts] += 1
    return tuple(mutants)


def noting(module: str, name: str, function: ast.FunctionDef, scope: ast.stmt, note: str) -> Mutant:
    """The function as it is, after a statement that notes that it was called."""
    node = copy.copy(function)
    node.body = [*ast.parse(note).body, *function.body]
    return Mutant(module, name, 0, "", "", "", node, function, scope)


def _compiled(function: ast.FunctionDef, scope: ast.stmt, name: str) -> CodeType:
    """A function's code, compiled in its class, without decorators, which the function in the package has already."""
    body = plain = copy.copy(function)
    plain.decorator_list = []
    if isinstance(scope, ast.ClassDef):
        body = copy.copy(scope)
        body.bases, body.body = [], [plain]
    code = compile(ast.fix_missing_locations(ast.Module([body], [])), f"<{name}>", "exec")
    for part in range(1, name.count(".") + 2):
        wanted = ".".join(name.split(".")[:part])
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_qualname == wanted)
    return code


@dataclass(frozen=True)
class _Change:
    """A node with one change somewhere below, and the statement around the change before and after."""

    rule: str
    node: ast.AST
    statement: tuple[int, int] = (0, 0)  # where it begins
    old: str = ""
    new: str = ""

    @property
    def line(self) -> int:
        return self.statement[0]


def _descend(node: ast.AST) -> Iterator[_Change]:
    """Copies of a node, each with one change in it or below it."""
    if _is_no_number(node):
        return
    found = [_Change(rule, ast.copy_location(new, node)) for rule, new in _changes(node)]
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        children = value if isinstance(value, list) else [value]
        for i, child in enumerate(children):
            if not isinstance(child, ast.AST) or _is_docstring(child):
                continue
            for change in _descend(child):
                fresh = copy.copy(node)
                fields = [*children[:i], change.node, *children[i + 1 :]] if isinstance(value, list) else change.node
                setattr(fresh, field, fields)
                found.append(replace(change, node=fresh))
    for change in found:
        if isinstance(node, ast.stmt) and not change.line:
            change = replace(change, statement=(node.lineno, node.col_offset), old=_head(node), new=_head(change.node))
        yield change


def _is_no_number(node: ast.AST) -> bool:
    match node:
        case ast.Raise():
            return True
        case ast.Call(ast.Name(name) | ast.Attribute(_, name)):
            return name in LOGGED or name in LAYOUT
        case ast.Expr(ast.Call() as call):
            return _is_no_number(call)
        case ast.keyword(name):
            return name in LOOKS or name == "strict"
        case ast.BinOp(left, ast.Div(), right):  # a path with what is below it
            return any(_is_text(side) for side in (left, right)) or _is_no_number(left)
    return False


def _is_text(node: ast.AST) -> bool:
    is_path = isinstance(node, ast.Name | ast.Attribute) and (node.id if isinstance(node, ast.Name) else node.attr)
    return is_path in PATHS or isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _head(statement: ast.AST) -> str:
    """A statement's source on one line; of a loop or a branch its head, of a function its defaults."""
    if isinstance(statement, ast.FunctionDef):
        values = [*statement.args.defaults, *statement.args.kw_defaults]
        names = [*statement.args.posonlyargs, *statement.args.args, *statement.args.kwonlyargs][-len(values) :]
        return ", ".join(f"{n.arg}={ast.unparse(v)}" for n, v in zip(names, values, strict=True) if v)
    left_early = isinstance(statement, ast.For) and isinstance(statement.body[-1], ast.Break)
    return ast.unparse(statement).splitlines()[0] + ("  # and break after one round" if left_early else "")


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in a node's place, each with the rule that says so."""
    match node:
        case ast.BinOp(left, op, right):
            for other in OPERATORS.get(type(op), ()):
                yield "operator", ast.BinOp(left, other(), right)
            yield "term or factor dropped", left
            yield "term or factor dropped", ast.UnaryOp(ast.USub(), right) if isinstance(op, ast.Sub) else right
            if not isinstance(op, ast.Add | ast.Mult | ast.BitAnd):
                yield "operands swapped", ast.BinOp(right, op, left)
        case ast.UnaryOp(ast.USub(), operand):
            yield "sign", operand
        case ast.UnaryOp(ast.Not(), operand):
            yield "negation dropped", operand
        case ast.BoolOp(op, values):
            yield "and for or", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            for i in range(len(values)):
                rest = [*values[:i], *values[i + 1 :]]
                yield "condition dropped", ast.BoolOp(op, rest) if len(rest) > 1 else rest[0]
        case ast.comprehension(target, iterable, conditions):
            for i in range(len(conditions)):
                rest = [*conditions[:i], *conditions[i + 1 :]]
                yield "filter dropped", ast.comprehension(target, iterable, rest, node.is_async)
        case ast.keyword("axis" | "dim", ast.Constant(axis)):
            yield "axis", ast.keyword(node.arg, ast.Constant(1 - axis))
        case ast.Constant(bool()):
            yield "constant", ast.Constant(not node.value)
        case ast.Constant(int() | float()):
            yield from (("constant", ast.Constant(value)) for value in (node.value + 1, 0) if value != node.value)
        case ast.Constant(str(text)) if text in TEXTS:
            yield "another text", ast.Constant(TEXTS[text])
        case ast.FormattedValue(value, conversion, ast.JoinedStr([ast.Constant(text)])) if places := PLACES.search(
            text
        ):
            other = ast.Constant(PLACES.sub(f".{(int(places[1]) + 1) % 10}", text, count=1))
            yield "decimal places", ast.FormattedValue(value, conversion, ast.JoinedStr([other]))
        case ast.Attribute(value, "T"):
            yield "transpose dropped", value
        case ast.Attribute(value, name, ast.Load()):
            if name in FUNCTIONS:
                yield "wrong function", ast.Attribute(value, FUNCTIONS[name], ast.Load())
            if name in VARIABLES:
                yield "wrong variable", ast.Attribute(value, VARIABLES[name], ast.Load())
            elif name in TEXTS and name not in FUNCTIONS:
                yield "wrong variable", ast.Attribute(value, TEXTS[name], ast.Load())
        case ast.Name(name, ast.Load()) if name in VARIABLES:
            yield "wrong variable", ast.Name(VARIABLES[name], ast.Load())
        case ast.Call(called, arguments, keywords):
            for i in range(len(arguments) - 1):
                swapped = [*arguments[:i], arguments[i + 1], arguments[i], *arguments[i + 2 :]]
                yield "arguments swapped", ast.Call(called, swapped, keywords)
            if len(arguments) > 1:
                yield "argument dropped", ast.Call(called, arguments[:-1], keywords)
            for i, keyword in enumerate(keywords):
                if not _is_no_number(keyword):
                    yield "argument dropped", ast.Call(called, arguments, keywords[:i] + keywords[i + 1 :])
            if isinstance(called, ast.Attribute) and not isinstance(called.value, ast.Name):
                yield "call dropped", called.value
            yield from (("call dropped", argument) for argument in arguments[:1])
        case ast.Compare(left, ops, right):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield "comparison", ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], right)
        case ast.IfExp(test, body, orelse):
            yield from (("branch", branch) for branch in (body, orelse, ast.IfExp(test, orelse, body)))
        case ast.Subscript(value, index, ast.Load()):
            yield "index dropped", value
            if isinstance(index, ast.Slice):
                yield "index dropped", ast.Subscript(value, ast.Slice(index.lower, index.upper), ast.Load())
        case ast.Tuple(items, ast.Load()):
            for i in range(len(items) - 1):
                swapped = [*items[:i], items[i + 1], items[i], *items[i + 2 :]]
                yield "items swapped", ast.Tuple(swapped, ast.Load())
        case ast.If(test, body, orelse):
            for other in (ast.Constant(True), ast.Constant(False), ast.UnaryOp(ast.Not(), test)):
                yield "branch", ast.If(other, body, orelse)
        case ast.For(target, iterable, body):
            yield "loop left after one round", ast.For(target, iterable, [*body, ast.Break()], [])
            yield "loop reversed", ast.For(target, ast.Call(ast.Name("reversed", ast.Load()), [iterable], []), body, [])
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr):
        yield "statement dropped", ast.Pass()
    if isinstance(node, ast.Assign | ast.Return) and isinstance(
        node.value, ast.BinOp | ast.Call | ast.Attribute | ast.Name | ast.IfExp
    ):
        negative = ast.UnaryOp(ast.USub(), node.value)
        yield "sign", ast.Return(negative) if isinstance(node, ast.Return) else ast.Assign(node.targets, negative)
    if isinstance(node, ast.AugAssign):
        for other in OPERATORS.get(type(node.op), ()):
            yield "operator", ast.AugAssign(node.target, other(), node.value)
        yield "update is an assignment", ast.Assign([node.target], node.value)
