"""Mutants of the hand-written mathematics: every small change of a function's syntax tree that a slip could make."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import CodeType

from cifar_report.models import numpy_nn

PACKAGE = Path(numpy_nn.__file__).parents[2]
MODULES = ("models.numpy_nn.modules", "models.numpy_nn.mlp", "models.numpy_nn.sgd", "models.torch_nn.batchnorm")

OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add, ast.Mult),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.Sub),
    ast.MatMult: (ast.Mult, ast.Add),
    ast.Pow: (ast.Mult,),
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Gt: (ast.GtE, ast.Lt, ast.NotEq),
    ast.Lt: (ast.LtE, ast.Gt, ast.NotEq),
}


def _both_ways(pairs: str) -> dict[str, str]:
    return {a: b for pair in pairs.split(",") for a, b in (pair.split(), reversed(pair.split()))}


FUNCTIONS = _both_ways("sum mean,max min,exp expm1,log log1p,sqrt rsqrt,zeros ones,zeros_like ones_like") | {
    "var": "std"
}
VARIABLES = _both_ways(
    "weight bias,grad_weight grad_bias,running_mean running_var,inverse_std normalised,momentum weight_decay"
)


@dataclass(frozen=True)
class Mutant:
    """One changed function: where, what it was and what it is, as source, and the code to run in its place."""

    module: str
    function: str
    line: int
    rule: str
    old: str
    new: str
    code: CodeType
    defaults: tuple | None

    @property
    def name(self) -> str:
        """Module, function and change: what `equivalent.yaml` calls it."""
        return f"{self.module}:{self.function}: {self.old} -> {self.new}"


@cache
def generate(module: str) -> tuple[Mutant, ...]:
    """All mutants of every function of a module (such as `models.numpy_nn.sgd`), in the order of the source."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
    mutants = []
    for scope in tree.body:
        for function in scope.body if isinstance(scope, ast.ClassDef) else [scope]:
            if isinstance(function, ast.FunctionDef):
                mutants += _of_function(module, function, scope)
    return tuple(mutants)


def _of_function(module: str, function: ast.FunctionDef, scope: ast.stmt) -> list[Mutant]:
    name = function.name if scope is function else f"{scope.name}.{function.name}"
    mutants, seen, variables = [], {ast.unparse(function)}, _compiled(function, scope, name).co_freevars
    for change in _descend(function):
        if (text := ast.unparse(change.node)) in seen:
            continue
        seen.add(text)
        try:
            code = _compiled(change.node, scope, name)
        except SyntaxError:
            continue
        if code.co_freevars == variables:  # without `super()`, it could not take the function's place
            defaults = tuple(ast.literal_eval(default) for default in change.node.args.defaults) or None
            mutants.append(Mutant(module, name, change.line, change.rule, change.old, change.new, code, defaults))
    return sorted(mutants, key=lambda mutant: mutant.line)


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
    line: int = 0
    old: str = ""
    new: str = ""


def _descend(node: ast.AST) -> Iterator[_Change]:
    """Copies of a node, each with one change in it or below it."""
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
            change = replace(change, line=node.lineno, old=_head(node), new=_head(change.node))
        yield change


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _head(statement: ast.AST) -> str:
    """A statement's source on one line; of a loop or a branch its head, of a function its defaults."""
    if isinstance(statement, ast.FunctionDef):
        names, values = statement.args.args, statement.args.defaults
        return ", ".join(
            f"{name.arg}={ast.unparse(value)}" for name, value in zip(names[-len(values) :], values, strict=True)
        )
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
            if not isinstance(op, ast.Add | ast.Mult):
                yield "operands swapped", ast.BinOp(right, op, left)
        case ast.UnaryOp(ast.USub(), operand):
            yield "sign", operand
        case ast.keyword("axis" | "dim", ast.Constant(axis)):
            yield "axis", ast.keyword(node.arg, ast.Constant(1 - axis))
        case ast.Constant(bool()):
            yield "constant", ast.Constant(not node.value)
        case ast.Constant(int() | float()):
            yield from (("constant", ast.Constant(value)) for value in (node.value + 1, 0) if value != node.value)
        case ast.Attribute(value, "T"):
            yield "transpose dropped", value
        case ast.Attribute(value, name, ast.Load()):
            if name in FUNCTIONS:
                yield "wrong function", ast.Attribute(value, FUNCTIONS[name], ast.Load())
            if name in VARIABLES:
                yield "wrong variable", ast.Attribute(value, VARIABLES[name], ast.Load())
        case ast.Name(name, ast.Load()) if name in VARIABLES:
            yield "wrong variable", ast.Name(VARIABLES[name], ast.Load())
        case ast.Call(called, arguments, keywords):
            for i in range(len(arguments) - 1):
                swapped = [*arguments[:i], arguments[i + 1], arguments[i], *arguments[i + 2 :]]
                yield "arguments swapped", ast.Call(called, swapped, keywords)
            if len(arguments) > 1:
                yield "argument dropped", ast.Call(called, arguments[:-1], keywords)
            for i in range(len(keywords)):
                yield "argument dropped", ast.Call(called, arguments, keywords[:i] + keywords[i + 1 :])
            if isinstance(called, ast.Attribute) and not isinstance(called.value, ast.Name):
                yield "call dropped", called.value
            yield from (("call dropped", argument) for argument in arguments[:1])
        case ast.Compare(left, [op], [right]):
            yield from (("comparison", ast.Compare(left, [o()], [right])) for o in COMPARISONS.get(type(op), ()))
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
        for other in OPERATORS[type(node.op)]:
            yield "operator", ast.AugAssign(node.target, other(), node.value)
        yield "update is an assignment", ast.Assign([node.target], node.value)
