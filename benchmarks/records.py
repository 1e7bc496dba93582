"""What was measured on each processor: benchmarks/records/, a file a processor, and what follows from them.

A record is `{processor, model, cores, parts}`; each part of the suite has the commit, versions, data, time and load
that it was measured with, its `results` and its `info`. `python records.py` tells the goals, draws docs/bench.svg and
writes README.md's table of costs.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from timing import ROOT

from cifar_report.runs import machine

RECORDS = Path(__file__).parent / "records"
COSTS = "Study: core minutes by variant"
SMALL = 5  # core minutes: variants of less on each processor share a row
TABLE = re.compile(r"(?<=<!-- costs -->\n).*(?=<!-- /costs -->)", re.DOTALL)


class Row(NamedTuple):
    """A goal on a processor."""

    processor: str
    entry: dict[str, Any]
    commit: dict[str, Any]
    newest: bool  # whether no other processor's record of this part is of a later commit


def of_this_machine(folder: Path) -> Path:
    """The file of this processor's record: libraries choose their arithmetic by its model, whatever its name says."""
    return folder / f"{machine.cpu_model()} {os.cpu_count()} cores.json".replace(" ", "-")


def update(folder: Path, part: str, measured: dict[str, Any]) -> None:
    """Puts what was measured of a part into this processor's record; its other parts stay, with their commits."""
    path = of_this_machine(folder)
    known = json.loads(path.read_text())["parts"] if path.is_file() else {}
    head = {"processor": machine.cpu_name(), "model": machine.cpu_model(), "cores": os.cpu_count()}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | {"parts": known | {part: measured}}, indent=2, ensure_ascii=False) + "\n")


def read(folder: Path = RECORDS) -> list[dict[str, Any]]:
    """All records."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def name_of(record: dict[str, Any]) -> str:
    """What a record is told by: one processor with other cores has another."""
    return f"{record['processor']} ({record['model']}), {record['cores']} cores"


def goals(records: list[dict[str, Any]]) -> dict[str, list[Row]]:
    """What was measured for each goal, on each processor; goals that only earlier commits had are left out."""
    latest: dict[str, int] = {}
    for record in records:
        for part, measured in record["parts"].items():
            latest[part] = max(latest.get(part, 0), measured["commit"]["time"] or 0)
    found: dict[str, list[Row]] = {}
    for record in records:
        for part, measured in record["parts"].items():
            newest = (measured["commit"]["time"] or 0) == latest[part]
            for entry in measured["results"]:
                row = Row(name_of(record), entry, measured["commit"], newest)
                found.setdefault(entry["name"], []).append(row)
    return {name: rows for name, rows in found.items() if any(row.newest for row in rows)}


def is_met(rows: list[Row]) -> bool | None:
    """Whether the records of the newest measured commit meet a goal, each of them; None where none measured it."""
    verdicts = [row.entry["met"] for row in rows if row.newest and row.entry["met"] is not None]
    return all(verdicts) if verdicts else None


def costs(records: list[dict[str, Any]]) -> str:
    """A table in Markdown: runs and core minutes by variant and processor; empty where no record has any."""
    told: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for entry in record["parts"].get("study", {}).get("info", []):
            if entry["name"] == COSTS:
                told[name_of(record)] = entry["value"]
    names = {name: None for variants in told.values() for name in variants}
    small = [name for name in names if all(v[name][1] < SMALL for v in told.values() if name in v)]
    parts = {f"`{name}`": [name] for name in names if name not in small}
    parts |= {f"{len(small)} variants and searches of less than {SMALL} minutes each": small} if small else {}
    parts["all"] = list(names)
    lines = [["part", *(f"{name}: runs | core minutes" for name in told)]]
    lines.append(["---"] * (1 + 2 * len(told)))
    for label, members in parts.items():
        cells = [label]
        for variants in told.values():
            known = [variants[name] for name in members if name in variants]
            cells += [f"{sum(runs for runs, _ in known)}", f"{sum(m for _, m in known):.0f}"] if known else ["", ""]
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) if told else ""


def lines(found: dict[str, list[Row]]) -> Iterator[str]:
    """Each goal in a line, with a line for each processor below it."""
    for name, rows in found.items():
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[is_met(rows)]
        yield f"{name}: {rows[-1].entry['goal']}: {verdict}"
        for row in rows:
            age = "" if row.newest else ", an earlier commit, which does not count"
            ratio = row.entry["ratio"]["median"] if row.entry["ratio"] else "not measured"
            yield f"    {row.processor}: {ratio} at {str(row.commit['hash'])[:7]}{age}"


def publish() -> None:
    """Draws docs/bench.svg and writes README.md's table of costs, from all records."""
    import chart

    records = read()
    chart.draw(goals(records), ROOT / "docs/bench.svg")
    readme = ROOT / "README.md"
    if table := costs(records):
        readme.write_text(TABLE.sub(lambda _: f"\n{table}\n", readme.read_text()))


if __name__ == "__main__":
    publish()
    print("\n".join(lines(goals(read()))))
