"""Files that are whole or absent, and seen to be as they were written.

Each is written under a name of its own, synced, then renamed. Of what is written in a study's folder, the digest is
kept below its `.sha256`, in a file of the same name, as `sha256sum` writes it: whoever reads the file compares it.
"""

import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cifar_report.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import yaml

DIGESTS = ".sha256"  # in a study's folder
MOST_VALUES, DEEPEST = 1_000_000, 50  # of a JSON or YAML file; far more than any has
_MERGE = ":merge"  # ends the tag of <<
_MARK = "plan/config.yaml"  # by which a study's folder is known
_DEPTH = 4  # its deepest files are runs/<variant>/seed-<n>/<file>


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
            _keep_digest(path, temporary)
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
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
    else:
        keep_digest(path)


def to_json(document: Any) -> str:
    """Indented JSON with a final newline; a float that is not finite becomes null, since JSON has no such number."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Parsed JSON.

    Raises:
        InputError: the file is missing, no file, unreadable, no JSON, or was altered.
    """
    try:
        document = json.loads(unaltered(path).read_text())
        for _ in _walked(document, _parts):
            pass
        return document
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a JSON file, found none; run the rule that makes it") from error
    except (ValueError, RecursionError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{path}: expected JSON, found something else ({error}); delete it and run again") from error


def read_yaml(path: Path) -> Any:
    """Parsed YAML. A key that stands twice in a mapping, of which YAML's readers drop the first unsaid, is refused.

    Raises:
        InputError: the file is missing, unreadable, no YAML or was altered, or has a key twice; the message names both
            lines.
    """
    import yaml

    try:
        return load_yaml(unaltered(path).read_text(), str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a YAML file, found none") from error
    except (yaml.YAMLError, ValueError, RecursionError, IsADirectoryError) as error:
        raise InputError(f"{path}: expected YAML, found something else ({' '.join(str(error).split())})") from error


def load_yaml(text: str, what: str, prepare: "Callable[[yaml.Node], None]" = lambda root: None) -> Any:
    """As `read_yaml`, of a text that messages call `what`; `prepare` may change the tags of its nodes before.

    Raises:
        InputError: a key stands twice, or a value does not fit its tag; yaml.YAMLError, ValueError, RecursionError: it
            is no YAML, or too large or deep.
    """
    import yaml

    loader = yaml_loader()(text)
    root = loader.get_single_node()
    if root is None:
        return None
    nodes = list(_walked(root, _parts))
    prepare(root)
    for node in nodes:
        if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(_MERGE):
            try:
                loader.construct_object(node)
            except yaml.YAMLError:
                raise
            except Exception as error:  # PyYAML's constructors raise errors of many kinds
                tag = node.tag.rpartition(":")[2]
                raise InputError(
                    f"{what}: line {node.start_mark.line + 1}: expected a value of the type {tag}, found "
                    f"{node.value!r:.60}; correct it, or put text in quotes"
                ) from error
    for key, first in _repeated(nodes, loader):
        line = key.start_mark.line + 1
        raise InputError(f"{what}: the key '{key.value}' is in line {first} and again in line {line}; keep one")
    return loader.construct_document(root)


def yaml_loader() -> Any:
    """The one class that reads YAML here: the readers in C and in Python do not take just the same."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _walked(root: Any, parts: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    """All values of a document, each as often as aliases repeat it.

    Raises:
        ValueError: they are too many, or nested too deeply, for what walks through them later.
    """
    waiting, count = [(root, 1)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise ValueError(f"expected at most {MOST_VALUES:,} values, {DEEPEST} deep, found more")
        yield value
        waiting += [(part, depth + 1) for part in parts(value)]


def _parts(value: Any) -> Iterable[Any]:
    """What a value of JSON or a node of YAML is made of."""
    if isinstance(value, dict):
        return value.values()
    below = getattr(value, "value", value)  # of a node
    if not isinstance(below, list):
        return ()
    return (part for item in below for part in (item if isinstance(item, tuple) else (item,)))


def _repeated(nodes: Iterable[Any], loader: Any) -> "Iterator[tuple[yaml.ScalarNode, int]]":
    """The keys of a YAML document whose value (1 is 01) their mapping has before, each with the line of that first."""
    import yaml

    for node in nodes:
        lines: dict[Any, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                name = key.tag if key.tag.endswith(_MERGE) else loader.construct_object(key)
                if name in lines:
                    yield key, lines[name]
                lines[name] = key.start_mark.line + 1


def read_table(path: Path) -> "pd.DataFrame":
    """A table of results, CSV. What names something is text, also where it reads as a number or as nothing: 007, null.

    Raises:
        InputError: the file is missing, no CSV, or was altered.
    """
    import pandas as pd

    try:
        text = dict.fromkeys(("variant", "search", "trial", "hidden", "first", "second", "tensor"), str)
        return pd.read_csv(unaltered(path), dtype=text, keep_default_na=False, na_values=[""])
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: expected a CSV file, found {error}; delete it and run again") from error


def unaltered(path: Path) -> Path:
    """The path of a file that is as it was written; of one whose digest no study keeps, nothing is known.

    Raises:
        InputError: it is another one.
    """
    if is_altered(path):
        raise InputError(
            f"{path}: was altered since it was made, as its SHA-256 is another one; call Snakemake again, which makes "
            "it again"
        )
    return path


def is_altered(path: Path) -> bool:
    """Whether a study keeps another digest of a file than it has; of a file that is not there, none differs."""
    study = _study_of(path)
    if study is None or not path.exists():
        return False
    try:
        known = (kept := _place_of_digest(path, study)).read_bytes()[:64]
    except FileNotFoundError:
        return kept.is_symlink()
    except OSError:  # a folder, or a file in the place of one: what was kept cannot be told
        return True
    return not path.is_file() or known != sha256(path).encode()


def digested(study: Path) -> list[Path]:
    """The files, there or not, whose digests a study keeps."""
    folder = study / DIGESTS
    kept = {path: study / path.relative_to(folder) for path in sorted(folder.rglob("[!.]*"))}
    return [path for digest, path in kept.items() if not digest.is_dir() or path.is_file()]


def keep_digest(path: Path) -> None:
    """Keeps the digest of a file that another program has written in a study's folder."""
    _keep_digest(path, path)


def check_replaceable(path: Path, what: str, is_one: Callable[[Path], bool]) -> None:
    """Raises InputError where a command would replace something else than what it has written before.

    Args:
        what: is written, as the message names it; is_one: whether a file is such.
    """
    if os.path.lexists(path) and (
        path.is_symlink() or not path.is_file() or (path.stat().st_size > 0 and not is_one(path))
    ):
        raise InputError(
            f"{path}: expected no file or an earlier {what}, found something else, which is left as it is; name another"
        )


def take_lock(path: Path, wait: bool = True) -> IO[bytes] | None:
    """A file that this process has locked, until it is closed; None where another process has it and none is to wait.

    A file that was removed while this process waited for it is not what the next one would lock: another is taken.

    Raises:
        InputError: it is no regular file of this one name, what should be its folder is none, or the file system has no
            locks.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not to wait for the other end of a pipe.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            if not stat.S_ISREG((about := os.fstat(descriptor)).st_mode) or about.st_nlink > 1:
                os.close(descriptor)
                raise OSError(errno.ELOOP, "no file of its own", str(path))
            file = os.fdopen(descriptor, "r+b")
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTDIR):  # of a link to nothing, too
                raise InputError(f"{blocked(error)}: expected a folder, found something else; remove it") from error
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise InputError(
                    f"{path}: expected a file to lock, found a link, another name of a file, a pipe or a folder; "
                    "remove it"
                ) from error
            if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):
                raise
            raise InputError(
                f"{path}: expected a file system with locks (flock), found '{error.strerror}'; keep results/ on a "
                "local disk"
            ) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def blocked(error: OSError) -> Path | None:
    """What lies in the place of a folder on the way to the file that an error names; None where all are folders."""
    path = Path(error.filename or "")
    return next(
        (place for place in (*reversed(path.parents), path) if os.path.lexists(place) and not place.is_dir()), None
    )


def lock_holder(path: Path) -> str:
    """Who has locked a file: as Linux tells, or where that has no process, what is said there (`process 1 on host`)."""
    for _ in range(20):  # until the holder has said so
        with suppress(OSError):
            about = path.stat()
            inode = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
            for _, kind, _, _, process, file, *_ in map(str.split, Path("/proc/locks").read_text().splitlines()):
                if kind == "FLOCK" and file == inode and process.isdecimal() and int(process):
                    return f"process {process} on {socket.gethostname()}"
        with suppress(OSError):
            said = path.read_bytes().decode(errors="replace")
            if re.fullmatch(r"process \d+ on \S+", said):
                return said
        time.sleep(0.05)
    return f"a process that has {path} open"


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


def _study_of(path: Path) -> Path | None:
    """The folder of the study that a file lies in, if it does."""
    return next((folder for folder in path.absolute().parents[:_DEPTH] if (folder / _MARK).is_file()), None)


def _place_of_digest(path: Path, study: Path) -> Path:
    return study / DIGESTS / path.absolute().relative_to(study)


def _keep_digest(path: Path, content: Path) -> None:
    """Keeps the digest of what is about to be a file: where the process is killed in between, it counts as altered."""
    if study := _study_of(path):
        place = _place_of_digest(path, study)
        line = f"{sha256(content)}  {path.absolute().relative_to(study).as_posix()}\n"
        if place.is_file() and place.read_bytes() == line.encode():
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(
                f"{blocked(error)}: expected a folder, in which digests are kept, found something else; remove it, "
                "then call Snakemake with --forceall: runs come from the store, and all else is made again"
            ) from error
        if place.is_dir():
            shutil.rmtree(place)
        temporary = place.with_name(f".{os.getpid()}.tmp")
        temporary.write_text(line)
        temporary.replace(place)


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
