"""Why a file of a study would be made again, or would not, in a sentence.

It goes by the plan as it stands in the study's folder, which every call of Snakemake (`snakemake -n` too) writes anew,
and by Snakemake's records of what each file was made from. What a rule itself says, its command, it does not look at.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar_report.base.files import array_digest, read_json, sha256
from cifar_report.inspection.explain import REPOSITORY, Study, file_named, origins, plan_of, run_settings

LARGEST_CHECKSUM = 1_000_000  # bytes: above, Snakemake goes by time stamps alone
LARGE = (".npy", ".safetensors")  # a digest in dataset.json or run.json stands for these


class Reason(NamedTuple):
    """The file that would be made again by itself, and why."""

    file: str
    text: str


def why(what: str, results: Path) -> str:
    """The sentence.

    Args:
        what: a file, table or figure, named as for `explain`.
        results: the study's folder.

    Raises:
        InputError: the study has no such file.
    """
    study = Study(results, origins(results / "plan"), {})
    file = file_named(what, study)
    reason = _reasons(study)(file)
    if reason is not None:
        root = "" if reason.file == file else f"{reason.file}, which it is made from, would be: "
        return f"{file} would be made again: {root}{reason.text}."
    if altered := _altered(file, study):
        return f"{file} would not be made again, but is not what was made: {altered}; delete it, and it is made again."
    return f"{file} would not be made again: nothing that it is made from has changed since."


def _reasons(study: Study) -> Callable[[str], Reason | None]:
    """Why each file would be made again: what is nearest to it, its own plan before what it is made from."""

    @cache
    def reason(file: str) -> Reason | None:
        together = _made_together(file, study)
        if missing := [name for name in (file, *together) if not (study.folder / name).is_file()]:
            text = "it is missing" if missing[0] == file else f"{missing[0]}, which is made with it, is missing"
            return Reason(file, text)
        inputs = [name for name in study.origins[file].inputs if not name.startswith(REPOSITORY)]
        record = _record(file, study)
        if text := _changed(file, [name for name in inputs if not name.endswith(LARGE)], together, record, study):
            return Reason(file, text)
        return next(filter(None, (reason(name) for name in inputs if name in study.origins)), None)

    return reason


def _made_together(file: str, study: Study) -> list[str]:
    """What the job makes that makes a file."""
    origin = study.origins[file]
    return [
        name
        for name, other in study.origins.items()
        if other == origin and (not origin.rule.startswith("train_") or Path(name).parent == Path(file).parent)
    ]


def _changed(file: str, inputs: list[str], together: list[str], record: dict[str, Any], study: Study) -> str:
    """What has become of the inputs that are there since a file was made; empty if nothing."""
    oldest = min((study.folder / name).stat().st_mtime_ns for name in together)
    newer = [
        name for name in inputs if (study.folder / name).is_file() and (study.folder / name).stat().st_mtime_ns > oldest
    ]
    changed = [name for name in newer if not _is_same(name, record, study)]
    if changed and file.startswith(("runs/", "search/")) and not file.endswith("selected.yaml"):
        return _difference(str(Path(file).parent), changed[0], study)
    if changed:
        known = record.get("input_checksums", {}).get(_named(changed[0], study))
        what = "its settings, code or sources have" if changed[0].startswith("plan/") else "it has"
        return f"{changed[0]} is another: {what} changed" if known else _untold(changed[0])
    own = f"{_named('', study)}"
    before = {name.removeprefix(own) for name in record.get("input", ()) if name.startswith(own)}
    now = {name for name in study.origins[file].inputs if not name.startswith(REPOSITORY)}
    if before and before != now:
        signs = [*(f"+ {name}" for name in sorted(now - before)), *(f"- {name}" for name in sorted(before - now))]
        return f"it is made from other files: {', '.join(signs[:3])}{', …' if len(signs) > 3 else ''}"
    return ""


def _difference(folder: str, changed: str, study: Study) -> str:
    """How a run differs from its plan: in settings, data or code."""
    document, run = read_json(study.folder / plan_of(folder)), read_json(study.folder / folder / "run.json")
    planned = run_settings(document, study).full()
    settings = [
        f"{name} is {value} now and was {run['settings'].get(name)}"
        for name, value in planned.items()
        if value != run["settings"].get(name)
    ]
    digests = read_json(study.folder / "dataset/dataset.json")["sha256"]
    data = [name for name, digest in run["data"]["digests"].items() if digests.get(name) != digest]
    if settings:
        return f"{' and '.join(settings)} ({plan_of(folder)})"
    if data:
        return f"the data are others, {', '.join(data)} (dataset/dataset.json)"
    if "not" in _fate(folder, document, run, study):
        return f"the code that computes it has changed ({plan_of(folder)})"
    return f"{_untold(changed)}, and yet it is that run, which the store still has"


def _fate(folder: str, document: dict[str, Any], run: dict[str, Any], study: Study) -> str:
    from cifar_report.study.identity import run_identity

    expected = run_identity(run_settings(document, study), run["seed"], run["data"]["digests"], document["code"])
    return "is" if expected == run["identity"] else "is not"


def _untold(name: str) -> str:
    return f"{name} is newer, and no record says that it is the same"


def _is_same(name: str, record: dict[str, Any], study: Study) -> bool:
    """Whether an input is what it was when the file was made, as Snakemake tells it."""
    path = study.folder / name
    known = record.get("input_checksums", {}).get(_named(name, study))
    return path.stat().st_size <= LARGEST_CHECKSUM and known == f"sha256:{sha256(path)}"


def _record(file: str, study: Study) -> dict[str, Any]:
    """Snakemake's record of a file; empty if there is none."""
    name = urlsafe_b64encode(_named(file, study).encode()).decode()
    parts = [name[i : i + 254] for i in range(0, len(name), 254)]
    path = study.folder.parent.joinpath(".records", *(f"@{part}" for part in parts[:-1]), parts[-1])
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _named(name: str, study: Study) -> str:
    """As Snakemake names a file of the study."""
    return f"{study.folder.resolve().parent.name}/{study.folder.resolve().name}/{name}"


def _altered(file: str, study: Study) -> str:
    """Whether a file differs from the digest that was written when it was made."""
    path = study.folder / file
    if file.startswith("dataset/") and path.suffix == ".npy":
        expected = read_json(path.with_name("dataset.json"))["sha256"].get(path.stem)
        try:
            found = array_digest(np.load(path, mmap_mode="r"))
        except (ValueError, EOFError):
            return "it is no array"
        return "" if found == expected else "its SHA-256 differs from the one in dataset.json"
    run = path.with_name("run.json")
    if file.startswith(("runs/", "search/")) and path != run and run.is_file():
        expected = read_json(run).get("digests", {}).get(path.name)
        return "" if expected in (None, sha256(path)) else "its SHA-256 differs from the one in run.json"
    return ""
