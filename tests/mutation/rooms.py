"""Which modules are mutated outside of the equations, and which mutants of them are run: a sample by room."""

import hashlib
import itertools
from functools import cache

from mutants import EQUATIONS, PACKAGE, Mutant, changed

# What computes or prints no number of the report, by module or whole room, and why it is left out.
LEFT_OUT = {
    "cli": "a thin function for each rule; `tests/test_workflow.py` runs them all",
    "inspection": "answers questions to a finished study; the report reads none of them",
    "base.errors": "has no function",
    "base.files": "writes and reads whole files; what is read is compared with its SHA-256",
    "base.letters": "tells which characters can be printed",
    "base.processes": "ends processes",
    "base.validation": "messages about what config.yaml, claims and records say",
    "data.downloads": "what is downloaded is compared with its SHA-256",
    "rendering.equations": "marks the equations that passed their tests; `mutate_displays.py` mutates these",
    "runs.checkpoints": "a checkpoint is used only where it has the digest that it was saved with",
    "runs.consistency": "compares what a run's files say with each other, and changes none",
    "runs.devices": "which device a job takes",
    "runs.exchange": "carries runs between machines; each file is compared with its SHA-256",
    "runs.forget": "removes runs",
    "runs.planned": "which runs the store is asked for, by their identity",
    "study.displays": "reads the LaTeX of the equations",
    "study.document": "the type of config.yaml",
    "study.identity": "whether a run has to be trained anew",
    "study.stages": "whether a stage has to be computed anew",
}
SAMPLE, SHORT = 1500, 60  # mutants, of all rooms


def modules() -> list[str]:
    """All modules of the package but those without code, in the order of their names."""
    names = (".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
    return sorted(name for name in names if not name.endswith("__init__"))


def room(module: str) -> str:
    """The room of a module; the modules of the equations count as one of their own."""
    return "equations" if module in EQUATIONS else module.split(".")[0]


@cache
def every() -> dict[str, list[Mutant]]:
    """All mutants of each room but the equations', the first of the sample first.

    The order is that of the SHA-256 of their names: editing a function moves no mutant of another one.
    """
    found: dict[str, list[Mutant]] = {}
    for module in modules():
        if room(module) != "equations" and not {module, room(module)} & set(LEFT_OUT):
            found.setdefault(room(module), []).extend(changed(module))
    return {name: sorted(mutants, key=_rank) for name, mutants in found.items()}


def sample(total: int, least: int = 30) -> list[Mutant]:
    """So many mutants that can run, of each room its share of all of them, and some of a small one."""
    count = sum(map(len, every().values()))
    chosen: list[Mutant] = []
    for mutants in every().values():
        share = max(round(total * len(mutants) / count), least * total // SAMPLE)
        chosen += itertools.islice((mutant for mutant in mutants if mutant.can_run), share)
    return chosen


def _rank(mutant: Mutant) -> str:
    return hashlib.sha256(mutant.name.encode()).hexdigest()
