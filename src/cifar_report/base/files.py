"""Files that are whole or absent: written under a name of their own, synced, then renamed."""

import errno
import fcntl
import glob
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cifar_report.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import yaml


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to, which becomes `path` when the block ends without an error, and else is removed.

    What a killed process left of an earlier attempt is removed too.

    Raises:
        OSError: naming `path`, also where the system names no file, as for a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if type(error) is not OSError or error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
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


def read_yaml(path: Path) -> Any:
    """Parsed YAML. A key that stands twice in a mapping, of which YAML's readers drop the first unsaid, is refused.

    Raises:
        InputError: the file is missing, unreadable or no YAML, or has a key twice; the message names both lines.
    """
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(path.read_text())
        root = loader.get_single_node()
        for key, first in _repeated(root):
            line = key.start_mark.line + 1
            raise InputError(f"{path}: the key '{key.value}' is in line {first} and again in line {line}; keep one")
        return loader.construct_document(root) if root else None
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a YAML file, found none") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected YAML, found something else ({' '.join(str(error).split())})") from error


def _repeated(root: Any) -> "Iterator[tuple[yaml.ScalarNode, int]]":
    """The keys of a YAML document that their mapping has before, each with the line of that first one."""
    import yaml

    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))  # an alias stands for one that was seen
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(item, item) for item in node.value]
        lines: dict[tuple[str, str], int] = {}
        for key, value in pairs:
            waiting += [key, value]
            if isinstance(node, yaml.MappingNode) and isinstance(key, yaml.ScalarNode):
                if (name := (key.tag, key.value)) in lines:
                    yield key, lines[name]
                lines[name] = key.start_mark.line + 1


def read_table(path: Path) -> "pd.DataFrame":
    """A table of results, CSV. What names something is text, also where it reads as a number or as nothing: 007, null.

    Raises:
        InputError: the file is missing or no CSV.
    """
    import pandas as pd

    try:
        text = dict.fromkeys(("variant", "search", "trial", "hidden", "first", "second"), str)
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a CSV file, found {error}; delete it and run again") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_digest(array: "np.ndarray") -> str:
    """SHA-256 of an array's dtype, shape and C-ordered bytes, hexadecimal."""
    import numpy as np

    found = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _remove_leftovers(path: Path) -> None:
    """Removes temporary files of `path` that no process holds the lock of any more."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _sync_folder(folder: Path) -> None:
    """Makes a rename in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not all file systems can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
