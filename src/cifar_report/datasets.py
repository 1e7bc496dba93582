"""From a source of images to verified arrays: uint8 images (n, channels, height, width) and int64 labels."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from cifar_report.errors import InputError
from cifar_report.files import atomic, read_json, sha256, to_json, write_text
from cifar_report.randomness import Purpose, generator, stratified_indices

SPLITS = ("train", "validation", "test")
Arrays = tuple[UInt8[np.ndarray, "n channels height width"], Int[np.ndarray, " n"]]

CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
ARCHIVE_LIMITS = {"members": 2_000_000, "bytes of an image": 50_000_000}


@dataclass(frozen=True)
class Dataset:
    """Prepared arrays in a folder. They are mapped into memory, not read, and shared between jobs."""

    folder: Path
    description: dict[str, Any]

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
    def counts(self) -> dict[str, int]:
        """Images in each split."""
        return self.description["counts"]

    def split(self, name: str) -> Arrays:
        """Images and labels of train, validation or test, verified against their digests.

        Raises:
            InputError: an array is missing, or is not the one that was prepared.
        """
        return self._array(f"{name}-images"), self._array(f"{name}-labels")

    def digests(self, test: bool = True) -> dict[str, str]:
        """SHA-256 of each array, without those of the test split on request."""
        return {k: v for k, v in self.description["sha256"].items() if test or not k.startswith("test-")}

    def _array(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="c")
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: expected an array, found {error}; delete the dataset folder, it is remade"
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
        InputError: its dataset.json is missing or lacks a key.
    """
    path = folder / "dataset.json"
    description = read_json(path)
    wanted = ("name", "source", "class_names", "counts", "sha256")
    if not isinstance(description, dict) or (missing := [key for key in wanted if key not in description]):
        lacks = missing[0] if isinstance(description, dict) else wanted[0]
        raise InputError(f"{path}: the key '{lacks}' is missing; delete the dataset folder, it is remade")
    return Dataset(folder, description)


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and C-ordered bytes."""
    header = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).data).hexdigest()


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
    class_names, train, test = read(source, resources)
    images, labels = train
    if not validation_images <= len(labels) - len(class_names):
        raise InputError(
            f"config: validation_images: {validation_images}, but '{name}' has {len(labels)} training images"
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


def _read_digits(source: dict[str, Any], resources: Path) -> tuple[list[str], Arrays, Arrays]:
    """The 8×8 digits of scikit-learn, each pixel 3×3 times, padded to 32×32, the same in three channels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    large = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (4, 4), (4, 4)))
    images = np.ascontiguousarray(np.broadcast_to(large[:, None], (len(large), 3, 32, 32)))
    labels = digits.target.astype(np.int64)
    held_out = stratified_indices(labels, 360, np.random.default_rng(0))
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    return [str(c) for c in digits.target_names], (images[kept], labels[kept]), (images[held_out], labels[held_out])


def _read_image_folder(source: dict[str, Any], resources: Path) -> tuple[list[str], Arrays, Arrays]:
    """`train/<class>/*` and `test/<class>/*`, from a folder, a tar or a zip."""
    path = Path(source["path"])
    if not path.exists():
        raise InputError(
            f"{path}: expected a folder, tar or zip of images, found nothing; set datasets.<name>.path in the config"
        )
    if "sha256" in source and path.is_file() and (found := sha256(path)) != source["sha256"]:
        raise InputError(f"{path}: expected SHA-256 {source['sha256']}, found {found}; fetch the file again")
    by_split: dict[str, list[tuple[str, str, np.ndarray]]] = {"train": [], "test": []}
    try:
        for name, content in _members(path):
            parts = PurePosixPath(name).parts
            if len(parts) < 3 or parts[-3] not in by_split or not name.lower().endswith(IMAGE_ENDINGS):
                continue
            by_split[parts[-3]].append((parts[-2], name, _decoded(content, f"{path}: {name}")))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"{path}: the archive cannot be read to its end ({error}); fetch the file again") from error
    classes = {split: sorted({c for c, _, _ in images}) for split, images in by_split.items()}
    for split in by_split:
        if not classes[split]:
            raise InputError(f"{path}: expected images at {split}/<class>/*, found none")
    if differ := sorted(set(classes["train"]) ^ set(classes["test"])):
        where = "train" if differ[0] in classes["train"] else "test"
        raise InputError(f"{path}: the class '{differ[0]}' is in {where} alone; train and test need the same classes")
    first = by_split["train"][0]
    arrays = {}
    for split, images in by_split.items():
        images.sort(key=lambda image: image[:2])
        for _, name, pixels in images:
            if pixels.shape != first[2].shape:
                sizes = [f"{shape[2]}×{shape[1]}" for shape in (first[2].shape, pixels.shape)]
                raise InputError(f"{path}: {name}: expected {sizes[0]} pixels as {first[1]} has, found {sizes[1]}")
        labels = np.array([classes["train"].index(c) for c, _, _ in images], dtype=np.int64)
        arrays[split] = (np.stack([pixels for _, _, pixels in images]), labels)
    return classes["train"], arrays["train"], arrays["test"]


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each regular file of a folder or archive; nothing is unpacked to disk, no link followed."""
    limit = ARCHIVE_LIMITS["bytes of an image"]
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield _checked(path, info.filename, info.file_size, limit), archive.read(info)
    else:
        with tarfile.open(path) as archive:
            for count, member in enumerate(archive):
                if count >= ARCHIVE_LIMITS["members"]:
                    raise InputError(f"{path}: more than {ARCHIVE_LIMITS['members']} entries; this is no image folder")
                if member.isdir():
                    continue
                if not member.isreg():
                    raise InputError(f"{path}: {member.name}: expected files and folders alone, found a link or device")
                yield _checked(path, member.name, member.size, limit), archive.extractfile(member).read()


def _checked(path: Path, name: str, size: int, limit: int) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts:
        raise InputError(f"{path}: {name}: leads out of the archive; refused")
    if size > limit:
        raise InputError(f"{path}: {name}: {size} bytes, more than the {limit} that an image may have; refused")
    return name


def _decoded(content: bytes, name: str) -> np.ndarray:
    """RGB pixels, uint8 (3, height, width)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: expected an image, found a file that cannot be decoded ({error})") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _read_cifar10(source: dict[str, Any], resources: Path) -> tuple[list[str], Arrays, Arrays]:
    """The official archive, downloaded where no copy on disk is named, read by torchvision once it is verified."""
    raise InputError("not yet")
