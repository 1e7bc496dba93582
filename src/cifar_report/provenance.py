"""Who made a result: the digest of a stage's code, versions, commit, and the machine it ran on."""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import cifar_report
from cifar_report.config import digest
from cifar_report.files import write_text

PACKAGE = Path(cifar_report.__file__).parent


def modules_digest(*modules: str, package: Path = PACKAGE) -> str:
    """SHA-256 of the syntax trees of modules and of all that they import from this package.

    Docstrings, comments and layout do not count, and neither do imports for the type checker alone, nor a module's
    `__getattr__`: it offers names to whoever imports the package, and takes no part in what that computes.
    """
    found: dict[str, str] = {}
    known = _digests(package)
    count = len(known)
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _path(name, package)
        if name in found or path is None:
            continue
        source = path.read_bytes()
        key = hashlib.sha256(source).hexdigest()
        if key not in known:
            known[key] = _parsed(source)
        found[name], imported = known[key]
        waiting += [*imported, name.rpartition(".")[0]]
    if len(known) > count:
        with suppress(OSError):  # a package that this user may not write to
            write_text(_digests_file(package), json.dumps(known))
    return digest(found)


@cache
def _digests(package: Path) -> dict[str, tuple[str, list[str]]]:
    """What `_parsed` said of sources in earlier processes, by their SHA-256. Parsing takes a third of a dry run."""
    try:
        return json.loads(_digests_file(package).read_text())
    except (OSError, ValueError):
        return {}


def _digests_file(package: Path) -> Path:
    """Beside Python's own compiled files, and as those of one version of Python and of the code that makes it."""
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return package / f"__pycache__/digests.{sys.implementation.cache_tag}-{version}.json"


def _path(module: str, package: Path) -> Path | None:
    """The file of a module of the package; None for what is no module of it."""
    parts = module.split(".")
    if parts[0] != package.name:
        return None
    path = package.joinpath(*parts[1:])
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((p for p in candidates if p.is_file()), None)


def _parsed(source: bytes) -> tuple[str, list[str]]:
    """The digest of a module's syntax tree, and the names that it imports."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if getattr(node, "name", "") != "__getattr__"]
    imported: list[str] = []
    for node in _running(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: the name may be a module or stand in one.
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return hashlib.sha256(repr(_normal(tree)).encode()).hexdigest(), imported


def _running(node: ast.AST) -> list[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return []
    return [node, *(inner for child in ast.iter_child_nodes(node) for inner in _running(child))]


def _normal(node: Any) -> Any:
    """A syntax tree as nested tuples, without docstrings, positions and empty fields (which differ among Pythons)."""
    if isinstance(node, list):
        return [_normal(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Constant):
        return ("Constant", node.value)
    named = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [], "")]
    if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
        named = [(name, value[1:] if name == "body" else value) for name, value in named]
    return (type(node).__name__, [(name, _normal(value)) for name, value in named])


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of installed packages."""
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages}


def commit() -> dict[str, Any]:
    """Git's commit of the package's checkout: its hash, its time (seconds since 1970) and whether files differ.

    Outside a checkout the hash is None.
    """
    try:
        show = _git("show", "--no-patch", "--format=%H %ct", "HEAD").split()
        dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {"hash": None, "time": None, "dirty": None}
    return {"hash": show[0], "time": int(show[1]), "dirty": dirty}


def _git(*arguments: str) -> str:
    return subprocess.run(("git", *arguments), cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.strip()


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cpu_model() -> str:
    """Vendor, family and model of the processor: libraries choose their arithmetic by these, whatever its name says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return " ".join(known[key] for key in ("vendor_id", "cpu family", "model") if key in known) or platform.machine()


def gpu_visible() -> bool:
    """Whether an NVIDIA GPU can be used, found out without importing torch (seconds)."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1"):
        return False
    # A container or the Windows subsystem may show the devices without the driver's folder.
    return (
        any(Path("/proc/driver/nvidia/gpus").glob("*"))
        or any(Path("/dev").glob("nvidia[0-9]*"))
        or Path("/dev/dxg").exists()
    )
