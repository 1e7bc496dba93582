"""run.json: all that is told of a run, written and read by one type."""

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, to_json, write_text
from cifar_report.base.validation import COMMIT, SHA256, check_plain, checked, refused
from cifar_report.study.kinds import KINDS
from cifar_report.study.settings import TYPES, digest

Count = Annotated[int, Field(ge=0, le=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Sha256 = Annotated[str, Field(pattern=SHA256)]


class _Part(BaseModel):
    """Of a run.json: values as JSON has them, none taken for another type; a key that is not known here is kept."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class Scores(_Part):
    """Of a whole split at the last step, in evaluation mode."""

    loss: float | None  # nats; None where it is no number
    accuracy: Annotated[float, Field(ge=0, le=1)]  # a fraction


class Device(_Part):
    """What a run was computed on."""

    cpu: str
    type: str | None = None  # cpu or cuda
    model: str | None = None  # vendor, family and model of the processor
    kernels: str | None = None  # for which processor the libraries chose their arithmetic
    gpu: str | None = None


class Commit(_Part):
    """Of the repository, when the run was begun."""

    hash: Annotated[str, Field(pattern=COMMIT)] | None
    time: Annotated[int, Field(ge=0, le=2**40)] | None  # seconds since 1970
    dirty: bool | None


class DataOfRun(_Part):
    """The data set, and the SHA-256 of each array that the run opened."""

    digests: dict[str, str]
    name: str | None = None
    source: str | None = None


class Subset(_Part):
    """How many images of a split the curve is evaluated on, and how many there are."""

    images: Count
    of: Count


class StoredRecord(_Part):
    """All that a run.json of the store says; what may be None is missing in runs of earlier versions."""

    seed: Count
    status: Literal["completed", "diverged"]
    step: Count | None = None
    identity: Sha256 | None = None
    code: Sha256 | None = None
    settings: dict[str, Any] | None = None
    final: dict[Literal["train", "validation", "test"], Scores]
    samples_seen: Count | None = None
    parameters: Count | None = None
    forward_flops: Count | None = None  # of one image
    seconds: Seconds | None = None  # of training
    evaluation_seconds: Seconds | None = None
    peak_memory_mb: Seconds | None = None  # MB of 10⁶ bytes
    device: Device | None = None
    threads: Count | None = None
    versions: dict[Literal["python", "numpy", "torch"], str] | None = None
    commit: Commit | None = None
    data: DataOfRun | None = None
    evaluation_subsets: dict[str, Subset] | None = None
    digests: dict[str, str] | None = None  # SHA-256 of each file of the run
    sha256: Sha256 | None = None  # of all the above

    @field_validator("settings")
    @classmethod
    def _of_their_types(cls, settings: dict[str, Any] | None) -> dict[str, Any] | None:
        for name, value in (settings or {}).items():
            kind = list[int] if TYPES.get(name) == tuple[int, ...] else TYPES.get(name, Any)
            if not _fits(kind, value):
                raise refused(f"{name}: {value!r}, expected a value of the type {kind}")
        if settings and settings.get("kind", next(iter(KINDS))) not in KINDS:
            raise refused(f"kind: {settings['kind']!r}, expected one of {', '.join(KINDS)}")
        return settings


class RunRecord(StoredRecord):
    """All that a run.json of a study says."""

    variant: str | None = None  # the study's name for it


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=ConfigDict(strict=True))


def _fits(kind: Any, value: Any) -> bool:
    try:
        _adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def record_digest(run: dict[str, Any]) -> str:
    """SHA-256 of what a run.json says, as JSON, without itself and the name that a study adds."""
    return digest({key: value for key, value in json.loads(to_json(run)).items() if key not in ("sha256", "variant")})


def write_record(path: Path, run: dict[str, Any]) -> None:
    """Writes a run.json with its own digest.

    Raises:
        ValidationError: it is not what `RunRecord` says.
    """
    sealed = run | {"sha256": record_digest(run)}
    RunRecord.model_validate(json.loads(to_json(sealed)))
    write_text(path, to_json(sealed))


def read_record(path: Path) -> dict[str, Any]:
    """A run.json, as `RunRecord` has it, its text printable; what is missing in it is not added.

    Raises:
        InputError: it is missing or not what it should be.
    """
    document = read_json(path)
    if empty := [name for name, value in document.items() if value is None] if isinstance(document, dict) else []:
        raise InputError(f"{path}: {empty[0]}: expected a value, found null; train it again")
    try:
        checked(RunRecord.model_validate, document, str(path))
        check_plain(document, str(path))
    except InputError as error:
        raise InputError(f"{error}; train it again") from None
    return document
