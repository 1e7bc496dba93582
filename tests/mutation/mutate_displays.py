"""Evaluates every mutant of the displayed equations and writes docs/mutants-displays.md.

`python tests/mutation/mutate_displays.py`; `make mutants` runs it too.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from display_mutants import DisplayMutant, generate  # noqa: E402
from equations.grammar import parse  # noqa: E402
from equations.labels import digests  # noqa: E402
from equations.scenes import SCENES, scenes  # noqa: E402

from cifar_report.base.files import write_text  # noqa: E402
from cifar_report.study import displays  # noqa: E402

EQUIVALENT = Path(__file__).with_name("equivalent_displays.yaml")
DISPLAYS = displays.of_report(ROOT / "report")
MACROS = displays.macros_of((ROOT / "report/preamble.tex").read_text())
FATES = {
    "NotTrue": "other values",
    "Meaningless": "no value",
    "NotReadable": "no formula",
    "digest": "another digest",
    "": "equivalent",
}


def mutants() -> list[DisplayMutant]:
    """Of all displays, in their order."""
    return [mutant for display in DISPLAYS.values() for mutant in generate(display, MACROS)]


def fate(mutant: DisplayMutant) -> str:
    """What ends a mutant: a key of `FATES`, empty for a survivor."""
    label, statement = mutant.display.label, mutant.display.statement(MACROS)
    if label not in SCENES:
        return "digest" if mutant.display.digest(MACROS) != digests()[label] else ""
    try:
        for scene in scenes(label):
            scene.check(parse(statement))
    except (AssertionError, ValueError) as error:
        return type(error).__name__
    return ""


def equivalents() -> dict[str, str]:
    """Why a mutant states the same, or something else that is as true, by its name."""
    entries = yaml.safe_load(EQUIVALENT.read_text())
    return {name: " ".join(entry["reason"].split()) for entry in entries for name in entry["mutants"]}


def report(found: dict[DisplayMutant, str], reasons: dict[str, str]) -> str:
    """The Markdown of docs/mutants-displays.md."""
    evaluated = {mutant: end for mutant, end in found.items() if mutant.display.label in SCENES}
    escaped = "\\|"  # a bar ends no cell
    same = [
        f"| {m.display.label.removeprefix('eq:')} | `{m.display.row.replace('|', escaped)}` | {reasons.get(m.name)} |"
        for m, end in found.items()
        if not end
    ]
    lines = [
        "# Mutants of the displayed equations",
        "",
        "Written by `make mutants`. Each mutant is a small change of one row's LaTeX, as a slip of the pen makes it.",
        "The equations with the mark ✓ are evaluated as they are printed: there a mutant dies because a side has",
        "*other values*, because a side has *no value* (an index out of its range, shapes that do not fit, a letter",
        "that means nothing there), or because what is left is *no formula*. Those with the mark ∘ name the digest of",
        "what is printed, which any change changes.",
        "",
        f"{len(evaluated)} mutants of {len(SCENES)} evaluated displays: {sum(map(bool, evaluated.values()))} killed, "
        f"{sum(not end for end in evaluated.values())} equivalent. "
        f"{len(found) - len(evaluated)} of the other {len(DISPLAYS) - len(SCENES)}: all killed by the digest.",
        "",
        *_table("change", evaluated, lambda mutant: mutant.rule),
        "",
        "## Equivalent mutants",
        "",
        "| display | changed row | why it is as true |",
        "|---|---|---|",
        *same,
        "",
        "## Display by display",
        "",
        *_table("display", found, lambda mutant: mutant.display.label.removeprefix("eq:")),
    ]
    return "\n".join(lines) + "\n"


def _table(head: str, found: dict[DisplayMutant, str], group) -> list[str]:
    """How many mutants of each group met which end."""
    counts = Counter((group(mutant), end) for mutant, end in found.items())
    ends = [end for end in FATES if any(end == other for _, other in counts)]
    rows = [f"| {head} | mutants | {' | '.join(FATES[end] for end in ends)} |", "|---|" + "---|" * (len(ends) + 1)]
    for name in sorted({name for name, _ in counts}):
        numbers = [counts[name, end] for end in ends]
        rows.append(f"| {name} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    return rows


def main() -> None:
    """Writes the report; ends with an error where a mutant survives, or where a justification is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth mutant; nothing is written")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    every = mutants()
    reasons = equivalents()
    chosen = every[:: args.every]
    torch.set_num_threads(1)  # more do not survive a fork
    for label in SCENES:
        scenes(label)  # once, for all processes
    from mutate import forked

    parts = [chosen[i :: 4 * args.workers] for i in range(4 * args.workers)]
    jobs = [lambda part=part: [fate(mutant) for mutant in part] for part in parts]
    ends = {mutant: end for i, part in forked(jobs, args.workers) for mutant, end in zip(parts[i], part, strict=True)}
    found = {mutant: ends[mutant] for mutant in chosen}
    wrong = [f"survived: {m.name}" for m, end in found.items() if not end and m.name not in reasons]
    wrong += [f"killed, yet called equivalent: {m.name}" for m, end in found.items() if end and m.name in reasons]
    wrong += [f"{EQUIVALENT.name} names no mutant: {name}" for name in sorted(reasons.keys() - {m.name for m in every})]
    if len(found) == len(every):
        write_text(ROOT / "docs/mutants-displays.md", report(found, reasons))
    print(f"{len(found)} mutants, {sum(map(bool, found.values()))} killed")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
