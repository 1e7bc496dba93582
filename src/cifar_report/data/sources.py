"""Reads each source of images: the official CIFAR-10, a folder of images, scikit-learn's digits.

A reader is called with the key of the source in the configuration, for its messages, the entry there, and the folder
for downloads. Images are uint8 (n, channels, height, width), labels int64.
"""

import hashlib
import io
import itertools
import re
import stat
import struct
import tarfile
import tempfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from cifar_report.base.errors import InputError
from cifar_report.base.files import sha256
from cifar_report.base.randomness import stratified_indices
from cifar_report.data.archives import LIMITS, READ_ERRORS, entries, located

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Arrays = tuple[UInt8[np.ndarray, "n channels height width"], Int[np.ndarray, " n"]]

CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"  # published at https://www.cs.toronto.edu/~kriz/cifar.html

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
# Pillow goes by content, not by ending, and has readers that start other programs (EPS).
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
# How a file of each of them begins.
IMAGE_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|BM....\0\0\0\0|GIF8[79]a|P[1-6]\s|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL
)
ORIENTATION, COLOUR_MAP = 274, 320  # tags of TIFF, the first of EXIF too
# What systems put beside images unasked, besides names that begin with a dot.
SYSTEM_FILES = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information")


class Contents(NamedTuple):
    """What a source holds."""

    class_names: list[str]  # by label
    train: Arrays
    test: Arrays
    passed_over: dict[str, int] = {}  # noqa: RUF012  # files that are not read, counted by reason


def read(key: str, source: dict[str, Any], resources: Path) -> Contents:
    """All of a source.

    Raises:
        InputError: it is missing, altered or malformed.
    """
    return READERS[source["source"]](key, source, resources)


# --- the digits -------------------------------------------------------------------------------------------------------


def read_digits(key: str, source: dict[str, Any], resources: Path) -> Contents:
    """The 8×8 digits of scikit-learn, each pixel 3×3 times, padded to 32×32, in one channel."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (4, 4), (4, 4)))[:, None]
    labels = digits.target.astype(np.int64)
    held_out = stratified_indices(labels, 360, np.random.default_rng(0))
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    names = [str(c) for c in digits.target_names]
    return Contents(names, (images[kept], labels[kept]), (images[held_out], labels[held_out]))


# --- folders of images ------------------------------------------------------------------------------------------------


def read_image_folder(key: str, source: dict[str, Any], resources: Path) -> Contents:
    """`train/<class>/*` and `test/<class>/*`, from a folder, a tar or a zip, at its top or in one folder there.

    Images come by class and name. What else lies there is passed over, counted, and told of in a line.

    Where every file of train and test is grey, the arrays have one channel; one with colour gives all of them three.
    Grey is what Pillow opens in its modes 1 and L. Whether a file with room for colour uses it is not looked up: three
    equal channels, a palette (mode P) and grey with alpha (LA) are read as RGB.
    """
    path = located(source["path"])
    if not (path.is_dir() or path.is_file()):
        raise InputError(
            f"{path}: expected a folder, tar or zip of images, found nothing; set {key}.path in the config"
        )
    if "sha256" in source:
        _verify_archive(path, source["sha256"], key)
    try:
        images, folders, passed_over = _collected(path)
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
                raise InputError(f"{path}: {after.name}: is there twice; keep one of them")
        labels = np.array([classes.index(image.folder[-1]) for image in split], dtype=np.int64)
        pixels = np.empty((len(split), channels, *split[0].pixels.shape[1:]), dtype=np.uint8)
        for place, image in zip(pixels, split, strict=True):
            place[:] = image.pixels  # grey among colour goes into all three channels
        arrays.append((pixels, labels))
    train, test = arrays
    return Contents(classes, train, test, passed_over)


class _Image(NamedTuple):
    folder: tuple[str, ...]  # ..., split, class
    name: str
    pixels: UInt8[np.ndarray, "channels height width"]  # one channel or three


def _collected(path: Path) -> tuple[dict[str, list[_Image]], set[tuple[str, ...]], dict[str, int]]:
    """The images of train and of test as they come, all folders that stand for a class, and what is passed over."""
    images: dict[str, list[_Image]] = {"train": [], "test": []}
    folders: set[tuple[str, ...]] = set()
    passed_over: Counter[str] = Counter()
    examples: dict[str, str] = {}
    channels = 0
    for entry in entries(path):
        parts = PurePosixPath(entry.name).parts
        folder = parts if entry.kind == stat.S_IFDIR else parts[:-1]
        if not _hidden(folder):  # not all archives have entries for the folders themselves
            folders.update(folder[: i + 2] for i, part in enumerate(folder[:-1]) if part in images)
        if entry.kind == stat.S_IFDIR:
            continue
        if reason := _reason_to_pass(parts, entry.kind == stat.S_IFREG):
            passed_over[reason] += 1
            examples.setdefault(reason, entry.name)
            continue
        first = next(itertools.chain(images["train"], images["test"]), None)
        pixels = _decoded(entry.read(), f"{path}: {entry.name}", first)
        images[folder[-2]].append(_Image(folder, "/".join(parts), pixels))
        channels = max(channels, len(pixels))
        if sum(map(len, images.values())) * channels * pixels[0].size > LIMITS["pixels"]:
            raise InputError(f"{path}: expected at most {LIMITS['pixels']:,} bytes of pixels, found more; use fewer")
    if passed_over:
        told = (f"{reason}: {count:,} (such as {examples[reason]!r})" for reason, count in sorted(passed_over.items()))
        print(f"{path}: files passed over: {', '.join(told)}", flush=True)
    return images, folders, dict(sorted(passed_over.items()))


def _hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part.lower() in SYSTEM_FILES for part in parts)


def _reason_to_pass(parts: tuple[str, ...], is_file: bool) -> str:
    """Why a file is none of the images; empty for one that is, and for a link in train or test, which is then refused.

    That might stand for a class's folder, or for train or test themselves.
    """
    *folders, name = parts
    places = [place for place, part in enumerate(folders if is_file else parts) if part in ("train", "test")]
    if _hidden(parts):
        return "hidden"
    if not places:
        return "outside train and test"
    if not is_file:
        return ""
    if len(folders) - 2 in places:
        return "" if name.lower().endswith(IMAGE_ENDINGS) else "other ending"
    return "deeper folder" if places[0] < len(folders) - 2 else "outside a class"


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
    if len(classes["train"]) < 2:
        raise InputError(f"{path}: expected at least two classes, found one ({name}); add a folder for another")
    return sorted(classes["train"])


def _decoded(content: bytes, name: str, like: _Image | None) -> UInt8[np.ndarray, "channels height width"]:
    """Pixels of an image file of the same size as another: one channel where its mode is grey, else RGB."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            pixels = _pixels(image, content, like)
            # An MPO's others are known, and a TIFF has no end: what it names may lie anywhere.
            if image.format not in ("MPO", "TIFF") and _is_followed(content):
                raise InputError("expected one image, found another behind it; save the one you mean")
            return pixels
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except Exception as error:  # Pillow's readers raise errors of many kinds on damaged files
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{name}: expected an image, found a damaged file ({reason}); replace or remove it") from error


def _is_followed(content: bytes) -> bool:
    """Whether a file holds an image to its end, and behind it another, which a reader may or may not look for.

    Images within an image, such as a photo's preview, follow nothing that is whole.
    """
    from PIL import Image

    for start in IMAGE_STARTS.finditer(content, 1):
        try:
            with Image.open(io.BytesIO(content[start.start() :]), formats=IMAGE_FORMATS):
                pass
            with Image.open(before := io.BytesIO(content[: start.start()]), formats=IMAGE_FORMATS) as image:
                image.verify()  # which knows where a PNG ends
            with Image.open(before, formats=IMAGE_FORMATS) as image:
                image.load()
            return True
        except Exception:  # Pillow's readers raise errors of many kinds
            continue
    return False


def _states_orientation_elsewhere(image: "ImageFile") -> bool:
    """Whether Pillow would turn an image by what stands in XMP or in text, where EXIF says otherwise or nothing."""
    from PIL import Image

    taken, own = image.getexif().get(ORIENTATION, 1), Image.Exif()
    own.load(image.info.get("exif", b""))
    return taken != getattr(image, "tag_v2", own).get(ORIENTATION, 1)  # type: ignore[no-any-return]


def _pixels(image: "ImageFile", content: bytes, like: _Image | None) -> UInt8[np.ndarray, "channels height width"]:
    """The colours that an opened image stores, turned as its EXIF orientation says; refused where they depend on more.

    They are taken for sRGB: colour profiles (ICC), gamma and chromaticities are not applied. Of an MPO, a camera's JPEG
    with others behind it, the first is read.
    """
    from PIL import ImageOps

    layout = str(image.tile[0].args) if image.tile else ""  # as the file has the pixels, before they are decoded
    if image.mode[0] in "IF":
        raise InputError(f"expected 8 bits a channel, found more (mode {image.mode}); convert the image")
    # Of one that says it is an animation, Pillow takes what lies around a small frame for black.
    moving = image.get_format_mimetype() == "image/apng" or (content[12:16] == b"VP8X" and content[20] & 2)
    if moving or (getattr(image, "is_animated", False) and image.format != "MPO"):
        raise InputError("expected one image, found an animation or pages; save the one you mean")
    if image.format == "GIF":
        assert image.fp
        image.fp.seek(6)
        screen = struct.unpack("<HH", image.fp.read(4))  # GIF89a, section 18; Pillow makes room for a larger frame
        if image.tile[0].extents != (0, 0, *screen):
            raise InputError("expected a frame that covers the GIF's screen, found another; save it as PNG")
    if image.mode[0] == "P" and 0 < max(getattr(image, "tag_v2", {}).get(COLOUR_MAP, [0])) < 256:
        raise InputError(
            "expected colours of 16 bits in a TIFF's palette, found 8, which readers differ in; convert it"
        )
    width, height = (like.pixels.shape[2], like.pixels.shape[1]) if like else image.size
    if set(image.size) == {width, height}:  # another size is not worth the decoding
        if _states_orientation_elsewhere(image):
            raise InputError(
                "expected an orientation in EXIF, found it in XMP or text, which few viewers heed; turn it"
            )
        ImageOps.exif_transpose(image, in_place=True)
    if like and image.size != (width, height):
        raise InputError(
            f"expected {width}×{height} pixels as {like.name} has, found {image.size[0]}×{image.size[1]}; "
            "all images need one size"
        )
    # Pillow compares PNG's tRNS with pixels that it scaled to 8 bits, and keeps 8 of an alpha of 16.
    if image.has_transparency_data and image.mode != "P" and (image.mode == "1" or ";" in layout):
        raise InputError(
            f"expected transparency of 8 bits or none, found some of another depth ({layout}); save the image without"
        )
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise InputError(
            f"expected an opaque image, found transparent pixels (mode {image.mode}), whose colour depends on what "
            "lies behind; save it on a background"
        )
    image.info.pop("transparency", None)  # Pillow warns of what it drops of a palette
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[None]
    return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


# --- the official archive ---------------------------------------------------------------------------------------------


def read_cifar10(key: str, source: dict[str, Any], resources: Path) -> Contents:
    """The official archive, downloaded where no copy on disk is named, read by torchvision once it is verified.

    Its batches are pickles, which can run any code: the very bytes that are unpacked are verified first.
    """
    if "archive" in source:
        path = located(source["archive"])
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
    train, test = (
        (np.ascontiguousarray(split.data.transpose(0, 3, 1, 2)), np.array(split.targets, dtype=np.int64))
        for split in splits
    )
    return Contents(list(splits[0].classes), train, test)


READERS = {"cifar10": read_cifar10, "image-folder": read_image_folder, "digits": read_digits}
