"""The entries of a folder, tar or zip, read one after another without unpacking anything; hostile ones are refused."""

import bz2
import functools
import gzip
import hashlib
import io
import itertools
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, NoReturn

from cifar_report.base.errors import InputError
from cifar_report.base.letters import composed

LIMITS = {
    "entries": 1_000_000,  # of an archive or folder
    "file": 50_000_000,  # bytes of one entry
    "unpacked": 64_000_000_000,  # bytes of all entries
    "tar header": 1_000_000,  # bytes, long names and attributes included
    "zip directory": 128_000_000,  # bytes
    "pixels": 16_000_000_000,  # bytes of all decoded images
}
# What the readers of archives raise on damaged ones; RuntimeError is an encrypted zip, or headers nested too deeply.
READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    lzma.LZMAError,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)
TAR_BLOCK = 512  # bytes: headers and contents begin at its multiples, and one of zeros ends the archive
ZIP_HEADER = 30  # bytes of an entry's own header (APPNOTE 4.3.7): no entry is smaller; descriptors, of 24, are
UTF8_NAME = 0x800  # the flag of a zip's entry whose name is UTF-8 (APPNOTE 4.4.4, bit 11)


class Entry(NamedTuple):
    """A file or folder."""

    name: str  # with "/" between its parts, composed as in Unicode's NFC: systems write one name in two ways
    kind: int  # stat.S_IFREG, stat.S_IFDIR, or anything else
    size: int
    read: Callable[[], bytes]  # raises InputError where it is no file, or one larger than an image
    instead: str = "a link or device"  # what it is, where it is neither a file nor a folder


def entries(path: Path) -> Iterator[Entry]:
    """What a folder or archive holds, each to be read before the next is asked for.

    Nothing is unpacked to disk and no link is followed, but for a tar's hard links to files that it holds. Kind and
    size are checked where an entry is read: what is passed over by its name may be of any.

    Raises:
        InputError: it holds what no image folder has.
        READ_ERRORS: it is damaged.
    """
    unpacked = 0
    for count, entry in enumerate(_listed(path)):
        if count >= LIMITS["entries"]:
            raise _too_many(path)
        if entry.name.startswith("/") or ".." in PurePosixPath(entry.name).parts:
            raise InputError(f"{path}: {entry.name}: leads out of the archive, which is refused; pack it anew")
        unpacked += entry.size
        if unpacked > LIMITS["unpacked"]:
            raise InputError(
                f"{path}: expected at most {LIMITS['unpacked']:,} bytes unpacked, found more at {entry.name}; use fewer"
            )
        yield entry._replace(name=composed(entry.name), read=functools.partial(_checked, path, entry))


def _checked(path: Path, entry: Entry) -> bytes:
    """The content of an entry that is a file, and no larger than an image."""
    if entry.kind != stat.S_IFREG:
        raise InputError(
            f"{path}: {entry.name}: expected files and folders alone, found {entry.instead}; "
            "put the file itself in its place"
        )
    if entry.size > LIMITS["file"]:
        raise InputError(
            f"{path}: {entry.name}: expected at most {LIMITS['file']:,} bytes as an image has, "
            f"found {entry.size:,}; remove it"
        )
    return entry.read()


def located(text: str) -> Path:
    """A path of the configuration, whose `~` stands for the home directory, as in a shell."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # of nobody
        return Path(text)


def listing(path: Path) -> dict[str, Any] | None:
    """Tells a folder or archive from what it was before, without reading it; None where there is nothing.

    A digest of names, sizes and times. The time of a file's last change of state (ctime) is none that a program could
    set back, as `cp -p` does with the other one; those of folders tell that files in them have changed places.
    Of a path that leads through links, both where it ends and what lies there count.
    """
    if not path.exists():
        return None
    path = path.resolve()
    found = hashlib.sha256(os.fsencode(path))
    below = itertools.islice(_below(path, onerror=None), LIMITS["entries"] + 1) if path.is_dir() else ()
    files = [path, *sorted(below)]
    for file in files:
        with suppress(FileNotFoundError):  # it went meanwhile
            status = file.lstat()
            times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            found.update(os.fsencode(file.relative_to(path)) + b"\0" + times.encode() + b"\n")
    return {"entries": len(files), "digest": found.hexdigest()}


def _listed(path: Path) -> Iterator[Entry]:
    if path.is_dir():
        return _folder_entries(path)
    # First, since a tar may hold a zip, which is all that zipfile would see.
    if opener := _tar_opener(path):
        return _tar_entries(path, opener)
    if zipfile.is_zipfile(path):
        return _zip_entries(path)
    raise tarfile.ReadError("it is neither a tar nor a zip, or damaged")


def _too_many(path: Path) -> InputError:
    return InputError(f"{path}: expected at most {LIMITS['entries']:,} entries, found more; use fewer")


class _Sipped:
    """A file that its reader may ask for little at a time: what a header announces must not take all memory."""

    def __init__(self, file: IO[bytes], most: int, refusal: InputError) -> None:
        self.file, self.most, self.refusal = file, most, refusal
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.last = b""  # what was read last

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        self.last = b"" if size > self.most else self.file.read(size if size >= 0 else self.most + 1)
        if max(size, len(self.last)) > self.most:
            raise self.refusal
        return self.last


# --- folders ----------------------------------------------------------------------------------------------------------


def _folder_entries(path: Path) -> Iterator[Entry]:
    # The limit holds before the names are sorted, which puts the first error at the same file every time.
    for file in sorted(itertools.islice(_below(path), LIMITS["entries"] + 1)):
        status = file.lstat()
        name, kind = file.relative_to(path).as_posix(), stat.S_IFMT(status.st_mode)
        yield Entry(name, kind, status.st_size if kind == stat.S_IFREG else 0, file.read_bytes)


def _raise(error: OSError) -> NoReturn:
    raise error


def _below(path: Path, onerror: Callable[[OSError], None] | None = _raise) -> Iterator[Path]:
    """All files and folders, at any depth; unlike with `Path.rglob`, a folder that may not be read is an error."""
    for folder, folders, files in os.walk(path, onerror=onerror):
        yield from (Path(folder, name) for name in (*folders, *files))


# --- zips -------------------------------------------------------------------------------------------------------------


def _zip_entries(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        # ZipFile asks for the whole directory at once, and makes an object of each of its entries.
        sipped: Any = _Sipped(file, LIMITS["zip directory"], _too_many(path))
        archive = zipfile.ZipFile(sipped)
        _check_covered(file, archive)
        for info in archive.infolist():
            name = _zip_name(path, info)
            if name.endswith("/"):
                yield Entry(name, stat.S_IFDIR, 0, bytes)
                continue
            # Archives made elsewhere than on Unix leave the mode out.
            kind = stat.S_IFMT(info.external_attr >> 16) or stat.S_IFREG
            kind = kind if kind != stat.S_IFDIR else 0  # which its name denies
            # Opened even where nobody reads it: that verifies its name, which no checksum covers.
            with archive.open(info) as content:
                # Asked for its size, since one that unpacks to more would fill the memory before it is noticed.
                yield Entry(name, kind, info.file_size, functools.partial(content.read, info.file_size))


def _check_covered(file: IO[bytes], archive: zipfile.ZipFile) -> None:
    """Refuses a zip that holds more than its directory names: before, between or behind it, as `cat` leaves it.

    Raises:
        BadZipFile: there is room for an entry.
    """
    end, room = 0, "room for files that its directory does not name, from byte {}"
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset - end >= ZIP_HEADER:
            raise zipfile.BadZipFile(room.format(end))
        file.seek(info.header_offset + 26)
        lengths = sum(int.from_bytes(file.read(2), "little") for _ in ("name", "extra field"))
        end = info.header_offset + ZIP_HEADER + lengths + info.compress_size
    if archive.start_dir - end >= ZIP_HEADER:
        raise zipfile.BadZipFile(room.format(end))
    file.seek(-22 - len(archive.comment), os.SEEK_END)
    if file.read(4) != b"PK\5\6":
        raise zipfile.BadZipFile("more follows after its end")


def _zip_name(path: Path, info: zipfile.ZipInfo) -> str:
    """An entry's name, where packers that leave the rules aside are understood: backslashes, UTF-8 without its flag.

    Without the flag a name is of the code page 437, says the rule; most write that of their own system instead, which
    none can tell. An image's own name then stays as the rule reads it, since it only orders images.
    """
    name = info.filename
    if not info.flag_bits & UTF8_NAME:
        try:
            name = name.encode("cp437").decode()
        except UnicodeDecodeError:
            folder = name.replace("\\", "/").rpartition("/")[0]
            if not folder.isascii():
                raise InputError(
                    f"{path}: {name}: expected a folder's name in UTF-8, found one that does not say its encoding; "
                    "pack it anew, with a packer that writes UTF-8, or rename the folder"
                ) from None
    return name.replace("\\", "/")


# --- tars -------------------------------------------------------------------------------------------------------------


def _tar_entries(path: Path, opener: Callable[..., Any]) -> Iterator[Entry]:
    links: dict[PurePosixPath, list[str]] = {}  # by the file that they stand for
    stands_for: dict[PurePosixPath, PurePosixPath] = {}  # by the link, which a later one may name
    count = 0
    for member, read in _tar_members(path, opener):
        if member.islnk():
            target = _place(member.linkname)
            target = stands_for[_place(member.name)] = stands_for.get(target, target)
            links.setdefault(target, []).append(member.name)
            count += 1
            if count > LIMITS["entries"]:
                raise _too_many(path)
        elif member.isreg():
            yield Entry(member.name, stat.S_IFREG, member.size, read)
        else:
            yield Entry(member.name, stat.S_IFDIR if member.isdir() else 0, 0, bytes)
    # A second time through the archive, since what was passed is not kept and going back means to unpack it again.
    for member, read in _tar_members(path, opener) if links else ():
        if member.isreg():
            for name in links.pop(_place(member.name), ()):
                yield Entry(name, stat.S_IFREG, member.size, read)
    for target, names in links.items():
        for name in names:
            yield Entry(name, 0, 0, bytes, f"a hard link to {target}, which is no file of the archive")


def _place(name: str) -> PurePosixPath:
    return PurePosixPath(composed(name))


def _tar_members(path: Path, opener: Callable[..., Any]) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """The headers of a tar, each with what reads its content, from the first to the end or an error.

    tarfile's own iteration keeps every header, and takes a damaged one for the end of the archive.
    """
    with opener(path, "rb") as file:
        refusal = InputError(
            f"{path}: expected headers of at most {LIMITS['tar header']:,} bytes, found a larger one; pack it anew"
        )
        sipped: Any = _Sipped(file, LIMITS["tar header"], refusal)
        with tarfile.TarFile(fileobj=sipped, encoding="utf-8") as archive:
            member = archive.next()
            while member:
                if member.issparse():
                    raise InputError(
                        f"{path}: {member.name}: is stored with its holes left out, which is not read; "
                        "pack it anew without --sparse"
                    )
                size = member.size if member.isreg() else 0
                if size < 0:
                    raise tarfile.ReadError(f"{member.name}: a size of {size:,} bytes")
                end = member.offset_data + -(-size // TAR_BLOCK) * TAR_BLOCK
                yield member, functools.cache(functools.partial(_tar_content, file, member))
                if end > file.tell():
                    file.seek(end - 1)
                    if not file.read(1):
                        raise tarfile.ReadError("unexpected end of data")
                try:
                    member = tarfile.TarInfo.fromtarfile(archive)
                except tarfile.HeaderError as error:
                    if (sipped.last, file.tell()) != (bytes(TAR_BLOCK), end + TAR_BLOCK):
                        raise tarfile.ReadError(f"{error} at byte {end}") from error
                    member = None
        # Reading on to the end, past its padding, verifies the checksum of what is compressed.
        if file.read(1 << 20).strip(b"\0") or file.read(1):
            raise tarfile.ReadError("more follows after its end")


def _tar_content(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    """What follows a header that was just read."""
    content = file.read(member.size)
    if len(content) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _tar_opener(path: Path) -> Callable[..., Any] | None:
    """What opens a tar, which may be compressed: the first with which a header stands at its beginning."""
    # Of zeros, the older format that lzma reads as well takes each 13 for a stream of its own, and a minute for 600 MB.
    xz = functools.partial(lzma.open, format=lzma.FORMAT_XZ)
    for opener in (io.open, gzip.open, bz2.open, xz):
        with suppress(tarfile.HeaderError, *READ_ERRORS), opener(path, "rb") as file:
            tarfile.TarInfo.frombuf(file.read(TAR_BLOCK), "utf-8", "surrogateescape")
            return opener
    return None
