"""The digest of what computes a stage: whole modules, since nothing that an analysis makes takes hours.

A run's code is counted more finely, in `identity`.
"""

import ast
import hashlib
from functools import cache
from typing import Any

from cifar_report.study import identity
from cifar_report.study.settings import digest


def modules_digest(*modules: str) -> str:
    """SHA-256 of the syntax trees of modules and of all that they import from this package.

    Docstrings, comments and layout do not count, and neither do imports for the type checker alone, nor a module's
    `__getattr__`: it offers names to whoever imports the package, and takes no part in what that computes.
    """
    digests: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = identity.path_of(name)
        if name in digests or path is None:
            continue
        digests[name], imported = _parsed(path.read_bytes())
        waiting += [*imported, name.rpartition(".")[0]]
    return digest(digests)


@cache
def _parsed(source: bytes) -> tuple[str, tuple[str, ...]]:
    """The digest of a module's syntax tree, and the names that it imports."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if getattr(node, "name", "") != "__getattr__"]
    running = _running(tree)
    for node in running:
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    # `from package import name`: the name may be a module or stand in one.
    imports = [node for node in running if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [name for node in imports for name in identity.modules_of(node)]
    return hashlib.sha256(repr(_fields(tree)).encode()).hexdigest(), tuple(names)


def _running(node: ast.AST) -> list[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return []
    return [node, *(inner for child in ast.iter_child_nodes(node) for inner in _running(child))]


def _fields(node: Any) -> Any:
    """A syntax tree as nested tuples, without positions and empty fields (which differ among Pythons)."""
    if isinstance(node, list):
        return [_fields(item) for item in node]
    if isinstance(node, ast.Constant):
        return ("Constant", node.value)
    if not isinstance(node, ast.AST):
        return node
    named = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [], "")]
    return (type(node).__name__, [(name, _fields(value)) for name, value in named])
