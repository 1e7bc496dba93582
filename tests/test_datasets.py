"""Sources become the right arrays; hostile, damaged and altered input gets a message, never a traceback."""

import copy
import functools
import gc
import gzip
import hashlib
import http.server
import io
import itertools
import json
import os
import pickle
import shutil
import stat
import struct
import tarfile
import tempfile
import threading
import tracemalloc
import zipfile

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from cifar_report.base.errors import InputError
from cifar_report.data import archives, datasets, sources

RNG = np.random.default_rng(0)
PIXELS = {
    f"{split}/{label}/{i}.png": RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for split, count in (("train", 3), ("test", 2))
    for label in ("cat", "dog")
    for i in range(count)
}


def encoded(pixels, form="PNG", mode=None):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, form)
    return file.getvalue()


FILES = {name: encoded(pixels) for name, pixels in PIXELS.items()}


def read(path, **source):
    return sources.read_image_folder("datasets.mine", {"path": str(path)} | source, None)


def refused(path, *words, **source):
    with pytest.raises(InputError) as caught:
        read(path, **source)
    message = str(caught.value)
    assert str(path) in message or source
    for word in words:
        assert word in message, message
    return message


def assert_right(result):
    """Class names, labels and pixels against what was drawn, in the order of class and name."""
    names, train, test, _ = result
    assert names == ["cat", "dog"]
    for split, (images, labels) in (("train", train), ("test", test)):
        expected = [name for name in sorted(PIXELS) if name.startswith(split)]
        assert images.dtype == np.uint8 and labels.dtype == np.int64
        assert labels.tolist() == [int("dog" in name) for name in expected]
        np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), [PIXELS[name] for name in expected])


def unpack(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tarred(path, files, mode="w"):
    """Its members in another order than sorted, with a folder's own entry among them."""
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("train")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in reversed(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("train")
        for name, content in reversed(files.items()):
            archive.writestr(name, content)
    return path


PACKED = {
    "folder": unpack,
    "tar": tarred,
    "tar.gz": functools.partial(tarred, mode="w:gz"),
    "tar.xz": functools.partial(tarred, mode="w:xz"),
    "tar.bz2": functools.partial(tarred, mode="w:bz2"),
    "zip": zipped,
}
JUNK = {
    "__MACOSX/train/cat/0.png": b"resource fork",
    "train/cat/._0.png": b"resource fork",
    "train/.ipynb_checkpoints/0.png": b"not an image",
    ".DS_Store": b"",
    "train/cat/.DS_Store": b"",
    "train/cat/Thumbs.db": b"",
    "train/list.csv": b"",
    "README": b"",
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("top", ["", "./", "mine/"])
def test_every_container_gives_the_same_arrays(tmp_path, packed, top):
    files = {f"{top}{name}": content for name, content in (FILES | JUNK).items()}
    assert_right(read(PACKED[packed](tmp_path / packed, files)))


BLACK_AND_WHITE = np.repeat(RNG.integers(0, 2, (6, 8, 1), dtype=np.uint8) * 255, 3, axis=2)


@pytest.mark.parametrize(
    "mode, form",
    [("RGB", "PNG"), ("P", "PNG"), ("P", "GIF"), ("LA", "PNG"), ("RGBA", "PNG"), ("CMYK", "TIFF")],
)
def test_what_has_room_for_colour_becomes_rgb(tmp_path, mode, form):
    """Three equal channels stay three, a palette is looked up, opaque alpha dropped."""
    files = dict.fromkeys(FILES, encoded(BLACK_AND_WHITE, form, mode))
    for images, _ in read(unpack(tmp_path, files))[1:3]:
        np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), [BLACK_AND_WHITE] * len(images))


@pytest.mark.parametrize("mode, form", [("L", "PNG"), ("1", "PNG"), ("L", "PPM"), ("1", "TIFF"), ("L", "BMP")])
def test_grey_has_one_channel(tmp_path, mode, form):
    files = dict.fromkeys(FILES, encoded(BLACK_AND_WHITE, form, mode))
    for images, _ in read(unpack(tmp_path, files))[1:3]:
        assert images.dtype == np.uint8 and images.flags.c_contiguous
        np.testing.assert_array_equal(images, [BLACK_AND_WHITE[None, :, :, 0]] * len(images))


def test_a_dataset_of_grey_images(tmp_path):
    """JPEGs, in both of its modes at once; each is the array that Pillow reads, and dataset.json goes by them."""
    files = {name: encoded(pixels[:, :, 0], "JPEG") for name, pixels in PIXELS.items()}
    files["train/dog/0.png"] = encoded(BLACK_AND_WHITE, "PNG", "1")
    source = {"source": "image-folder", "path": str(unpack(tmp_path / "grey", files))}
    datasets.prepare("mine", source, 0, tmp_path / "dataset", tmp_path)
    dataset = datasets.load(tmp_path / "dataset")
    assert dataset.description["shape"] == [1, 6, 8]
    for split in ("train", "test"):
        expected = [
            np.array(Image.open(io.BytesIO(files[name])).convert("L"))[None] for name in sorted(files) if split in name
        ]
        np.testing.assert_array_equal(dataset.split(split)[0], expected)
    pixels = dataset.split("train")[0]
    np.testing.assert_allclose(dataset.description["mean"], [pixels.mean()])
    np.testing.assert_allclose(dataset.description["std"], [pixels.std()])


@pytest.mark.parametrize("coloured", ["train/cat/0.png", "test/dog/1.png"])
@pytest.mark.parametrize("packed", ["folder", "tar"])
def test_one_image_with_colour_makes_all_rgb(tmp_path, coloured, packed):
    """The first or the last to be read, in train or in test: grey is there three times, as Pillow converts it."""
    files = {name: encoded(pixels[:, :, 0]) for name, pixels in PIXELS.items()} | {coloured: FILES[coloured]}
    _, *splits, _ = read(PACKED[packed](tmp_path / "x", files))
    for split, (images, _) in zip(("train", "test"), splits, strict=True):
        expected = [
            np.array(Image.open(io.BytesIO(files[name])).convert("RGB")).transpose(2, 0, 1)
            for name in sorted(files)
            if name.startswith(split)
        ]
        np.testing.assert_array_equal(images, expected)
        assert images.flags.c_contiguous


def member(name, kind=tarfile.REGTYPE, size=0, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    "info, words",
    [
        (member("../outside.png"), "leads out"),
        (member("train/../../outside.png"), "leads out"),
        (member("/etc/outside.png"), "leads out"),
        (member("../outside", tarfile.DIRTYPE), "leads out"),
        (member("train/cat/9.png", tarfile.SYMTYPE, link="/etc/passwd"), "found a link or device"),
        (member("train/cat", tarfile.SYMTYPE, link="/etc"), "found a link or device"),
        (member("train/cat/9.png", tarfile.CHRTYPE), "found a link or device"),
        (member("train/cat/9.png", tarfile.BLKTYPE), "found a link or device"),
        (member("train/cat/9.png", tarfile.FIFOTYPE), "found a link or device"),
        (member("train/cat/9.png", size=60_000_000), "at most 50,000,000 bytes"),
        (member("notes.txt", size=1 << 40), "at most 64,000,000,000 bytes unpacked"),
        (member("notes.txt", size=-(1 << 40)), "a size of -1,099,511,627,776 bytes"),
        (member("", tarfile.XHDTYPE, size=1 << 40), "headers of at most 1,000,000 bytes"),
        (member("", tarfile.GNUTYPE_LONGNAME, size=1 << 40), "headers of at most 1,000,000 bytes"),
    ],
)
def test_hostile_tars_are_refused(tmp_path, info, words, ending):
    """As the first member and as a later one; nothing of what they announce has to be there."""
    for before in ({}, FILES):
        path = tarred(tmp_path / "x.tar", before)
        content = path.read_bytes().rstrip(b"\0")
        content += bytes(-len(content) % 512) if before else b""
        content = (content if before else b"") + info.tobuf(tarfile.GNU_FORMAT)
        path.write_bytes(gzip.compress(content) if ending else content)
        refused(path, info.name, words)


def zip_member(name, mode=0, flags=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.flag_bits = flags
    return info


@pytest.mark.parametrize(
    "info, words",
    [
        (zip_member("../outside.png"), "leads out"),
        (zip_member("/etc/outside.png"), "leads out"),
        (zip_member("train/cat/9.png", stat.S_IFLNK | 0o777), "found a link or device"),
        (zip_member("train/cat/9.png", stat.S_IFIFO), "found a link or device"),
    ],
)
def test_hostile_zips_are_refused(tmp_path, info, words):
    path = zipped(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(path, info.filename, words)


def test_an_encrypted_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", FILES)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.rindex(signature)
        content[place + offset] |= 1
    path.write_bytes(content)
    refused(path, "encrypted", "set datasets.mine.path")


def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", FILES | {"train/cat/é.png": b""})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    refused(path, "cannot be read to its end", "utf-8")


def test_links_and_pipes_in_a_folder_are_refused(tmp_path):
    folder = unpack(tmp_path / "folder", FILES)
    (folder / "train/cat/9.png").symlink_to(folder / "train/cat/0.png")
    refused(folder, "train/cat/9.png", "found a link or device", "put the file itself")
    (folder / "train/cat/9.png").unlink()
    os.mkfifo(folder / "train/cat/9.png")
    refused(folder, "train/cat/9.png", "found a link or device")


@pytest.mark.parametrize("name", ["train", "test/cat", "mine/train/cat", "test/0.png"])
def test_a_link_that_may_stand_for_a_class_is_refused(tmp_path, name):
    folder = unpack(tmp_path / "folder", {f"mine/{name}": content for name, content in FILES.items()})
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).symlink_to(tmp_path)
    refused(folder, f"{name}: expected files and folders alone, found a link")


def test_links_and_pipes_that_are_none_of_the_images_are_passed_over(tmp_path):
    folder = unpack(tmp_path / "folder", FILES)
    (folder / ".git").mkdir()
    (folder / "train/cat/.9.png").symlink_to("nowhere")
    (folder / "latest").symlink_to("train")
    os.mkfifo(folder / ".git/pipe")
    assert_right(read(folder))
    path = tarred(tmp_path / "x.tar", FILES)
    with tarfile.open(path, "a") as archive:
        archive.addfile(member("train/.cache", tarfile.SYMTYPE, link="/etc"))
        archive.addfile(member("._a", tarfile.LNKTYPE, link="nowhere"))
        archive.addfile(member(".git/pipe", tarfile.FIFOTYPE))
    assert_right(read(path))


def test_a_link_to_the_folder_itself_is_fine(tmp_path):
    unpack(tmp_path / "folder", FILES)
    (tmp_path / "link").symlink_to("folder")
    assert_right(read(tmp_path / "link"))


@pytest.mark.parametrize("packed", PACKED)
def test_too_many_entries_are_refused(tmp_path, packed, monkeypatch):
    path = PACKED[packed](tmp_path / "x", FILES)
    entries = 16 if packed == "folder" else 11
    monkeypatch.setitem(archives.LIMITS, "entries", entries)
    assert_right(read(path))
    monkeypatch.setitem(archives.LIMITS, "entries", entries - 1)
    refused(path, f"at most {entries - 1} entries", "use fewer")


def test_a_folder_without_end_is_refused(tmp_path, monkeypatch):
    """Its names are not all kept."""
    (tmp_path / "a").touch()
    names = itertools.repeat(tmp_path / "a", 10)
    monkeypatch.setitem(archives.LIMITS, "entries", 3)
    monkeypatch.setattr(archives, "_below", lambda path: names)
    refused(tmp_path, "at most 3 entries")
    assert len(list(names)) == 6


@pytest.mark.parametrize("wide", [False, True], ids=["zip", "zip64"])
def test_a_zip_of_ten_million_entries_is_refused_unread(tmp_path, wide):
    """Its directory is announced, and would be 610 MB; the file is sparse."""
    path = tmp_path / "x.zip"
    size = 61 * 10_000_000
    with path.open("wb") as file:
        file.seek(size)
        if wide:
            file.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 10**7, 10**7, size, 0))
            file.write(struct.pack("<4sLQL", b"PK\6\7", 0, size, 1))
        counts = (0xFFFF, 0xFFFF, 0xFFFFFFFF if wide else size, 0xFFFFFFFF if wide else 0)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *counts, 0))
    refused(path, "at most 1,000,000 entries")


@pytest.mark.parametrize("packed", PACKED)
def test_a_file_too_large_for_an_image_is_refused(tmp_path, packed, monkeypatch):
    """And is passed over where its name says that it is none."""
    path = PACKED[packed](tmp_path / "a", FILES | dict.fromkeys(["train/cat/a.mp4", ".git/a", "a.png"], bytes(1001)))
    monkeypatch.setitem(archives.LIMITS, "file", 1000)
    assert_right(read(path))
    path = PACKED[packed](tmp_path / "b", FILES | {"train/cat/9.png": bytes(1001)})
    refused(path, "train/cat/9.png: expected at most 1,000 bytes", "found 1,001; remove it")


@pytest.mark.parametrize("packed", PACKED)
def test_files_too_large_together_are_refused(tmp_path, packed, monkeypatch):
    """Images or not: a bomb need not hold one. It goes by what the entries announce, before that is unpacked."""
    files = FILES | {f"train/cat/{i}.txt": bytes(10_000) for i in range(20)}
    path = PACKED[packed](tmp_path / "x", files)
    size = sum(map(len, files.values()))
    monkeypatch.setitem(archives.LIMITS, "unpacked", size)
    assert_right(read(path))
    monkeypatch.setitem(archives.LIMITS, "unpacked", size - 1)
    refused(path, f"at most {size - 1:,} bytes unpacked", "use fewer")


@pytest.mark.parametrize("packed", [name for name in PACKED if name not in ("folder", "tar")])
def test_an_archive_that_is_a_bomb_is_refused(tmp_path, packed):
    """A few kilobytes that unpack to the largest file allowed."""
    path = PACKED[packed](tmp_path / "x", FILES | {"train/cat/9.png": bytes(archives.LIMITS["file"])})
    assert path.stat().st_size < 100_000
    refused(path, "train/cat/9.png", "not an image")


def test_headers_are_not_kept(tmp_path):
    """tarfile keeps each header that it reads: a gigabyte for a million of them."""
    path = tarred(tmp_path / "x.tar", {f"{i}.txt": b"" for i in range(10_000)})
    entries = archives.entries(path)
    next(entries)
    tracemalloc.start()
    for _ in range(9_990):
        next(entries)
    gc.collect()  # what is in use, not what waits to be collected
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, tarfile.__file__)])
    tracemalloc.stop()
    assert sum(trace.size for trace in snapshot.traces) < 1_000_000


def test_pixels_are_limited(tmp_path, monkeypatch):
    folder = unpack(tmp_path, FILES)
    monkeypatch.setitem(archives.LIMITS, "pixels", 10 * 6 * 8 * 3)
    assert_right(read(folder))
    monkeypatch.setitem(archives.LIMITS, "pixels", 10 * 6 * 8 * 3 - 1)
    refused(folder, "bytes of pixels", "use fewer")


def test_the_limit_of_pixels_goes_by_the_arrays(tmp_path, monkeypatch):
    """Grey takes a third, unless one image has colour."""
    files = {name: encoded(pixels[:, :, 0]) for name, pixels in PIXELS.items()}
    folder = unpack(tmp_path, files)
    monkeypatch.setitem(archives.LIMITS, "pixels", 10 * 6 * 8)
    assert [images.shape[1] for images, _ in read(folder)[1:3]] == [1, 1]
    unpack(tmp_path, {"train/dog/2.png": FILES["train/dog/2.png"]})
    refused(folder, "bytes of pixels", "use fewer")


@pytest.mark.parametrize("packed", [name for name in PACKED if name != "folder"])
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path, packed):
    path = PACKED[packed](tmp_path / "x", FILES)
    whole = path.read_bytes()
    # A plain tar ends with zeros, which may be missing but for the first 512 (POSIX.1-2001, pax, "ustar").
    ends = (
        range(0, len(whole.rstrip(b"\0")) + 1, 512) if packed == "tar" else [*range(0, len(whole), 97), len(whole) - 1]
    )
    for end in ends:
        path.write_bytes(whole[:end])
        refused(path, "cannot be read to its end", "set datasets.mine.path to another copy")


@pytest.mark.parametrize("packed", [name for name in PACKED if name != "folder"])
def test_a_flipped_bit_is_refused_or_harmless(tmp_path, packed):
    """In what is compressed a checksum finds it; a plain tar has one for its headers alone, PNG for its pixels."""
    path = PACKED[packed](tmp_path / "x", FILES)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    outcomes = set()
    for place in rng.choice(len(whole), 150, replace=len(whole) < 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            assert_right(read(path))
            outcomes.add("harmless")
        except InputError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_a_damaged_header_does_not_end_a_tar(tmp_path):
    """tarfile alone would read the images before it and say nothing."""
    path = tarred(tmp_path / "x.tar", FILES)
    content = bytearray(path.read_bytes())
    content[content.index(b"test/cat/1.png")] ^= 1
    path.write_bytes(content)
    refused(path, "bad checksum")


def test_what_follows_the_end_is_refused(tmp_path):
    path = tarred(tmp_path / "x.tar", FILES)
    whole = path.read_bytes()
    for more in (whole, bytes(3 << 19)):
        path.write_bytes(whole + more)
        refused(path, "more follows after its end")
    path.write_bytes(whole + bytes(1 << 19))
    assert_right(read(path))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_truncated_image_is_refused(tmp_path, form):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    content = encoded(pixels, form)
    for share in (0, 0.2, 0.5, 0.8):
        folder = unpack(tmp_path, FILES | {"train/dog/1.png": content[: int(share * len(content))]})
        refused(folder, "train/dog/1.png", "damaged file", "replace or remove it")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"no image", "found a damaged file (not an image)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n", "(not an image)"),
        (
            encoded(np.zeros((8, 6, 3), np.uint8)),
            "expected 8×6 pixels as train/cat/0.png has, found 6×8; all images need one size",
        ),
        (encoded(np.zeros((6, 8), np.uint16)), "expected 8 bits a channel"),
    ],
    ids=["text", "program", "other size", "16 bits"],
)
def test_a_wrong_image_is_refused(tmp_path, content, words):
    refused(unpack(tmp_path, FILES | {"train/dog/1.png": content}), "train/dog/1.png", words)


def test_an_image_that_is_a_bomb_is_refused(tmp_path):
    header = b"P6 20000 20000 255 "
    refused(unpack(tmp_path, FILES | {"test/cat/0.png": header}), "test/cat/0.png", "damaged", "decompression bomb")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"train/owl/0.png": FILES["train/cat/0.png"]}, "the class 'owl' is in train alone"),
        ({"test/owl/0.png": FILES["train/cat/0.png"]}, "the class 'owl' is in test alone"),
        ({"train/owl/notes.txt": b"", "test/owl/notes.txt": b""}, "test/owl: expected images, found none; add some"),
        ({"copy/train/cat/0.png": FILES["train/cat/0.png"]}, "several (train and copy/train); keep one"),
        ({f"{s}/a\nb/0.png": FILES["train/cat/0.png"] for s in ("train", "test")}, "'a\\nb' has a name that cannot"),
        (
            {f"{s}/\udcff/0.png": FILES["train/cat/0.png"] for s in ("train", "test")},
            "'\\udcff' has a name that cannot",
        ),
    ],
)
def test_classes_that_do_not_fit_are_refused(tmp_path, change, words):
    refused(tarred(tmp_path / "x.tar", FILES | change), words)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_refused(tmp_path, split):
    files = {name: content for name, content in FILES.items() if not name.startswith(split)}
    refused(unpack(tmp_path, files), f"expected images at {split}/<class>/*, found none")


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", ["deep/0.png", "notes.txt", ".keep"])
def test_a_class_without_images_of_its_own_is_refused_however_it_is_packed(tmp_path, packed, name):
    """Where folders have no entries of their own too."""
    files = FILES | {f"{split}/owl/{name}": FILES["train/cat/0.png"] for split in ("train", "test")}
    refused(PACKED[packed](tmp_path / "x", files), "test/owl: expected images, found none")


def test_an_empty_class_is_refused(tmp_path):
    folder = unpack(tmp_path, FILES)
    for split in ("train", "test"):
        (folder / split / "owl").mkdir()
    refused(folder, "test/owl: expected images, found none", "remove the folder")


def test_an_image_twice_is_refused(tmp_path):
    path = tarred(tmp_path / "x.tar", FILES)
    with tarfile.open(path, "a") as archive:
        archive.addfile(
            member("train/cat/0.png", size=len(FILES["train/cat/0.png"])), io.BytesIO(FILES["train/cat/0.png"])
        )
    refused(path, "train/cat/0.png", "twice")


def test_the_archive_is_the_one_named(tmp_path):
    path = tarred(tmp_path / "x.tar", FILES)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert_right(read(path, sha256=right))
    refused(path, f"expected SHA-256 {'0' * 64}, found {right}", "fetch the file again", sha256="0" * 64)
    refused(unpack(tmp_path / "folder", FILES), "datasets.mine.sha256", "entry without sha256", sha256=right)
    refused(tmp_path / "nowhere", "found nothing", "set datasets.mine.path")


# --- the official archive -----------------------------------------------------------------------------------------

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "batch_label": f"batch {seed}",
        "labels": rng.integers(0, 10, 4).tolist(),
        "data": rng.integers(0, 256, (4, 3072), dtype=np.uint8),
        "filenames": [f"{seed}-{i}.png" for i in range(4)],
    }


BATCHES = {f"data_batch_{i}": batch(i) for i in range(1, 6)} | {"test_batch": batch(6)}
META = {"num_cases_per_batch": 4, "label_names": NAMES, "num_vis": 3072}


def official(path, monkeypatch, bomb=None):
    """An archive in the official layout, and torchvision's and our own checksums set to it."""
    from torchvision.datasets import CIFAR10

    contents = {name: pickle.dumps(value, protocol=2) for name, value in BATCHES.items()}
    contents["batches.meta"] = pickle.dumps(META, protocol=2)
    if bomb:
        contents["data_batch_1"] = pickle.dumps(bomb)
    files = {f"cifar-10-batches-py/{name}": content for name, content in contents.items()}
    tarred(path, files | {"cifar-10-batches-py/readme.html": b"<html>"}, "w:gz")
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in sorted(md5) if "data" in name])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(sources, "CIFAR10_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(sources, "CIFAR10_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


def read_official(resources, **source):
    return sources.read_cifar10("datasets.cifar10", source, resources)


def assert_official(result):
    names, train, test, _ = result
    assert names == NAMES
    for (images, labels), batches in ((train, list(BATCHES)[:5]), (test, ["test_batch"])):
        assert images.dtype == np.uint8 and labels.dtype == np.int64 and images.flags.c_contiguous
        expected = np.concatenate([BATCHES[name]["data"] for name in batches]).reshape(-1, 3, 32, 32)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, np.concatenate([BATCHES[name]["labels"] for name in batches]))


def test_our_md5_is_torchvisions():
    from torchvision.datasets import CIFAR10

    assert CIFAR10.tgz_md5 == datasets.CIFAR10_MD5
    assert CIFAR10.filename == datasets.CIFAR10_ARCHIVE


def test_the_official_archive_on_disk(tmp_path, monkeypatch):
    path = official(tmp_path / "mine.tgz", monkeypatch)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert_official(read_official(tmp_path / "resources", archive=str(path)))
    assert not list(scratch.iterdir()), "what was unpacked is removed"
    assert not (tmp_path / "resources").exists(), "nothing was downloaded"


def test_the_official_archive_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    path = official(served / datasets.CIFAR10_ARCHIVE, monkeypatch)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        mirrors = [f"{root}/missing.tar.gz", f"{root}/{path.name}"]
        assert_official(read_official(tmp_path / "resources", mirrors=mirrors))
        server.shutdown()
    assert (tmp_path / "resources" / path.name).read_bytes() == path.read_bytes()
    assert_official(read_official(tmp_path / "resources", mirrors=mirrors))
    with pytest.raises(InputError, match=r"no address gave this file\nset datasets\.cifar10\.archive"):
        read_official(tmp_path / "elsewhere")


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("constant", ["CIFAR10_SHA256", "CIFAR10_MD5"])
def test_no_unverified_byte_is_unpickled(tmp_path, monkeypatch, constant):
    """The bomb works: where its archive passes for the official one, it goes off."""
    marker = tmp_path / "marker"
    path = official(tmp_path / "mine.tgz", monkeypatch, Bomb(marker))
    with monkeypatch.context() as official_one:
        official_one.setattr(sources, constant, "0" * 32)
        with pytest.raises(InputError, match=rf"{path}: expected .* {'0' * 32}, found .*fetch it again"):
            read_official(tmp_path, archive=str(path))
    assert not marker.exists()
    with pytest.raises(TypeError):
        read_official(tmp_path, archive=str(path))
    assert marker.exists()


def test_a_wrong_official_archive_is_refused(tmp_path, monkeypatch):
    path = official(tmp_path / "mine.tgz", monkeypatch)
    with pytest.raises(InputError, match=r"nowhere.*found nothing; correct datasets\.cifar10\.archive"):
        read_official(tmp_path, archive=str(tmp_path / "nowhere"))
    path.write_bytes(path.read_bytes()[:-1])
    size = path.stat().st_size
    with pytest.raises(InputError, match=rf"\({size:,} bytes\), so it is truncated or altered"):
        read_official(tmp_path, archive=str(path))


# --- the digits ---------------------------------------------------------------------------------------------------


def test_the_digits():
    """Against scikit-learn's own images: each is there once, scaled from 0..16 to 0..255, three pixels wide."""
    names, *splits, _ = sources.read_digits("datasets.digits", {}, None)
    digits = sklearn.datasets.load_digits()
    assert names == [str(i) for i in range(10)]
    assert [images.shape for images, _ in splits] == [(1437, 1, 32, 32), (360, 1, 32, 32)]
    images, labels = (np.concatenate(parts) for parts in zip(*splits, strict=True))
    assert images.dtype == np.uint8 and labels.dtype == np.int64 and images.max() == 255
    middle = images[:, 0, 4:28, 4:28].reshape(-1, 8, 3, 8, 3)
    assert images[:, 0].sum(dtype=int) == middle.sum(dtype=int), "the margin is black"
    assert (middle == middle[:, :, :1, :, :1]).all()
    ours = sorted(zip(labels, map(bytes, np.rint(middle[:, :, 0, :, 0] / 255 * 16).astype(np.uint8)), strict=True))
    assert ours == sorted(zip(digits.target, map(bytes, digits.images.astype(np.uint8)), strict=True))
    share = np.bincount(digits.target) * 360 / 1797
    assert (abs(np.bincount(splits[1][1]) - share) < 1).all(), "stratified"


# --- prepared arrays ----------------------------------------------------------------------------------------------


def prepared(folder, validation=200):
    datasets.prepare("digits", {"source": "digits"}, validation, folder, folder)
    return datasets.load(folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def small(tmp_path):
    """Four training, two validation and four test images: small enough to be broken often."""
    source = {"source": "image-folder", "path": str(tarred(tmp_path / "x.tar", FILES))}
    datasets.prepare("mine", source, 2, tmp_path / "dataset", tmp_path)
    return tmp_path / "dataset"


def test_the_description(digits):
    images, labels = digits.split("train")
    assert digits.name == digits.source == "digits" and digits.class_names == [str(i) for i in range(10)]
    assert digits.counts == {"train": 1237, "validation": 200, "test": 360} and len(labels) == 1237
    assert digits.description["shape"] == [1, 32, 32]
    np.testing.assert_allclose(digits.description["mean"], [images.astype(float).mean()])
    np.testing.assert_allclose(digits.description["std"], [images.astype(float).std()])
    every = [f"{split}-{part}" for split in ("train", "validation", "test") for part in ("images", "labels")]
    assert list(digits.digests()) == every
    assert list(digits.digests(test=False)) == every[:4]
    header = b"|u1 (1237, 1, 32, 32) "
    assert digits.digests()["train-images"] == hashlib.sha256(header + images.tobytes()).hexdigest()


def test_mean_and_spread_are_those_of_each_channel(small):
    dataset = datasets.load(small)
    pixels = dataset.split("train")[0].transpose(1, 0, 2, 3).reshape(3, -1).astype(float)
    np.testing.assert_allclose(dataset.description["mean"], pixels.mean(axis=1))
    np.testing.assert_allclose(dataset.description["std"], pixels.std(axis=1))


def test_preparing_is_deterministic(digits, tmp_path):
    again = prepared(tmp_path)
    files = sorted(path.name for path in digits.folder.iterdir())
    assert files == sorted(path.name for path in again.folder.iterdir())
    for name in files:
        assert (digits.folder / name).read_bytes() == (again.folder / name).read_bytes()


def test_the_validation_split(digits, tmp_path):
    """Disjoint from training, together with it the source's training images, and each class keeps its share."""
    everything = prepared(tmp_path, 0)
    assert [len(part) for part in everything.split("validation")] == [0, 0]
    rows = {name: sorted(map(bytes, digits.split(name)[0])) for name in ("train", "validation")}
    assert not set(rows["train"]) & set(rows["validation"])
    assert sorted(rows["train"] + rows["validation"]) == sorted(map(bytes, everything.split("train")[0]))
    share = np.bincount(everything.split("train")[1]) * 200 / 1437
    assert (abs(np.bincount(digits.split("validation")[1]) - share) < 1).all()
    assert digits.digests()["test-images"] == everything.digests()["test-images"]


def test_a_class_that_would_be_in_the_validation_split_alone_is_refused(tmp_path):
    """Of one image among nine of the other class, with five taken."""
    files = {f"{split}/dog/{i}.png": FILES["train/dog/0.png"] for split in ("train", "test") for i in range(9)}
    files |= {f"{split}/cat/0.png": FILES["train/cat/0.png"] for split in ("train", "test")}
    source = {"source": "image-folder", "path": str(unpack(tmp_path / "x", files))}
    datasets.prepare("mine", source, 4, tmp_path / "a", tmp_path)
    assert set(datasets.load(tmp_path / "a").split("train")[1].tolist()) == {0, 1}
    with pytest.raises(InputError, match="validation_images: 5, which leaves no training image of the class 'cat'"):
        datasets.prepare("mine", source, 5, tmp_path / "b", tmp_path)


@pytest.mark.parametrize("images", [1428, 100_000, -1])
def test_a_validation_split_that_does_not_fit_is_refused(tmp_path, images):
    with pytest.raises(InputError, match=rf"validation_images: {images}, but 'digits' has 1437 .* choose 0 to 1427"):
        prepared(tmp_path / "dataset", images)
    assert not (tmp_path / "dataset").exists()


def test_the_description_is_written_last(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "write_text", lambda *arguments: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OSError, match="No space"):
        prepared(tmp_path)
    with pytest.raises(InputError, match=r"dataset\.json: expected a JSON file, found none"):
        datasets.load(tmp_path)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("part", ["images", "labels"])
def test_an_altered_array_is_noticed(small, split, part):
    path = small / f"{split}-{part}.npy"
    whole = path.read_bytes()
    damages = {
        "its SHA-256 differs": [
            whole[:-1] + bytes([whole[-1] ^ 1]),
            whole[:128] + bytes([whole[128] ^ 1]) + whole[129:],
        ],
        "found a damaged file": [b"", whole[:50], whole[:-1], b"PK\3\4" + whole, pickle.dumps([1])],
    }
    for words, contents in damages.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(InputError, match=rf"{path}: .*{words}.*delete the dataset folder, it is remade"):
                datasets.load(small).split(split)
    path.unlink()
    with pytest.raises(InputError, match=rf"{path}: expected an array, found no file; delete the dataset folder"):
        datasets.load(small).split(split)
    path.write_bytes(whole)
    datasets.load(small).split(split)


def test_no_damage_to_a_header_is_a_traceback(small):
    """Each byte of an array's header replaced in turn; what does not matter, such as padding, may pass."""
    path = small / "train-images.npy"
    whole = path.read_bytes()
    expected = datasets.load(small).split("train")[0]
    for place in range(128):
        for byte in (0, ord("("), ord("9")):
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            try:
                np.testing.assert_array_equal(datasets.load(small).split("train")[0], expected)
            except InputError as error:
                assert str(path) in str(error)


def test_no_damage_to_the_description_is_a_traceback(small):
    """Every value of dataset.json, at every depth, replaced by every kind of JSON and taken out."""
    path = small / "dataset.json"
    whole = json.loads(path.read_text())
    kinds = [None, True, 0, -1, 7, 1.5, 1e300, "", "x", [], [1], {}, {"x": 1}, [[]]]
    refusals = 0
    for place in places(whole):
        for changed in changes(whole, place, kinds):
            path.write_text(json.dumps(changed))
            try:
                use(datasets.load(small))
            except InputError as error:
                assert str(small) in str(error) and "delete the dataset folder" in str(error)
                refusals += 1
    # What no array depends on may be anything: a name, a class's name, the mean, the spread.
    assert refusals > 300


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "NaN", "{}", "\ufeff{}", "[" * 500])
def test_what_is_no_description_is_refused(small, text):
    (small / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=rf"{small / 'dataset.json'}: .*delete"):
        datasets.load(small)


def test_a_description_of_other_arrays_is_refused(small, digits):
    """Another dataset's, or one whose counts or classes were edited."""
    path = small / "dataset.json"
    whole = json.loads(path.read_text())
    for change in ({"counts": whole["counts"] | {"train": 3}}, {"class_names": ["cat"]}, {"shape": [3, 8, 6]}):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(InputError, match=r"dataset.json: its counts, shape or class_names .* delete the dataset"):
            datasets.load(small).split("train")
    shutil.copy(digits.folder / "dataset.json", path)
    with pytest.raises(InputError, match="its SHA-256 differs"):
        datasets.load(small).split("train")


def use(dataset):
    """What the pipeline does with a dataset."""
    assert dataset.name is not None and dataset.source is not None
    dataset.digests(test=False)
    for split in datasets.SPLITS:
        assert len(dataset.split(split)[0]) == dataset.counts[split]
    assert all(isinstance(name, str) for name in dataset.class_names)


def places(document, where=()):
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [where, *(place for key, value in items for place in places(value, (*where, key)))]


def changes(document, place, kinds):
    if not place:
        yield from kinds
        return
    for kind in kinds:
        changed = copy.deepcopy(document)
        functools.reduce(lambda value, key: value[key], place[:-1], changed)[place[-1]] = kind
        yield changed
    changed = copy.deepcopy(document)
    del functools.reduce(lambda value, key: value[key], place[:-1], changed)[place[-1]]
    yield changed
