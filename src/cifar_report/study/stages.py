"""The digest of what computes a stage: of whole modules, as an analysis that reruns needlessly costs minutes.

A run's code is counted more finely, in `identity`.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cifar_report.base.files import sha256, write_text
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


def kept_code_digest(kind: str) -> str:
    """As `identity.code_digest`, asked for anew where any module of the package or what lies beside it has changed."""
    package = identity.PACKAGE
    modules = {path.relative_to(package).as_posix(): sha256(path) for path in sorted(package.rglob("*.py"))}
    key = digest({"kind": kind, "modules": modules, "beside": sorted(path.name for path in package.parent.iterdir())})
    if key not in _known:
        _known[key] = (identity.code_digest(kind), ())
    return _known[key][0]


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Digests that are made inside are kept in a file, by content, for other processes: they are a fifth of a dry run.

    A file that cannot be read or was altered is made again; one that cannot be written is done without.
    """

    def seal(known: dict[str, Any]) -> str:
        return digest({"version": Path(__file__).read_text() + sys.version, "known": known})

    with suppress(OSError, ValueError, TypeError, AttributeError):
        document = json.loads(path.read_text())
        if document.pop("seal", "") == seal(document):
            _known.update({key: (str(made[0]), tuple(map(str, made[1]))) for key, made in document.items()})
    count = len(_known)
    yield
    if len(_known) > count:
        with suppress(OSError):
            write_text(path, json.dumps({"seal": seal(_known)} | _known))


_known: dict[str, tuple[str, tuple[str, ...]]] = {}


def _parsed(source: bytes) -> tuple[str, tuple[str, ...]]:
    """The digest of a module's syntax tree, and the names that it imports."""
    key = hashlib.sha256(source).hexdigest()
    if key not in _known:
        _known[key] = _parse(source)
    return _known[key]


def _parse(source: bytes) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if getattr(node, "name", "") != "__getattr__"]
    names: list[str] = []
    normal = _normal(tree, names)
    return hashlib.sha256(repr(normal).encode()).hexdigest(), tuple(names)


def _normal(node: Any, imported: list[str]) -> Any:
    """A syntax tree as nested tuples, without docstrings, positions and empty fields (which differ among Pythons).

    What is imported outside `if TYPE_CHECKING:` is added to `imported`.
    """
    if isinstance(node, list):
        return [_normal(item, imported) for item in node]
    if isinstance(node, ast.Constant):
        return ("Constant", node.value)
    if not isinstance(node, ast.AST):
        return node
    match node:
        case ast.Import() | ast.ImportFrom():
            # `from package import name`: the name may be a module or stand in one.
            imported += identity.modules_of(node)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            imported = []
        case ast.Module() | ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    named = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [], "")]
    return (type(node).__name__, [(name, _normal(value, imported)) for name, value in named])
