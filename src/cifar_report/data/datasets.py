"""From a source of images to verified arrays: uint8 images (n, channels, height, width) and int64 labels."""

import hashlib
import io
import itertools
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jsonschema
import numpy as np
from jaxtyping import Int, UInt8

from cifar_report.base.errors import InputError
from cifar_report.base.files import array_digest, atomic, read_json, sha256, to_json, write_text
from cifar_report.base.randomness import Purpose, generator, stratified_indices

SPLITS = ("train", "validation", "test")
Arrays = tuple[UInt8[np.ndarray, "n channels height width"], Int[np.ndarray, " n"]]

CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"  # published at https://www.cs.toronto.edu/~kriz/cifar.html

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
# Pillow goes by content, not by ending, and has readers that start other programs (EPS).
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
LIMITS = {
    "entries": 1_000_000,  # of an archive or folder
    "file": 50_000_000,  # bytes of one entry
    "unpacked": 64_000_000_000,  # bytes of all entries
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
DESCRIPTION_SCHEMA = {
    "type": "object",
    "required": ["name", "source", "class_names", "counts", "shape", "sha256"],
    "properties": {
        "name": {"type": "string"},
        "source": {"enum": ["cifar10", "image-folder", "digits"]},
        "class_names": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "counts": {"type": "object", "required": SPLITS, "additionalProperties": {"type": "integer"}},
        "shape": {"type": "array", "minItems": 3, "maxItems": 3, "items": {"type": "integer"}},
        "sha256": {
            "type": "object",
            "required": [f"{split}-{part}" for split in SPLITS for part in ("images", "labels")],
            "additionalProperties": {"type": "string"},
        },
    },
}


@dataclass(frozen=True)
class Dataset:
    """Prepared arrays in a folder. They are mapped into memory, not read, and shared between jobs."""

    folder: Path
    description: dict[str, Any]
    opened: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The dataset's name in the configuration."""
        return self.description["name"]

    @property
    def source(self) -> str:
        """cifar10, image-folder or digits."""
        return self.description["source"]

    @property
    def class_names(self) -> list[str]:
        """By label."""
        return self.description["class_names"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.description["shape"])

    @property
    def counts(self) -> dict[str, int]:
        """Images in each split."""
        return self.description["counts"]

    def split(self, name: str) -> Arrays:
        """Images and labels of train, validation or test, verified against their digests.

        Raises:
            InputError: an array is missing, is not the one that was prepared, or not what dataset.json says of it.
        """
        images, labels = self._array(f"{name}-images"), self._array(f"{name}-labels")
        found = (len(images), len(labels), images.shape[1:], bool((labels < len(self.class_names)).all()))
        if found != (self.counts[name], self.counts[name], tuple(self.description["shape"]), True):
            raise InputError(
                f"{self.folder / 'dataset.json'}: its counts, shape or class_names are not those of the {name} arrays, "
                "so it was altered since it was prepared; delete the dataset folder, it is remade"
            )
        return images, labels

    def digests(self, test: bool = True) -> dict[str, str]:
        """SHA-256 of each array, without those of the test split on request."""
        return {k: v for k, v in self.description["sha256"].items() if test or not k.startswith("test-")}

    def arrays(self, test: bool = True) -> dict[str, np.ndarray]:
        """The arrays that `digests` names, each verified once.

        Raises:
            InputError: as of `split`.
        """
        for name in SPLITS[: 3 if test else 2]:
            if f"{name}-images" not in self.opened:
                self.opened.update(zip((f"{name}-images", f"{name}-labels"), self.split(name), strict=True))
        return {name: self.opened[name] for name in self.digests(test)}

    def _array(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            array = np.lib.format.open_memmap(path, mode="c")
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: expected an array, found no file; delete the dataset folder, it is remade"
            ) from error
        except Exception as error:  # NumPy's reader of headers raises errors of many kinds, such as TokenError
            raise InputError(
                f"{path}: expected an array, found a damaged file ({error}); delete the dataset folder, it is remade"
            ) from error
        if array_digest(array) != self.description["sha256"][name]:
            raise InputError(
                f"{path}: its SHA-256 differs from the one in dataset.json, so it was altered since it was prepared; "
                "delete the dataset folder, it is remade"
            )
        return array


def load(folder: Path) -> Dataset:
    """A dataset that `prepare` made.

    Raises:
        InputError: its dataset.json is missing or malformed.
    """
    path = folder / "dataset.json"
    description = read_json(path)
    violations = jsonschema.Draft202012Validator(DESCRIPTION_SCHEMA).iter_errors(description)
    if error := jsonschema.exceptions.best_match(violations):
        where = ".".join(map(str, error.absolute_path)) or "the top level"
        raise InputError(f"{path}: {where}: {error.message}; delete the dataset folder, it is remade")
    return Dataset(folder, description)


def prepare(name: str, source: dict[str, Any], validation_images: int, folder: Path, resources: Path) -> None:
    """Writes the arrays of all splits and, last, `dataset.json`.

    Args:
        name: of the dataset in the configuration; source: its entry there.
        validation_images: how many of the training images become the validation split, stratified; 0 for none.
        folder: where the arrays go; resources: where downloads go.

    Raises:
        InputError: the source is missing, altered or malformed.
    """
    read = {"cifar10": _read_cifar10, "image-folder": _read_image_folder, "digits": _read_digits}[source["source"]]
    class_names, train, test = read(f"datasets.{name}", source, resources)
    images, labels = train
    if not 0 <= validation_images <= len(labels) - len(class_names):
        raise InputError(
            f"config: validation_images: {validation_images}, but '{name}' has {len(labels)} training images in "
            f"{len(class_names)} classes; choose 0 to {max(len(labels) - len(class_names), 0)}"
        )
    held_out = stratified_indices(labels, validation_images, generator(0, Purpose.VALIDATION))
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    splits = {"train": (images[kept], labels[kept]), "validation": (images[held_out], labels[held_out]), "test": test}
    digests = {}
    for split, arrays in splits.items():
        for part, array in zip(("images", "labels"), arrays, strict=True):
            with atomic(folder / f"{split}-{part}.npy") as file:
                np.save(file, array)
            digests[f"{split}-{part}"] = array_digest(array)
    pixels = splits["train"][0]
    description = {
        "name": name,
        "source": source["source"],
        "class_names": class_names,
        "counts": {split: len(arrays[1]) for split, arrays in splits.items()},
        "shape": list(pixels.shape[1:]),
        "mean": pixels.mean(axis=(0, 2, 3)).tolist(),
        "std": pixels.std(axis=(0, 2, 3)).tolist(),
        "sha256": digests,
    }
    write_text(folder / "dataset.json", to_json(description))


def _read_digits(key: str, source: dict[str, Any], resources: Path) -> tuple[list[str], Arrays, Arrays]:
    """The 8×8 digits of scikit-learn, each pixel 3×3 times, padded to 32×32, in one channel."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (4, 4), (4, 4)))[:, None]
    labels = digits.target.astype(np.int64)
    held_out = stratified_indices(labels, 360, np.random.default_rng(0))
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    return [str(c) for c in digits.target_names], (images[kept], labels[kept]), (images[held_out], labels[held_out])


def _read_image_folder(key: str, source: dict[str, Any], resources: Path) -> tuple[list[str], Arrays, Arrays]:
    """`train/<class>/*` and `test/<class>/*`, from a folder, a tar or a zip, at its top or in one folder there.

    Images come by class and name. Files with other endings are passed over, as are hidden ones and those that macOS
    adds to archives.

    Where every file of train and test is grey, the arrays have one channel; one with colour gives all of them three.
    Grey is what Pillow opens in its modes 1 and L. Whether a file with room for colour uses it is not looked up: three
    equal channels, a palette (mode P) and grey with alpha (LA) are read as RGB.
    """
    path = Path(source["path"])
    if not (path.is_dir() or path.is_file()):
        raise InputError(
            f"{path}: expected a folder, tar or zip of images, found nothing; set {key}.path in the config"
        )
    if "sha256" in source:
        _verify_archive(path, source["sha256"], key)
    try:
        images, folders = _collected(path)
    except READ_ERRORS as error:
        raise InputError(
            f"{path}: cannot be read to its end ({error}); fetch it again, or set {key}.path to another copy"
        ) from error
    classes = _classes(path, images, folders)
    channels = max(len(image.pixels) for split in images.values() for image in split)
    arrays = []
    for split in images.values():
        split.sort(key=lambda image: (image.folder[-1], image.name))
        for before, after in itertools.pairwise(split):
            if before.name == after.name:
                raise InputError(f"{path}: {after.name}: is in the archive twice; pack it again")
        labels = np.array([classes.index(image.folder[-1]) for image in split], dtype=np.int64)
        pixels = np.empty((len(split), channels, *split[0].pixels.shape[1:]), dtype=np.uint8)
        for place, image in zip(pixels, split, strict=True):
            place[:] = image.pixels  # grey among colour goes into all three channels
        arrays.append((pixels, labels))
    train, test = arrays
    return classes, train, test


class _Image(NamedTuple):
    folder: tuple[str, ...]  # ..., split, class
    name: str
    pixels: UInt8[np.ndarray, "channels height width"]  # one channel or three


def _collected(path: Path) -> tuple[dict[str, list[_Image]], set[tuple[str, ...]]]:
    """The images of train and of test as they come, and all folders that stand for a class, empty ones included."""
    images: dict[str, list[_Image]] = {"train": [], "test": []}
    folders = set()
    count = channels = 0
    for entry in _entries(path):
        parts = PurePosixPath(entry.name).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        folder = parts[:-1] if entry.read else parts
        if len(folder) < 2 or folder[-2] not in images:
            continue
        folders.add(folder)
        if entry.read and entry.name.lower().endswith(IMAGE_ENDINGS):
            first = next(itertools.chain(images["train"], images["test"]), None)
            pixels = _decoded(entry.read(), f"{path}: {entry.name}", first)
            images[folder[-2]].append(_Image(folder, "/".join(parts), pixels))
            count, channels = count + 1, max(channels, len(pixels))
            if count * channels * pixels[0].size > LIMITS["pixels"]:
                raise InputError(
                    f"{path}: expected at most {LIMITS['pixels']:,} bytes of pixels, found more; use fewer"
                )
    return images, folders


def _verify_archive(path: Path, expected: str, key: str) -> None:
    if path.is_dir():
        raise InputError(
            f"{path}: expected an archive, since {key}.sha256 is given, found a folder, which has no SHA-256; "
            "name the archive, or the folder in an entry without sha256"
        )
    if (found := sha256(path)) != expected:
        raise InputError(f"{path}: expected SHA-256 {expected}, found {found}; fetch the file again")


def _classes(path: Path, images: dict[str, list[_Image]], folders: set[tuple[str, ...]]) -> list[str]:
    """The sorted class names, once train and test are known to have the same, each with images, in one place."""
    for split in images:
        if not images[split]:
            raise InputError(f"{path}: expected images at {split}/<class>/*, found none ({', '.join(IMAGE_ENDINGS)})")
    tops = sorted({image.folder[:-2] for split in images.values() for image in split})
    if len(tops) > 1:
        two = " and ".join("/".join((*top, "train")) for top in tops[:2])
        raise InputError(f"{path}: expected one data set, found several ({two}); keep one of them")
    filled = {image.folder for split in images.values() for image in split}
    classes = {split: {folder[-1] for folder in filled if folder[-2] == split} for split in images}
    for folder in sorted(folders - filled):
        if folder[:-2] == tops[0]:
            raise InputError(f"{path}: {'/'.join(folder)}: expected images, found none; add some or remove the folder")
    if differ := sorted(classes["train"] ^ classes["test"]):
        where = "train" if differ[0] in classes["train"] else "test"
        raise InputError(f"{path}: the class '{differ[0]}' is in {where} alone; train and test need the same classes")
    for name in classes["train"]:
        if not name.isprintable():
            raise InputError(f"{path}: the class {name!r} has a name that cannot be printed; rename its folder")
    return sorted(classes["train"])


def _decoded(content: bytes, name: str, like: _Image | None) -> UInt8[np.ndarray, "channels height width"]:
    """Pixels of an image file of the same size as another: one channel where its mode is grey, else RGB."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            expected = like.pixels.shape[:0:-1] if like else image.size
            if image.size == expected and image.mode[0] not in "IF":
                if image.mode in ("1", "L"):
                    return np.asarray(image.convert("L"))[None]
                return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
            size, mode = image.size, image.mode
    except Exception as error:  # Pillow's readers raise errors of many kinds on damaged files
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{name}: expected an image, found a damaged file ({reason}); replace or remove it") from error
    if like and size != expected:
        raise InputError(
            f"{name}: expected {expected[0]}×{expected[1]} pixels as {like.name} has, found {size[0]}×{size[1]}; "
            "all images need one size"
        )
    raise InputError(f"{name}: expected 8 bits a channel, found more (mode {mode}); convert the image")


class _Entry(NamedTuple):
    name: str
    kind: int  # stat.S_IFREG, stat.S_IFDIR, or anything else
    size: int
    read: Callable[[], bytes] | None  # None for what is no file


def _entries(path: Path) -> Iterator[_Entry]:
    """The files and folders of a folder or archive, each to be read before the next is asked for.

    Nothing is unpacked to disk and no link is followed.

    Raises:
        InputError: it holds what no image folder has.
    """
    entries = _folder_entries if path.is_dir() else _zip_entries if zipfile.is_zipfile(path) else _tar_entries
    unpacked = 0
    for count, entry in enumerate(entries(path)):
        if count >= LIMITS["entries"]:
            raise InputError(f"{path}: expected at most {LIMITS['entries']:,} entries, found more; use fewer")
        if entry.name.startswith("/") or ".." in PurePosixPath(entry.name).parts:
            raise InputError(f"{path}: {entry.name}: leads out of the archive, which is refused; pack it anew")
        if entry.kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise InputError(
                f"{path}: {entry.name}: expected files and folders alone, found a link or device; "
                "put the file itself in its place"
            )
        _check_size(f"{path}: {entry.name}", entry.size)
        unpacked += entry.size
        if unpacked > LIMITS["unpacked"]:
            raise InputError(f"{path}: expected at most {LIMITS['unpacked']:,} bytes unpacked, found more; use fewer")
        yield entry


def _folder_entries(path: Path) -> Iterator[_Entry]:
    # The limit holds before the names are sorted, which puts the first error at the same file every time.
    for file in sorted(itertools.islice(path.rglob("*"), LIMITS["entries"] + 1)):
        status = file.lstat()
        name, kind = file.relative_to(path).as_posix(), stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            yield _Entry(name, kind, status.st_size, file.read_bytes)
        else:
            yield _Entry(name, kind, 0, None)


def _zip_entries(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as file:
        # ZipFile reads the whole directory into memory, so its size is looked up first.
        if zipfile._EndRecData(file)[zipfile._ECD_SIZE] > LIMITS["zip directory"]:  # type: ignore[attr-defined]
            raise InputError(f"{path}: expected at most {LIMITS['entries']:,} entries, found more; use fewer")
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    yield _Entry(info.filename, stat.S_IFDIR, 0, None)
                    continue
                # Archives made elsewhere than on Unix leave the mode out.
                kind = stat.S_IFMT(info.external_attr >> 16) or stat.S_IFREG
                # Opened even where nobody reads it: that verifies its name, which no checksum covers.
                with archive.open(info) as content:
                    yield _Entry(info.filename, kind, info.file_size, content.read)


def _tar_entries(path: Path) -> Iterator[_Entry]:
    try:
        opened = tarfile.open(path, tarinfo=_TarInfo)  # noqa: SIM115
    except tarfile.ReadError as error:
        raise tarfile.ReadError("it is neither a tar nor a zip, or damaged") from error
    with opened as archive:
        while member := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header
            if member.isreg():
                yield _Entry(member.name, stat.S_IFREG, member.size, archive.extractfile(member).read)  # type: ignore[union-attr]
            else:
                yield _Entry(member.name, stat.S_IFDIR if member.isdir() else 0, 0, None)
        # Reading on to the end, past its padding, verifies the checksum of what is compressed.
        if archive.fileobj.read(1 << 20).strip(b"\0"):
            raise tarfile.ReadError("more follows after its end")


class _TarInfo(tarfile.TarInfo):
    """A header that is refused when it is damaged, where tarfile takes that for the end, or announces too much."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_TarInfo":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # a block of zeros, which ends an archive
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}") from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Called for every header, those of long names and attributes included, before what they announce is read."""
        _check_size(f"{archive.name!s}: {self.name}", self.size)
        return super()._proc_member(archive)  # type: ignore[misc]


def _check_size(name: str, size: int) -> None:
    if size > LIMITS["file"]:
        raise InputError(
            f"{name}: expected at most {LIMITS['file']:,} bytes as an image has, found {size:,}; remove it"
        )


def _read_cifar10(key: str, source: dict[str, Any], resources: Path) -> tuple[list[str], Arrays, Arrays]:
    """The official archive, downloaded where no copy on disk is named, read by torchvision once it is verified.

    Its batches are pickles, which can run any code: the very bytes that are unpacked are verified first.
    """
    if "archive" in source:
        path = Path(source["archive"])
        if not path.is_file():
            raise InputError(f"{path}: expected {CIFAR10_ARCHIVE}, found nothing; correct {key}.archive in the config")
    else:
        from cifar_report.data.downloads import fetch

        path = resources / CIFAR10_ARCHIVE
        advice = f"set {key}.archive to a copy on disk, or {key}.mirrors to other addresses"
        fetch(source.get("mirrors", ()), path, CIFAR10_SHA256, advice)
    content = path.read_bytes()
    for algorithm, expected in (("sha256", CIFAR10_SHA256), ("md5", CIFAR10_MD5)):
        found = hashlib.new(algorithm, content, usedforsecurity=algorithm == "sha256").hexdigest()
        if found != expected:
            raise InputError(
                f"{path}: expected {CIFAR10_ARCHIVE} with the {algorithm.upper()} {expected}, found {found} "
                f"({len(content):,} bytes), so it is truncated or altered; fetch it again"
            )
    from torchvision.datasets import CIFAR10

    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            # The way to ask for the filter that also works where Python 3.11 does not have it yet (before 3.11.4).
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(folder)
        splits = [CIFAR10(folder, train=train, download=False) for train in (True, False)]
    arrays = [
        (np.ascontiguousarray(split.data.transpose(0, 3, 1, 2)), np.array(split.targets, dtype=np.int64))
        for split in splits
    ]
    train, test = arrays
    return list(splits[0].classes), train, test
