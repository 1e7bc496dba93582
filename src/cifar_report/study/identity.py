"""A run's identity: the digest of all that decides its numbers, its code among it.

The code of a kind of model is every definition that `training.loop.train` reaches with it: a function, a class or a
constant counts as its syntax tree without docstrings, comments and annotations, in which each name that stands for
something of this package is replaced by the digest of that (a Merkle tree). So moving or renaming a module, or adding
to one what no training reaches, changes no run; importing another function of the same name changes its runs.
"""

import ast
import builtins
import hashlib
import importlib
import importlib.abc
import inspect
import os
from itertools import pairwise
from pathlib import Path
from types import CodeType
from typing import Any

import cifar_report
from cifar_report.base.errors import InputError
from cifar_report.study.kinds import KINDS, entries
from cifar_report.study.settings import NEUTRAL, SETTINGS, Settings, digest

PACKAGE = Path(cifar_report.__file__).parent
START = ("cifar_report.training.loop", "train")
# What finds its objects by names in strings, so that no digest could follow.
DYNAMIC = {
    *(
        "importlib",
        "pkgutil",
        "runpy",
        "builtins",
        "sys",
        "site",
        "inspect",
        "gc",
        "pydoc",
        "pickle",
        "ctypes",
        "types",
    ),
    *("operator", "_thread"),
}
HIDDEN = {"__subclasses__", "__globals__", "__code__", "__builtins__", "__dict__", "__class__", "__bases__", "__mro__"}
# What may be called at import: builtins without effect, and what makes definitions of definitions.
MAKERS = {
    *("property", "staticmethod", "classmethod", "dataclasses.dataclass", "dataclasses.field", "enum.auto"),
    *("functools.cache", "contextlib.contextmanager", "torch.no_grad", "torch.inference_mode"),
    "torch.autograd.function.once_differentiable",
}
PURE = {"tuple", "list", "dict", "set", "frozenset", "range", "sorted", "zip", "len", "int", "float"}
DYNAMIC_CALLS = {"exec", "eval", "compile", "globals", "locals", "vars", "__import__"}

# Where a name leads: ("local",); ("module", dotted name); ("outside", dotted name); ("definition", module, name).
Target = tuple[str, ...]
LOCAL: Target = ("local",)
Scope = dict[str, Target]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_IN_CLASSES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign, ast.AnnAssign)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def run_identity(settings: Settings, seed: int, data: dict[str, str], code: str) -> str:
    """SHA-256 of all that decides a run's numbers: settings that are not neutral, seed, data and code.

    Args:
        data: SHA-256 of each array that the run opens, so that a search that sees no test split has its own identity.
        code: `code_digest` of its kind of model.
    """
    return digest({"settings": settings.canonical(), "seed": seed, "data": data, "code": code})


def code_digest(kind: str) -> str:
    """SHA-256 of the definitions that a training of this kind of model reaches, as the files have them now.

    Raises:
        InputError: the code does what cannot be followed (a relative or computed import, a statement that runs at
            import); the message names the line and what to write instead.
    """
    return _Code(kind).definition(*START)


def reached(kind: str) -> dict[tuple[str, str], str]:
    """The digest of each definition that counts for a kind, by its module and name."""
    code = _Code(kind)
    code.definition(*START)
    return code.digests


def check_code(kind: str, planned: str, loaded: bool = False) -> None:
    """Refuses to train with other code than the plan was made for: called before its modules are imported and after.

    Args:
        planned: the digest in the plan.
        loaded: whether the modules are imported, and so to be compared with their files: Python's compiled files are
            found by time and size, and may be those of an earlier edit of the same second.

    Raises:
        InputError: the code was edited, or another commit checked out, since the workflow was started.
    """
    code = _Code(kind)
    found = code.definition(*START)
    stale = [name for name in code.modules if loaded and not _runs_its_source(name, code.modules[name].source)]
    if found != planned or stale:
        raise InputError(
            f"the code of {kind}: expected that of the plan ({planned[:12]}), found another ({found[:12]}"
            + (f"; {stale[0]} was loaded from another source" if stale else "")
            + "): it was edited, or another commit checked out, while the study ran; nothing was trained with it; call "
            "the same command again, and leave the code alone until it ends"
        )


def _runs_its_source(name: str, source: bytes) -> bool:
    """Whether the module's compiled file, and each function that it has in memory, is what its source gives."""
    module = importlib.import_module(name)
    loader = module.__spec__.loader if module.__spec__ else None
    whole = compile(source, str(module.__file__), "exec", dont_inherit=True)
    if isinstance(loader, importlib.abc.InspectLoader) and loader.get_code(name) != whole:
        return False
    known: dict[str, list[CodeType]] = {}
    waiting = [whole]
    while waiting:
        code = waiting.pop()
        known.setdefault(code.co_qualname, []).append(code)
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    places = [vars(module), *(vars(c) for c in vars(module).values() if isinstance(c, type) and c.__module__ == name)]
    for value in (value for place in places for value in place.values()):
        function = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", value)))
        own = getattr(function, "__code__", None) if getattr(function, "__module__", None) == name else None
        if own and own not in known.get(own.co_qualname, [own]):
            return False
    return True


class _Module:
    """A module of the package: what its names stand for, refusing what no digest could follow."""

    def __init__(self, name: str, path: Path):
        self.name, self.path, self.source = name, path, path.read_bytes()
        self.names: dict[str, Target] = {}
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: list[str] = []
        self.tree = ast.parse(self.source)
        for statement in self.tree.body:
            self._take(statement)

    def _take(self, node: ast.stmt) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self._bind(_imported(node, self), node)
                self.imports += modules_of(node)
                for module in modules_of(node):
                    first = module.partition(".")[0]
                    if first != PACKAGE.name and [*PACKAGE.parent.glob(f"{first}.py"), *PACKAGE.parent.glob(first)]:
                        raise self.refused(node, f"imports {first} from beside the package; move it into the package")
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                for part in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(part, ast.Import | ast.ImportFrom):
                        raise self.refused(part, "imports inside a class; import above it")
                    if not isinstance(part, _IN_CLASSES) and not _says_nothing(part):
                        raise self.refused(part, "is a statement that runs at import; put it into a method")
                    if getattr(part, "name", "") == "__init_subclass__":
                        raise self.refused(part, "runs for classes that nothing here names; call it by name")
                if isinstance(node, ast.ClassDef) and node.keywords:
                    raise self.refused(node, "has a metaclass or keywords, which may do anything; use a plain class")
                self._bind({node.name: ("definition", self.name, node.name)}, node)
                self.definitions[node.name] = node
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                every = [n for t in targets for n in (t.elts if isinstance(t, ast.Tuple) else [t])]
                if len(targets) > 1 and any(isinstance(target, ast.Tuple) for target in targets):
                    raise self.refused(node, "assigns several times at once; write a line each")
                if not all(isinstance(target, ast.Name) for target in every):
                    raise self.refused(node, "assigns to a part of something at import; assign in a function")
                if node.value is not None:
                    names = [target.id for target in every if isinstance(target, ast.Name)]
                    self._bind({name: ("definition", self.name, name) for name in names}, node)
                    self.definitions |= dict.fromkeys(names, node)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
                pass  # annotations alone take names from there
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                raise self.refused(node, "is a statement that runs at import; put it into a function")

    def _bind(self, names: dict[str, Target], node: ast.stmt) -> None:
        for name, target in names.items():
            if name == "TYPE_CHECKING" and target != ("name", "typing", name):
                raise self.refused(node, "makes a TYPE_CHECKING of its own; import that of typing")
            if self.names.get(name, target) != target or name in self.definitions:
                raise self.refused(node, f"binds '{name}' a second time; give it a name of its own")
            self.names[name] = target

    def refuse_calls(self) -> None:
        """What is computed at import could do anything there: constants, decorators, defaults and annotations."""
        for node in (part for top in self.tree.body for part in _at_import(top)):
            decorators = getattr(node, "decorator_list", [])
            for part in (*decorators, *(call.func for call in _evaluated(node) if isinstance(call, ast.Call))):
                called = part.func if isinstance(part, ast.Call) else part
                name = _outside(called, self.names)
                own = isinstance(called, ast.Name) and isinstance(self.definitions.get(called.id), ast.ClassDef)
                if not (own or name in MAKERS or name in PURE):
                    raise self.refused(part, f"calls {ast.unparse(called)} at import; call it in a function")

    def refused(self, node: ast.AST, why: str) -> InputError:
        return InputError(
            f"{self.path}:{getattr(node, 'lineno', 1)}: {why}; what trains a run must be found from its names alone, "
            "so that its identity can count it (docs/guarantees.md)"
        )


class _Code:
    """The definitions that a kind of model reaches, and their digests."""

    def __init__(self, kind: str):
        self.entries = [tuple(name.rsplit(".", 1)) for name in (KINDS[kind].trainer, KINDS[kind].builder)]
        self.modules: dict[str, _Module] = {}
        self.digests: dict[tuple[str, str], str] = {}
        self.open: list[tuple[str, str]] = []  # those whose digest is being made, the outermost first
        self.followed: set[str] = set()

    def definition(self, module: str, name: str) -> str:
        """The digest of a definition."""
        key = (module, name)
        if key == (entries.__module__, "KINDS"):  # the table of all kinds, in which `entries` finds those of this one
            return " ".join(self.definition(*entry) for entry in self.entries)
        if key in self.digests:
            return self.digests[key]
        home = self.module(module)
        self.follow(module)
        if name not in home.definitions:
            target = self.target(module, name)
            if target[0] != "definition":
                raise InputError(f"{module}.{name}: expected a definition of {PACKAGE.name}; correct it in kinds.py")
            return self.definition(*target[1:])
        node = home.definitions[name]
        if key in self.open:
            if key != self.open[-1]:
                raise home.refused(node, f"'{name}' and '{self.open[-1][1]}' need each other; join them in a class")
            return "itself"
        self.open.append(key)
        normal = _Normal(self, home).top(node, name)
        self.open.pop()
        self.digests[key] = hashlib.sha256(repr(normal).encode()).hexdigest()
        return self.digests[key]

    def module(self, name: str) -> _Module:
        """A module of the package, parsed once."""
        if name not in self.modules:
            path = path_of(name)
            if path is None:
                raise InputError(f"{name}: expected a module of {PACKAGE.name}, found none; correct it in kinds.py")
            self.modules[name] = _Module(name, path)
        return self.modules[name]

    def follow(self, *names: str) -> None:
        """Parses all that these modules import, and their packages, so that nothing runs there unseen."""
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self.followed or path_of(name) is None:
                continue
            self.followed.add(name)
            self.module(name).refuse_calls()
            waiting += [*self.module(name).imports, name.rpartition(".")[0]]

    def target(self, module: str, name: str) -> Target:
        """What a name of a module stands for."""
        if path_of(f"{module}.{name}") is not None:
            if name in self.module(module).names:
                raise self.module(module).refused(ast.Pass(), f"has a name and a module '{name}'; rename one")
            return ("module", f"{module}.{name}")
        if path_of(module) is None:
            return ("outside", f"{module}.{name}")
        home = self.module(module)
        if name not in home.names:
            raise home.refused(ast.Pass(), f"has nothing named '{name}'; name what it has")
        found = home.names[name]
        return self.target(*found[1:]) if found[0] == "name" else found


class _Normal:
    """Syntax trees as nested tuples: what stands in them besides names that are replaced by digests."""

    def __init__(self, code: _Code, home: _Module):
        self.code, self.home = code, home

    def top(self, node: ast.stmt, name: str) -> Any:
        """A definition of the module, without its own name."""
        match node:
            case ast.ClassDef():
                return self._class(node, {})
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._function(node, {}, {})
            case ast.Assign(targets=targets) if not isinstance(targets[0], ast.Tuple):
                return ("constant", self.of(node.value, {}))
            case ast.AnnAssign():
                return ("constant", self.of(node.value, {}))
            case _:  # several at once, each with its place in them
                assert isinstance(node, ast.Assign)
                place = [t.id for t in node.targets[0].elts].index(name)  # type: ignore[attr-defined]
                return ("constant", place, self.of(node.value, {}))

    def of(self, node: Any, scope: Scope) -> Any:
        """Any part of a definition; `scope` holds the names of the functions around it."""
        match node:
            case list():
                for item in node:
                    if isinstance(item, ast.Import | ast.ImportFrom):
                        self.code.follow(*modules_of(item))
                return tuple(self.of(item, scope) for item in node if not _says_nothing(item))
            case ast.Constant():
                return ("Constant", repr(node.value))
            case ast.Name() | ast.Attribute():
                return self._named(node, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                return (getattr(node, "name", ""), self._function(node, scope, scope))
            case ast.ClassDef():
                return (node.name, self._class(node, scope))
            case ast.AnnAssign():
                return ("Assign", (self.of(node.target, scope),), self.of(node.value, scope))
            case ast.Call(func=ast.Name(id="getattr"), args=[of, *_]) if _ends_in_settings(of):
                raise self.home.refused(node, "reads a setting by a computed name; write settings.<name>")
            case ast.MatchClass() if set(node.kwd_attrs) & set(NEUTRAL):
                raise self.home.refused(node, "reads a setting in a pattern; write settings.<name>")
            case ast.Assign():
                return ("Assign", self.of(node.targets, scope), self.of(node.value, scope))
            case ast.Global():
                raise self.home.refused(node, "assigns to a name of the module; hand it in instead")
            case ast.AST():
                if isinstance(node, COMPREHENSIONS):
                    targets = [n for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)]
                    first = self.of(node.generators[0].iter, scope)
                    return ("first", first, *self._fields(node, scope | {name.id: LOCAL for name in targets}))
                return self._fields(node, scope)
            case _:
                return node

    def _fields(self, node: ast.AST, scope: Scope) -> tuple[Any, ...]:
        named = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [], "")]
        return (type(node).__name__, *((name, self.of(value, scope)) for name, value in named))

    def _function(self, node: Any, scope: Scope, around: Scope) -> Any:
        """Without annotations. Defaults and decorators see the names around it, its body also its own."""
        inner = scope | _bound(node, self.home)
        outer = [self.of(getattr(node, "decorator_list", []), around)]
        outer += [self.of(values, around) for values in (node.args.defaults, node.args.kw_defaults)]
        groups = (node.args.posonlyargs, node.args.args, node.args.kwonlyargs)
        stars = [argument.arg if argument else None for argument in (node.args.vararg, node.args.kwarg)]
        names = [tuple(argument.arg for argument in group) for group in groups]
        return (type(node).__name__, tuple(outer), tuple(names), tuple(stars), self.of(node.body, inner))

    def _class(self, node: ast.ClassDef, scope: Scope) -> Any:
        """Where a decorator or NamedTuple makes fields of what is annotated, that something is counts, not as what."""
        # A name of the module is read from there until the class binds it, and counts too.
        own = scope | {name: LOCAL for name in _bound(node, self.home) if name not in self.home.names}
        bases = self.of(node.bases, scope)
        fields = bool(node.decorator_list) or "NamedTuple" in repr(bases)
        body: list[Any] = []
        for part in node.body:
            match part:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    body.append((part.name, self._function(part, scope, own)))
                case ast.AnnAssign() if fields:
                    special = [
                        word for word in ("ClassVar", "InitVar", "KW_ONLY") if word in ast.unparse(part.annotation)
                    ]
                    body.append(("field", *special, self.of(part.target, own), self.of(part.value, own)))
                case _ if not _says_nothing(part):
                    body.append(self.of(part, own))
        return ("ClassDef", self.of(node.decorator_list, scope), bases, self.of(node.keywords, scope), tuple(body))

    def _named(self, node: ast.Name | ast.Attribute, scope: Scope) -> Any:
        """A name, or what is reached from one by dots."""
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            return ("local", node.id, type(node.ctx).__name__)
        dots: list[str] = []
        base: ast.expr = node
        while isinstance(base, ast.Attribute):
            dots.insert(0, base.attr)
            base = base.value
        if hidden := sorted(HIDDEN.intersection(dots)):
            raise self.home.refused(node, f"{hidden[0]} leads to what is not named; name it")
        target = self._target(base, scope) if isinstance(base, ast.Name) else LOCAL
        while target[0] == "module":
            if not dots:
                raise self.home.refused(node, f"hands on the module {target[1]}; name what is used of it")
            target = self.code.target(target[1], dots.pop(0))
        if target[0] == "outside":
            whole = ".".join((target[1], *dots))
            if whole.partition(".")[0] in DYNAMIC and self.home.name != entries.__module__:
                raise self.home.refused(node, f"{whole} finds things by computed names; name them")
            return ("outside", whole)
        if target[0] == "definition":
            if not isinstance(node.ctx, ast.Load):
                raise self.home.refused(node, f"assigns to a part of {target[2]}; hand it in instead")
            if dots and (value := self._member(target, dots[0])) is not None:
                return (*value, *dots[1:])
            return ("definition", self.code.definition(*target[1:]), *dots)
        plain = base.id if isinstance(base, ast.Name) else self.of(base, scope)
        for before, name in pairwise((plain, *dots)):
            if before == "settings" and name not in SETTINGS:
                raise self.home.refused(node, f"settings.{name} is no field of Settings; read the fields")
        defaults = [repr(NEUTRAL[name]) for name in dots if name in NEUTRAL]  # it may be a field of Settings
        return ("local", plain, *dots, type(node.ctx).__name__, *defaults)

    def _target(self, name: ast.Name, scope: Scope) -> Target:
        if found := scope.get(name.id, self.home.names.get(name.id)):
            return self.code.target(*found[1:]) if found[0] == "name" else found
        if name.id in DYNAMIC_CALLS:
            raise self.home.refused(name, f"{name.id} finds things by computed names; name them")
        if hasattr(builtins, name.id):
            return ("outside", name.id)
        raise self.home.refused(name, f"'{name.id}' is bound nowhere, or for annotations alone; import it")

    def _member(self, target: Target, name: str) -> tuple[str, ...] | None:
        """The value of a constant in a class, such as an enumeration's, and the class without such: others may come."""
        home = self.code.module(target[1])
        node = home.definitions[target[2]]
        if not isinstance(node, ast.ClassDef):
            return None
        values = {part: _constant(part) for part in node.body}
        found = [part.value.value for part, own in values.items() if own == name]  # type: ignore[attr-defined]
        bound = sum(n.id == name for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        if len(found) != 1 or bound != 1:
            return None
        rest = ast.ClassDef(node.name, node.bases, node.keywords, [p for p in node.body if not values[p]], [])
        rest.decorator_list = node.decorator_list
        normal = _Normal(self.code, home).top(rest, node.name)
        return ("member", repr(found[0]), hashlib.sha256(repr(normal).encode()).hexdigest())


def path_of(module: str) -> Path | None:
    """The file of a module of the package; None for what is no module of it."""
    first, *parts = module.split(".")
    if first != PACKAGE.name:
        return None
    # Thousands of calls a dry run, of which few find one: without a Path each.
    base = "/".join((str(PACKAGE), *parts))
    return next((Path(file) for file in (f"{base}/__init__.py", f"{base}.py") if os.path.isfile(file)), None)  # noqa: PTH113


def _imported(node: ast.Import | ast.ImportFrom, home: _Module) -> dict[str, Target]:
    """What an import binds."""
    if isinstance(node, ast.Import):
        kind = {alias: "outside" if path_of(alias.name) is None else "module" for alias in node.names}
        bound = {alias: alias.name if alias.asname else alias.name.partition(".")[0] for alias in node.names}
        return {alias.asname or name: (kind[alias], name) for alias, name in bound.items()}
    if node.level or node.module is None:
        raise home.refused(node, "imports relatively; write the module's whole name")
    if any(alias.name == "*" for alias in node.names):
        raise home.refused(node, "imports all names of a module; name those that are used")
    return {alias.asname or alias.name: ("name", node.module, alias.name) for alias in node.names}


def modules_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that an import may run: what is imported from a package may be a module of it."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]


def _bound(node: Any, home: _Module) -> Scope:
    """The names that a function or class binds itself."""
    scope: Scope = {}

    def bind(names: Scope, where: ast.AST) -> None:
        for name, target in names.items():
            if name == "TYPE_CHECKING" or (scope.get(name, target) != target):
                raise home.refused(
                    where, f"binds '{name}' to several things, one of them imported; give it other names"
                )
            scope[name] = target

    if isinstance(node, FUNCTIONS):
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
        scope = {argument.arg: LOCAL for argument in arguments if argument}
    waiting = list(node.body) if isinstance(node.body, list) else [node.body]
    while waiting:
        part = waiting.pop()
        match part:
            case ast.Import() | ast.ImportFrom():
                bind(_imported(part, home), part)
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bind({part.name: LOCAL}, part)
                continue
            case ast.Lambda():
                continue
            case ast.Name(ctx=ast.Store() | ast.Del()):
                bind({part.id: LOCAL}, part)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bind({name: LOCAL}, part)
            case ast.MatchMapping(rest=str(name)):
                bind({name: LOCAL}, part)
        if isinstance(part, COMPREHENSIONS):  # their variables are their own, but for `:=`
            inner = [n.target for n in ast.walk(part) if isinstance(n, ast.NamedExpr)]
            waiting += inner
            continue
        waiting += ast.iter_child_nodes(part)
    return scope


def _at_import(node: ast.stmt) -> list[ast.stmt]:
    """A statement of a module, and those of a class in it: what runs at import."""
    return [node, *(part for part in (node.body if isinstance(node, ast.ClassDef) else ()))]


def _evaluated(node: ast.stmt) -> list[ast.AST]:
    """All parts that are evaluated when a statement runs at import: not the bodies of functions."""
    waiting: list[ast.AST] = []
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            waiting = [node.args, *([node.returns] if node.returns else [])]
        case ast.ClassDef():
            waiting = [*node.bases, *node.keywords]
        case ast.Assign() | ast.AnnAssign():
            waiting = [node]
    return [part for start in waiting for part in ast.walk(start)]


def _outside(node: ast.expr, names: dict[str, Target]) -> str:
    """The dotted name of what comes from outside the package, or of a builtin; empty for all else."""
    dots: list[str] = []
    while isinstance(node, ast.Attribute):
        dots.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    target = names.get(node.id, ("outside", node.id))
    return ".".join((*target[1:], *dots)) if target[0] in ("outside", "name") else ""


def _constant(node: ast.stmt) -> str:
    """The name that a statement binds to a plain constant; empty for others."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
            return name
    return ""


def _ends_in_settings(node: ast.expr) -> bool:
    return "settings" in (getattr(node, "id", ""), getattr(node, "attr", ""))


def _says_nothing(node: Any) -> bool:
    """Docstrings, `pass`, what only annotates or is for the type checker, and imports, whose names are replaced."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Import() | ast.ImportFrom():
            return True
        case ast.AnnAssign(value=None, target=ast.Name()) | ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
            return True
    return False
