"""Finished runs as a file: taken from one machine's run store, verified, and put into another's.

The file is a tar of `<identity>/<name>`, uncompressed, since weights do not shrink. What comes in is trusted no further
than its digests go: only files of these names are written, each is compared with its SHA-256 in `run.json`, and the
identity is computed anew from the settings, the seed, the digests of the data and the code of this checkout.
"""

import io
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cifar_report.base.errors import InputError
from cifar_report.base.files import atomic, check_replaceable, read_json, sha256
from cifar_report.base.validation import checked
from cifar_report.data import datasets
from cifar_report.runs.consistency import contradiction
from cifar_report.runs.planned import planned_runs
from cifar_report.runs.record import StoredRecord, read_record, record_digest
from cifar_report.runs.store import RUN_FILES, identity_of, locked
from cifar_report.study import plan
from cifar_report.study.identity import code_digest, run_identity
from cifar_report.study.kinds import KINDS
from cifar_report.study.settings import Settings

MEMBER = re.compile(r"([0-9a-f]{64})/(run\.json|curve\.csv|model\.safetensors|test-logits\.npy)")
NEEDED = sorted(StoredRecord.model_fields)


def export(results: Path, store: Path, output: Path) -> tuple[int, int]:
    """Writes all finished runs of a study, its searches' trials included, to a tar; the same runs make the same bytes.

    Returns:
        How many runs were written, and how many of the study's plan are not finished.

    Raises:
        InputError: none is finished, the store lacks one, or something else than an earlier export would be lost.
    """
    check_replaceable(output, "export", _is_export)
    found, missing = _finished(results)
    if not found:
        raise InputError(f"{results}: expected finished runs to export, found none; train the study first")
    write(found, store, output)
    return len(found), missing


def write(identities: set[str], store: Path, output: Path) -> None:
    """Writes these finished runs of the store to a tar.

    Raises:
        InputError: the store lacks one.
    """
    with atomic(output) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(identities):
            folder = store / name / "finished"
            names = _record(folder / "run.json")["digests"]
            for path in sorted(folder / file for file in ("run.json", *RUN_FILES) if file in ("run.json", *names)):
                info = tarfile.TarInfo(f"{name}/{path.name}")
                content = _content(path)
                info.size, info.mode = len(content), 0o644
                archive.addfile(info, io.BytesIO(content))


def import_runs(source: Path, store: Path, results: Path | None = None) -> tuple[Counter, list[str]]:
    """Puts those runs of an export into the store that this checkout would have trained to just these files.

    Args:
        source: what `export` wrote.
        results: folder of a study; then a run must also have the study's data and the settings of one of its variants
            or trials.

    Returns:
        How many runs were "imported" and "already there", and a message for each that was refused.

    Raises:
        InputError: the file is damaged or not an export; nothing was imported.
    """
    counts: Counter = Counter()
    refused = []
    with _scratch(store / ".import") as scratch:
        unpacked = _unpack(source, scratch)
        codes = {kind: code_digest(kind) for kind in KINDS}
        study = _study(results) if results else {}
        good = []
        for folder in unpacked:  # all are examined before the first one enters
            try:
                _verify(folder, codes, study)
                good.append(folder)
            except InputError as error:
                told = str(error).replace(f"{folder}/", "")  # where it was unpacked to says nothing
                refused.append(f"{source}: {folder.name[:12]}: {told}")
        for folder in good:
            with locked(store / folder.name):
                finished = store / folder.name / "finished"
                if (finished / "run.json").is_file():
                    counts["already there"] += 1
                    continue
                shutil.rmtree(finished, ignore_errors=True)
                folder.rename(finished)
                counts["imported"] += 1
    return counts, refused


def _is_export(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
    except tarfile.TarError:
        return False
    return first is not None and MEMBER.fullmatch(first.name) is not None


def _finished(results: Path) -> tuple[set[str], int]:
    """The identities of a study's finished runs, and how many of its runs and trials are not finished."""
    records = [results / folder / "run.json" for folder in planned_runs(results)]
    there = [path for path in records if path.is_file()]
    return {identity_of(path) for path in there}, len(records) - len(there)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: expected a file of a finished run, found none; remove that folder, and the run is trained anew"
        ) from error


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """An empty folder of this process alone; what a killed one left in its place is removed."""
    with locked(home):
        folder = home / "runs"
        for path in (folder, *home.parent.glob(".import-*")):  # the latter of an earlier version
            shutil.rmtree(path, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _unpack(source: Path, scratch: Path) -> list[Path]:
    """The folders of the runs in an export, written below `scratch` under names that `MEMBER` allows.

    Without compression nothing can come out that is larger than the file; sparse entries, which could be, are refused.
    """
    try:
        with tarfile.open(source, "r:") as archive:
            for member in archive:
                name = MEMBER.fullmatch(member.name)
                if not name or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise InputError(
                        f"{source}: {member.name!r}: expected files of runs alone, found something else; export anew"
                    )
                path = scratch / name[1] / name[2]
                if path.exists():
                    raise InputError(f"{source}: {member.name}: is in it twice; export anew")
                with archive.extractfile(member) as content, atomic(path) as file:  # type: ignore[union-attr]
                    shutil.copyfileobj(content, file)
            # tarfile takes a damaged header, and the end of the file, for the end of the archive.
            archive.fileobj.seek(archive.offset)
            rest = archive.fileobj.read(tarfile.RECORDSIZE)
            if not rest or rest.strip(b"\0"):
                raise tarfile.ReadError("its end is missing or damaged")
    except FileNotFoundError as error:
        raise InputError(f"{source}: expected a file that export-runs wrote, found none") from error
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise InputError(
            f"{source}: expected a file that export-runs wrote, found a damaged or other one ({error}); copy it anew"
        ) from error
    if not any(scratch.iterdir()):
        raise InputError(f"{source}: expected runs, found none; export anew")
    return sorted(scratch.iterdir())


def _verify(folder: Path, codes: dict[str, str], study: dict[str, Any]) -> None:
    """Raises InputError naming what differs, where a run is not what this checkout would have trained."""
    run = _record(folder / "run.json")
    expected = {"run.json", *run["digests"]}
    if differ := sorted(expected ^ {path.name for path in folder.iterdir()}):
        raise InputError(f"{differ[0]}: is either missing or not in run.json's list of files; copy the file anew")
    if run["sha256"] != record_digest(run):
        raise InputError("run.json: its own SHA-256 is another one, so it was altered; export anew")
    for name, digest in run["digests"].items():
        if (found := sha256(folder / name)) != digest:
            raise InputError(f"{name}: expected SHA-256 {digest}, found {found}; it was altered or damaged")
    try:
        settings = Settings.from_mapping(run["settings"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"settings: this checkout does not know them ({error}); use the one that trained it"
        ) from error
    data, code = run["data"]["digests"], codes[settings.kind]
    if run.get("code", code) != code:
        raise InputError(
            f"code: what trains a {settings.kind} differs between this checkout and the one that trained it, commit "
            f"{run['commit'].get('hash')}; check that commit out, or train again"
        )
    if study and (differ := _differing(data, study["data"].digests())):
        raise InputError(
            f"data: {', '.join(differ)}: the run of '{run['data']['name']}' saw other arrays than those of this study; "
            "prepare the same data on both machines"
        )
    if not run["identity"] == folder.name == run_identity(settings, run["seed"], data, code):
        raise InputError(
            "identity: is not that of its settings, seed and data with this checkout's code, so they were altered, "
            f"or the code differs (commit {run['commit'].get('hash')}); check that commit out, or train again"
        )
    if study:
        own = settings.full()
        differ = min((_differing(own, _filled(own, *known)) for known in study["settings"]), key=len)
        if differ:
            raise InputError(
                f"settings: {', '.join(differ)}: differ from those of every variant and trial of this study, of the "
                "nearest in these; change the configuration, or import without --results"
            )
    if problem := contradiction(folder, run, study.get("data"), study.get("labels")):
        raise InputError(f"{problem}; what its files say does not go together: export anew")


def _study(results: Path) -> dict[str, Any]:
    """The data and test labels of a study, and the settings of its variants and trials, with what is chosen."""
    settings: list[tuple[dict[str, Any], list[str]]] = []
    searches = plan.stage(results / "plan/stages/search.json")
    for variant in plan.stage(results / "plan/stages/summarise.json")["variants"]:
        planned = read_json(results / "plan" / f"{variant['name']}.json")
        chosen = searches[planned["search"]]["grid"] if planned["search"] else ()
        settings.append((planned["settings"], list(chosen)))
    for search, known in searches.items():
        if "trials" in known:
            plans = [results / "plan/search" / search / f"{trial}.json" for trial in known["trials"]]
            settings += [(read_json(path)["settings"], []) for path in plans]
        else:
            drawn = read_json(results / "plan/halving" / f"{search}.json")
            settings.append((drawn["settings"], [*drawn["grid"], "steps"]))
    data = datasets.load(results / "dataset")
    # Where the arrays are not there yet, nothing is recomputed from them.
    labels = data.split("test")[1] if (results / "dataset/test-labels.npy").is_file() else None
    return {"settings": settings, "data": data, "labels": labels}


def _filled(found: dict[str, Any], planned: dict[str, Any], chosen: list[str]) -> dict[str, Any]:
    """All settings of a plan, those that a search chooses as they were found."""
    return Settings.from_mapping(planned | {name: found[name] for name in chosen}).full()


def _differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return sorted(key for key in found if found[key] != expected.get(key))


def _record(path: Path) -> dict[str, Any]:
    """A run.json that has all that an import compares and nothing else, and names no other files than a run's.

    Raises:
        InputError: it has not; the message begins with its path.
    """
    run = read_record(path)
    if missing := [name for name in NEEDED if name not in run]:
        raise InputError(f"{path}: '{missing[0]}' is missing; train it again")
    try:
        checked(partial(StoredRecord.model_validate, extra="forbid"), run, str(path))
    except InputError as error:
        raise InputError(f"{error}; remove the key, or use the checkout that trained it") from None
    if "kind" not in run["settings"]:
        raise InputError(f"{path}: settings: 'kind' is missing; train it again")
    if not {*RUN_FILES[:2]} <= set(run["digests"]) <= set(RUN_FILES):
        raise InputError(
            f"{path}: digests: expected those of {', '.join(RUN_FILES)}, found {', '.join(run['digests']) or 'none'}; "
            "train it again"
        )
    return run
