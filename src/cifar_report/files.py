"""Files that are whole or absent: written under a name of their own, synced, then renamed."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cifar_report.errors import InputError


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to, which becomes `path` when the block ends without an error, and else is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, atomically."""
    with atomic(path) as file:
        file.write(text.encode())


def write_text_if_changed(path: Path, text: str) -> None:
    """Leaves a file that already says so alone, its time stamp included."""
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


def to_json(document: Any) -> str:
    """Indented JSON with a final newline; a float that is not finite becomes null, since JSON has no such number."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Parsed JSON.

    Raises:
        InputError: the file is missing, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a JSON file, found none; run the rule that makes it") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, found something else ({error}); delete it and run again") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
