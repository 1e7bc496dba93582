r"""Where a number, table, figure or file of a study comes from, and whether and why it would be made again.

Snakemake's records, which lie beside the results, say what each file was made from; the plan, which every call of
Snakemake writes (`snakemake -n` too), says what is asked for now. A rule's command is not looked at.
"""

import difflib
import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cifar_report.base.errors import InputError
from cifar_report.base.files import is_altered, read_json, sha256
from cifar_report.base.records import file_of
from cifar_report.data import datasets
from cifar_report.rendering.latex import plain
from cifar_report.rendering.words import shortened
from cifar_report.runs.planned import plan_of, planned_identity, planned_runs, planned_settings
from cifar_report.runs.record import read_record
from cifar_report.study import plan

RECORDS = ".records"  # beside the study's folder
SOURCE = "repository:"  # begins the name of a file that belongs to the sources, not to the study
LARGEST_CHECKSUM = 1_000_000  # bytes: above, Snakemake goes by time stamps alone
DIGESTED = (".npy", ".safetensors")  # dataset.json and run.json hold the digests of these, and stand for them


class Record(NamedTuple):
    """How Snakemake made a file. Files are named from the study's folder."""

    rule: str
    inputs: list[str]
    checksums: dict[str, str]  # SHA-256 of each small input
    job: tuple[str, int]  # its log and Snakemake's number of it, which what was made together has in common


class FinishedStudy:
    """A study's folder, Snakemake's record of each file in it, and its results by key.

    Raises:
        InputError: there are no records.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.records = records(folder)
        if not self.records:
            raise InputError(
                f"{folder.parent / RECORDS}: expected Snakemake's records of what {folder} was made from, found none; "
                f"run the study, or copy {folder.parent} as a whole"
            )

    @cached_property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """The results by key, each as text with the files that it comes from; empty before they are made."""
        path = self.folder / "numbers.json"
        return read_json(path) if path.is_file() else {}

    def plan_named(self, name: str) -> str:
        """The file of the plan that a name means, or empty."""
        relative = self._relative(name)
        return relative if relative.startswith("plan/") and (self.folder / relative).is_file() else ""

    def _relative(self, name: str) -> str:
        path, folder = Path(name).resolve(), self.folder.resolve()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name

    def file_named(self, name: str) -> str:
        """The file that a name means.

        Raises:
            InputError: the study has made none; near names are listed.
        """
        short = re.sub(r"^(tab|fig):", "", name)
        for candidate in (name, self._relative(name), f"tables/{short}.tex", f"figures/{short}.pdf"):
            if candidate in self.records:
                return candidate
        known = [*self.numbers, *self.records, *map(_short_name, self.records)]
        near = difflib.get_close_matches(name, dict.fromkeys(known), n=5, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "numbers.json has the results"
        raise InputError(
            f"{name}: expected a result, table, figure or file that {self.folder} has made, found none such; {hint} "
            "(`snakemake -n` tells what is still to be made)"
        )


def records(folder: Path) -> dict[str, Record]:
    """Snakemake's records of a study's files, by name.

    One that cannot be read counts as none: the next call of Snakemake removes it and makes the file again.
    """
    home, own = folder.parent / RECORDS, f"results/{folder.name}/"

    def named(file: str) -> str:
        return file.removeprefix(own) if file.startswith(own) else SOURCE + file

    found = {}
    for path in sorted(home.rglob("*")):
        file = file_of(path.relative_to(home))
        if not path.is_file() or not file.startswith(own):
            continue
        try:
            record = json.loads(path.read_text())
            inputs = sorted(map(named, record["input"]), key=lambda name: (name.startswith(SOURCE), name))
            checksums = {named(name): digest for name, digest in (record["input_checksums"] or {}).items()}
            job = record["log"][0], record["job_hash"]
            found[named(file)] = Record(record["rule"], inputs, checksums, job)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            continue
    return found


def explain(what: str, results: Path) -> str:
    r"""The chain of something in a study, and whether and why it would be made again, as indented text.

    Args:
        what: a result (`mlp-numpy.test-accuracy`, or `\result{…}` around it), a table or figure by its name or label,
            or a file, named from the study's folder or as a path.
        results: the study's folder.

    Raises:
        InputError: nothing that the study has made is called so; near names are listed.
    """
    study = FinishedStudy(results)
    name = re.sub(r"^\\result\{(.*)\}$", r"\1", what)
    if planned := study.plan_named(name):
        return _of_plan(planned, study)
    lines: list[str] = []
    if name in study.numbers:
        number = study.numbers[name]
        mean = f", the mean over {len(number['runs'])} runs" if "runs" in number else ""
        lines.append(textwrap.fill(f"{name} = {plain(number['text'])}{mean}", 110, subsequent_indent="  "))
        figure = name.removeprefix("figures.") if name.startswith("figures.") else ""
        file = study.file_named(f"figures/{figure}.pdf" if figure else "numbers.tex")
        inputs = study.numbers[f"sources.{figure}"]["files"] if figure else number["files"]
    else:
        file = study.file_named(name)
        inputs = study.numbers.get(f"sources.{_short_name(file)}", {}).get("files") or study.records[file].inputs
    reached: dict[str, None] = {}
    records = study.records | {file: study.records[file]._replace(inputs=inputs)}
    lines += _chain([file], records, reached)
    return "\n".join([*lines, "", *_footer(reached, study), "", *textwrap.wrap(made_again(file, study), 110)])


def _of_plan(planned: str, study: FinishedStudy) -> str:
    """What a file of the plan is made from, and what is made from it."""
    made = [file for file, record in study.records.items() if planned in record.inputs]
    source = (
        "the configuration (plan/config.yaml), the code and the sources"
        if planned.endswith(".json")
        else "config.yaml and all overlays"
    )
    told = f"{planned} is written by every call of Snakemake, from {source}. "
    told += f"Made from it, and again where it changes: {shortened(made)}." if made else "No file is made from it."
    if is_altered(study.folder / planned):
        told += " It was altered since; call Snakemake, which writes it again."
    return textwrap.fill(told, 110)


def _short_name(file: str) -> str:
    """`comparison` of figures/comparison.pdf, `tables/summary` of tables/summary.tex."""
    return re.sub(r"^figures/|\.(tex|pdf|svg)$", "", file)


def _chain(files: Iterable[str], records: dict[str, Record], reached: dict[str, None], indent: str = "") -> list[str]:
    """Lines that say which rule made these files, and below each line what it was made from.

    `reached` collects the files on the way; a rule that has been followed already is not followed again.
    """
    by_rule: dict[str, list[str]] = {}
    for file in sorted(files, key=lambda file: file in records):  # plan and sources, which nothing makes, come first
        by_rule.setdefault(records[file].rule if file in records else "", []).append(file)
    lines = []
    for rule, members in by_rule.items():
        again = any(records[file].rule == rule for file in reached if file in records)
        reached |= dict.fromkeys(members)
        ending = f"  <- {rule}" + (", as above" if again else "") if rule else ""
        lines.append(f"{indent}{shortened(members)}{ending}")
        if rule and not again:
            inputs = dict.fromkeys(file for member in members for file in records[member].inputs)
            lines += _chain(inputs, records, reached, indent + "  ")
    return lines


# --- what a chain ends in ---------------------------------------------------------------------------------------------


def _footer(reached: Iterable[str], study: FinishedStudy) -> list[str]:
    """The runs that a chain has reached, their settings, code and commits, and the data."""
    matches = (re.match(r"(runs|search)/[^/]+/[^/]+(?=/)", file) for file in reached)
    folders = list(dict.fromkeys(match[0] for match in matches if match))
    records = {folder: _run(study.folder / folder) for folder in folders}
    plans = {folder: read_json(study.folder / plan_of(folder)) for folder in folders}
    siblings = Counter(folder.rpartition("/")[0] for folder in folders)
    alone = [folder for folder in folders if folder.startswith("runs/") or siblings[folder.rpartition("/")[0]] == 1]
    searches = dict.fromkeys(folder.split("/")[1] for folder in folders if folder not in alone)

    lines = ["Runs"] if folders else []
    lines += [f"  {folder}  {_fate(folder, records[folder], study)}" for folder in alone]
    for search in searches:
        trials = [record for folder, record in records.items() if folder.startswith(f"search/{search}/")]
        counts = Counter(record["status"] if record else "not trained yet" for record in trials)
        lines.append(f"  search/{search}/*  {len(trials)} trials: {', '.join(f'{n} {s}' for s, n in counts.items())}")

    lines += ["Settings that differ from their defaults"] if folders else []
    for path, folder in {plan_of(folder): folder for folder in alone}.items():
        settings = planned_settings(folder, study.folder).canonical()
        lines += _wrapped(f"{path}: {', '.join(f'{name} {value}' for name, value in settings.items())}")
    for search in searches:
        path = f"plan/select/{search}.json"
        grid = plan.stage(study.folder / path)["grid"]
        lines += _wrapped(f"{path}: all of {'; '.join(f'{name} {values}' for name, values in grid.items())}")

    code: dict[str, dict[str, None]] = {}
    for folder, document in plans.items():
        code.setdefault(document["code"], {})[folder.split("/")[1]] = None
    lines += ["Code, as the SHA-256 of its syntax trees"] if code else []
    for digest, names in code.items():
        lines += _wrapped(f"{digest}: {', '.join(names)}")

    commits = Counter(_commit(record["commit"]) for record in records.values() if record)
    lines += ["Commits"] if commits else []
    lines += [f"  {commit}: {count} run{'s' if count > 1 else ''}" for commit, count in commits.items()]

    data = study.folder / "dataset" / "dataset.json"
    if data.is_file() and (folders or any(file.startswith("dataset/") for file in reached)):
        description = datasets.load(data.parent).description
        lines.append(
            f"Data: {description['name']}, read from the source {description['source']}; SHA-256 of its arrays"
        )
        lines += [f"  {digest}  {name}" for name, digest in description["sha256"].items()]
    return [*lines, "Configuration after all overlays: plan/config.yaml"]


def _run(folder: Path) -> dict[str, Any] | None:
    path = folder / "run.json"
    return read_record(path) if path.is_file() else None


def _fate(folder: str, run: dict[str, Any] | None, study: FinishedStudy) -> str:
    """Status and identity of a run, and whether the identity is that of the plan's settings and code on this data."""
    if run is None:
        return "not trained yet"
    same = planned_identity(folder, run, study.folder) == run["identity"]
    verdict = "as the plan and the data say" if same else "NOT of this plan and data"
    return f"{run['status']}, identity {run['identity'][:12]}, {verdict}"


def _commit(commit: dict[str, Any]) -> str:
    if commit["hash"] is None:
        return "outside a git checkout"
    date = datetime.fromtimestamp(commit["time"], UTC).date()
    return f"{commit['hash']} of {date}{', with changes that were not committed' if commit['dirty'] else ''}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="    ")


# --- whether it would be made again -----------------------------------------------------------------------------------


def made_again(file: str, study: FinishedStudy) -> str:
    """A sentence: whether a file would be made again, and why."""
    folder = re.match(r"(runs/[^/]+|search/[^/]+)/[^/]+(?=/)", file)
    if folder and folder[0] not in planned_runs(study.folder):
        return f"{file} would not be made again: the study does not ask for this run any more."
    if cause := _cause(file, study):
        of = "" if cause.file == file else f"{cause.file}, which it is made from, would be: "
        return f"{file} would be made again: {of}{cause.text}."
    if is_altered(study.folder / file):  # and large, so that Snakemake does not look at it
        return f"{file} would not be made again, but was altered since it was made; delete it, and it is made again."
    return f"{file} would not be made again: nothing that it is made from has changed since."


class _Cause(NamedTuple):
    """The file that would be made again by itself, and why."""

    file: str
    text: str


def _cause(file: str, study: FinishedStudy) -> _Cause | None:
    """Why a file would be made again: what is nearest to it, its own plan before what it is made from."""
    made_together: dict[tuple[str, int], list[str]] = {}
    for name, record in study.records.items():
        made_together.setdefault(record.job, []).append(name)

    @cache
    def cause(file: str) -> _Cause | None:
        record = study.records[file]
        together = made_together[record.job]
        if not (study.folder / file).is_file():
            return _Cause(file, "it is missing")
        if missing := [name for name in together if not (study.folder / name).is_file()]:
            return _Cause(file, f"{missing[0]}, which is made with it, is missing")
        small = (name for name in together if not name.endswith(DIGESTED))
        if altered := [name for name in small if is_altered(study.folder / name)]:
            which = "it" if altered[0] == file else f"{altered[0]}, which is made with it,"
            return _Cause(file, f"{which} was altered since")
        inputs = [name for name in record.inputs if not name.startswith(SOURCE)]  # the plan holds digests of sources
        if changed := _changed([name for name in inputs if not name.endswith(DIGESTED)], together, record, study):
            return _Cause(file, _difference(file, changed, study))
        return next(filter(None, (cause(name) for name in inputs if name in study.records)), None)

    return cause(file)


def _changed(inputs: list[str], together: list[str], record: Record, study: FinishedStudy) -> str:
    """The first input that is newer than what was made from it, and not known to be the same; empty if there is none.

    One that is missing is another matter: it would be made again itself.
    """
    oldest = min((study.folder / name).stat().st_mtime_ns for name in together)
    for name in inputs:
        path = study.folder / name
        if path.is_file() and path.stat().st_mtime_ns > oldest:
            same = path.stat().st_size <= LARGEST_CHECKSUM and record.checksums.get(name) == f"sha256:{sha256(path)}"
            if not same:
                return name
    return ""


def _difference(file: str, changed: str, study: FinishedStudy) -> str:
    """How an input differs from what a file was made from; of a run: in settings, data or code."""
    untold = f"{changed} is newer, and no record says that it is the same"
    if not re.match(r"(runs|search)/[^/]+/[^/]+/", file):
        what = "its settings, code or sources have" if changed.startswith("plan/") else "it has"
        known = changed in study.records[file].checksums
        return f"{changed} is another: {what} changed" if known else untold
    folder = str(Path(file).parent)
    run = _run(study.folder / folder) or {}
    settings = [
        f"{name} is {value} now and was {run['settings'].get(name)}"
        for name, value in planned_settings(folder, study.folder).full().items()
        if value != run["settings"].get(name)
    ]
    if settings:
        return f"{' and '.join(settings)} ({plan_of(folder)})"
    digests = datasets.load(study.folder / "dataset").digests()
    if data := [name for name, digest in run["data"]["digests"].items() if digests.get(name) != digest]:
        return f"the data are others, {', '.join(data)} (dataset/dataset.json)"
    if planned_identity(folder, run, study.folder) != run["identity"]:
        return f"the code that computes it has changed ({plan_of(folder)})"
    return f"{untold}, and yet it is that run, which the store still has"
