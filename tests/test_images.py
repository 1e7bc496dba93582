"""Of a folder of images, what is trained on is what a person sees in it; what is not read is counted, never lost."""

import io
import json
import os
import re
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from snakemake.utils import update_config

from cifar_report import cli
from cifar_report.base.errors import InputError
from cifar_report.data import archives, datasets, sources
from cifar_report.runs.store import Request, Store
from cifar_report.study import config, plan
from cifar_report.study.identity import code_digest
from cifar_report.study.settings import Settings

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
# Smooth, so that JPEG changes little; no two of its eight orientations are alike.
RAMP = np.stack(np.broadcast_arrays(np.arange(16)[:, None] * 15, np.arange(16) * 7, np.full((16, 16), 90)), axis=2)
RAMP = RAMP.astype(np.uint8)


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


PLAIN = saved(Image.fromarray(RAMP))
FILES = {f"{split}/{label}/{i}.png": PLAIN for split in ("train", "test") for label in ("ant", "bee") for i in range(3)}


def folder_of(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tarred(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def prepared(path, scratch, validation=0):
    source = {"source": "image-folder", "path": str(path)}
    datasets.prepare("mine", source, validation, scratch / "dataset", scratch)
    return datasets.load(scratch / "dataset")


def first_test_image(content, scratch):
    """As it is trained on: (height, width, channels)."""
    path = folder_of(scratch / "images", FILES | {"test/ant/0.png": content})
    return prepared(path, scratch).split("test")[0][0].transpose(1, 2, 0)


# --- what a person sees -----------------------------------------------------------------------------------------------

# EXIF 2.3, 4.6.4, tag 274: where the first row and column of what is stored stand in what is seen.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photo_is_read_upright(tmp_path, form, orientation):
    image = Image.fromarray(RAMP)
    exif = image.getexif()
    exif[274] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    seen = first_test_image(saved(image, form, exif=exif, **options), tmp_path)
    expected = UPRIGHT[orientation](RAMP).astype(int)
    assert abs(seen - expected).max() <= (3 if form == "JPEG" else 0)


@pytest.mark.parametrize("first", [True, False], ids=["the first read", "a later one"])
def test_sizes_are_compared_upright(tmp_path, first):
    """A photo stored on its side among others that are upright, and one that is of the right size only on its side."""
    upright = RAMP[:, :8]
    turned = Image.fromarray(np.ascontiguousarray(upright.transpose(1, 0, 2)))
    exif = turned.getexif()
    exif[274] = 5
    name = "train/ant/0.png" if first else "test/bee/2.png"
    files = dict.fromkeys(FILES, saved(Image.fromarray(upright))) | {name: saved(turned, exif=exif)}
    for images, _ in map(prepared(folder_of(tmp_path / "a", files), tmp_path).split, ("train", "test")):
        np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), [upright] * 6)
    files["test/bee/1.png"] = saved(turned)
    with pytest.raises(InputError, match=r"test/bee/1\.png: expected 8×16 pixels as .* found 16×8"):
        prepared(folder_of(tmp_path / "b", files), tmp_path)


def with_alpha(value, mode):
    """An image of the mode with one pixel of this alpha, the others opaque."""
    alpha = np.full((16, 16), 255, np.uint8)
    alpha[3, 4] = value
    image = Image.fromarray(np.dstack([RAMP, alpha]))
    if mode == "P":  # with an alpha for each entry
        palette = image.convert("RGB").quantize(16)
        index = palette.getpixel((4, 3))
        return palette, {"transparency": bytes(value if i == index else 255 for i in range(16))}
    return image.convert(mode), {}


@pytest.mark.parametrize(
    "mode, form", [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP")]
)
@pytest.mark.parametrize("value", [0, 254])
def test_transparency_is_refused(tmp_path, mode, form, value):
    image, options = with_alpha(value, mode)
    options |= {"lossless": True, "exact": True} if form == "WEBP" else {}
    with pytest.raises(InputError, match=rf"test/ant/0\.png: .*transparent pixels \(mode {mode}\).*save it on a back"):
        first_test_image(saved(image, form, **options), tmp_path)


@pytest.mark.parametrize(
    "mode, form", [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP")]
)
def test_opaque_alpha_is_fine(tmp_path, mode, form):
    image, options = with_alpha(255, mode)
    content = saved(image, form, **options | ({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(first_test_image(content, tmp_path), np.asarray(image.convert("RGB")))


def png(depth, colour, row, transparency=None):
    """16 rows of 16 pixels, after the PNG specification (11.2, 11.3.2)."""
    chunks = [(b"IHDR", struct.pack(">2L5B", 16, 16, depth, colour, 0, 0, 0))]
    chunks += [(b"tRNS", transparency)] if transparency else []
    chunks += [(b"IDAT", zlib.compress((b"\0" + row) * 16)), (b"IEND", b"")]
    parts = (struct.pack(">L", len(c)) + name + c + struct.pack(">L", zlib.crc32(name + c)) for name, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "depth, colour, row, transparency",
    [
        (1, 0, b"\x50" * 2, b"\0\1"),
        (2, 0, b"\x1b" * 4, b"\0\1"),
        (4, 0, b"\x12" * 8, b"\0\1"),
        (16, 2, b"\1\2\3\4\5\6" * 16, b"\1\2\3\4\5\6"),
        (16, 4, b"\1\2\xff\x00" * 16, None),
        (16, 6, b"\1\2\3\4\5\6\xff\xfe" * 16, None),
    ],
    ids=["1 bit", "2 bits", "4 bits", "RGB of 16", "LA of 16", "RGBA of 16"],
)
def test_transparency_of_another_depth_is_refused(tmp_path, depth, colour, row, transparency):
    """Pillow takes these for opaque: it compares values of two scales, or keeps 8 bits of 16."""
    with pytest.raises(InputError, match=r"test/ant/0\.png: expected transparency of 8 bits or none.*save the image"):
        first_test_image(png(depth, colour, row, transparency), tmp_path)


def test_colour_of_16_bits_is_read_with_its_upper_eight(tmp_path):
    seen = first_test_image(png(16, 2, b"\1\xff\3\xff\5\xff" * 16), tmp_path)
    assert seen.reshape(-1, 3).tolist() == [[1, 3, 5]] * 256


@pytest.mark.parametrize(
    "screen, corner", [((20, 16), (0, 0)), ((20, 20), (2, 2)), ((8, 8), (0, 0)), ((16, 16), (1, 0))]
)
def test_a_gif_whose_frame_is_not_its_screen_is_refused(tmp_path, screen, corner):
    """GIF89a, sections 18 and 20: what is not covered is transparent, what sticks out is cut off by some viewers."""
    content = bytearray(saved(Image.fromarray(RAMP).quantize(16), "GIF"))
    place = content.index(struct.pack("<c4H", b",", 0, 0, 16, 16))
    first_test_image(bytes(content), tmp_path)
    content[6:10], content[place + 1 : place + 5] = struct.pack("<2H", *screen), struct.pack("<2H", *corner)
    with pytest.raises(InputError, match=r"test/ant/0\.png: expected a frame that covers the GIF's screen"):
        first_test_image(bytes(content), tmp_path)


@pytest.mark.parametrize("mode, used, unused", [("RGB", tuple(map(int, RAMP[0, 0])), (1, 2, 3)), ("L", 0, 77)])
def test_a_transparent_colour_is_refused_where_a_pixel_has_it(tmp_path, mode, used, unused):
    """PNG's tRNS without an alpha channel."""
    image = Image.fromarray(RAMP) if mode == "RGB" else Image.fromarray((RAMP[:, :, 0] // 90 * 90).astype(np.uint8))
    first_test_image(saved(image, transparency=unused), tmp_path)
    with pytest.raises(InputError, match=rf"test/ant/0\.png: .*transparent pixels \(mode {mode}\)"):
        first_test_image(saved(image, transparency=used), tmp_path)


def test_a_gif_with_holes_is_refused(tmp_path):
    image = Image.fromarray(RAMP).quantize(16)
    with pytest.raises(InputError, match=r"test/ant/0\.png: .*transparent pixels"):
        first_test_image(saved(image, "GIF", transparency=image.getpixel((0, 0))), tmp_path)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_images_in_a_file_are_refused(tmp_path, form):
    frames = [Image.fromarray(RAMP), Image.fromarray(RAMP[::-1].copy())]
    with pytest.raises(InputError, match=r"test/ant/0\.png: expected one image, found an animation or pages"):
        first_test_image(saved(frames[0], form, save_all=True, append_images=frames[1:]), tmp_path)


def test_of_a_cameras_jpeg_the_first_is_read(tmp_path):
    """Telephones store a preview or a gain map behind the photo, which no viewer shows."""
    frames = [Image.fromarray(RAMP), Image.fromarray(RAMP[::-1].copy())]
    content = saved(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=100, subsampling=0)
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert abs(first_test_image(content, tmp_path) - RAMP.astype(int)).max() <= 3


FORMS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", sorted({*FORMS} - {"TIFF"}))  # which has no end: what it names may lie anywhere
def test_an_image_behind_another_is_refused(tmp_path, first, second):
    image = Image.fromarray(RAMP)
    content = saved(image, first) + saved(image.transpose(Image.Transpose.ROTATE_90), second)
    with pytest.raises(InputError, match=r"test/ant/0\.png: expected one image, found another behind it"):
        first_test_image(content, tmp_path)


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"GIF89a", b"P6 ", b"II*\0"])
def test_what_begins_like_an_image_behind_one_is_none(tmp_path, start):
    np.testing.assert_array_equal(first_test_image(saved(Image.fromarray(RAMP), "PNG") + start, tmp_path), RAMP)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG", "PNG, EXIF last", "TIFF", "BMP"])
def test_what_begins_like_an_image_within_an_image_is_none(tmp_path, form):
    """A photo's preview in its EXIF, which may stand behind the pixels; a TIFF of JPEG's strips; a chance."""
    image, options = Image.fromarray(RAMP), {}
    preview = saved(image, "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0" + bytes(6) + preview
    options = {"TIFF": {"compression": "jpeg", "tiffinfo": {37500: preview}}, "BMP": {}}.get(form, {"exif": exif})
    content = saved(image, form.partition(",")[0], **options)
    if form == "PNG, EXIF last":
        parts = re.fullmatch(rb"(.*)(....eXIf.*)(....IDAT.*)(....IEND....)", content, re.DOTALL)
        content = parts[1] + parts[3] + parts[2] + parts[4]
    if form == "BMP":
        content = content[:60] + saved(image, "BMP")[:40] + content[100:]
    assert len(list(sources.IMAGE_STARTS.finditer(content))) > 1
    assert first_test_image(content, tmp_path).shape == (16, 16, 3)


def chunk(name, content):
    """Of a WebP (RIFF)."""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


@pytest.mark.parametrize("form", ["WEBP", "WEBP, a small frame", "PNG"])
def test_an_animation_of_one_image_is_refused(tmp_path, form):
    """Its frame need not cover the canvas, nor be what a reader of still images shows."""
    size = 8 if "small" in form else 16
    content = saved(Image.fromarray(RAMP[:size, :size].copy()), form.partition(",")[0])
    if form == "PNG":
        controls = b"acTL" + struct.pack(">II", 1, 0), b"fcTL" + struct.pack(">5I2H2B", 0, 16, 16, 0, 0, 1, 9, 0, 0)
        parts = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in controls)
        content = content[:33] + b"".join(parts) + content[33:]
    else:
        three = [struct.pack("<I", value)[:3] for value in (0, 0, size - 1, size - 1, 100)]
        frame = chunk(b"ANMF", b"".join(three) + b"\0" + content[12:])
        body = chunk(b"VP8X", struct.pack("<I", 2) + struct.pack("<I", 15)[:3] * 2) + chunk(b"ANIM", bytes(6)) + frame
        content = chunk(b"RIFF", b"WEBP" + body)
    assert Image.open(io.BytesIO(content)).n_frames == 1
    with pytest.raises(InputError, match=r"test/ant/0\.png: expected one image, found an animation or pages"):
        first_test_image(content, tmp_path)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG", "PNG, as ImageMagick's text", "TIFF"])
def test_an_orientation_outside_of_exif_is_refused(tmp_path, form):
    """Pillow heeds it, and most viewers do not; one that says upright, or that EXIF overrules, changes nothing."""

    def content(orientation, exif=None):
        options, image = {}, Image.fromarray(RAMP)
        told = f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode()
        if form.startswith("PNG"):
            options["pnginfo"] = PngInfo()
            raw = Image.Exif()
            raw[274] = orientation
            told = f"\nexif\n{len(raw.tobytes()):8}\n{raw.tobytes().hex()}\n" if "," in form else told.decode()
            options["pnginfo"].add_text("Raw profile type exif" if "," in form else "XML:com.adobe.xmp", told)
        elif form == "TIFF":
            options["tiffinfo"] = {700: told} | ({274: exif} if exif else {})
        else:
            options["xmp"] = told
        if exif and form != "TIFF":
            options["exif"] = Image.Exif()
            options["exif"][274] = exif
        return saved(image, form.partition(",")[0], **options)

    with pytest.raises(InputError, match=r"test/ant/0\.png: expected an orientation in EXIF"):
        first_test_image(content(6), tmp_path / "a")
    for orientation, exif in ((1, None), (6, 1), (6, 3)):
        seen = first_test_image(content(orientation, exif), tmp_path / f"{orientation} {exif}")
        assert abs(seen - UPRIGHT[exif or 1](RAMP).astype(int)).max() <= (20 if form in ("JPEG", "WEBP") else 0)


def test_a_tiff_with_a_palette_of_8_bits_is_refused(tmp_path):
    """TIFF 6.0, ColorMap: 65535 is white. Where all is below 256, libtiff's viewers take 255 for it."""
    image = Image.fromarray(RAMP).quantize(16)
    content = saved(image, "TIFF")
    palette = struct.pack("<768H", *Image.open(io.BytesIO(content)).tag_v2[320])
    np.testing.assert_array_equal(first_test_image(content, tmp_path / "a"), np.asarray(image.convert("RGB")))
    assert content.count(palette) == 1
    small = struct.pack("<768H", *(value >> 8 for (value,) in struct.iter_unpack("<H", palette)))
    with pytest.raises(InputError, match=r"test/ant/0\.png: expected colours of 16 bits in a TIFF's palette"):
        first_test_image(content.replace(palette, small), tmp_path / "b")
    dark = struct.pack("<768H", *(min(value, 256) for (value,) in struct.iter_unpack("<H", palette)))
    assert first_test_image(content.replace(palette, dark), tmp_path / "c").max() == 1


# --- what is passed over ----------------------------------------------------------------------------------------------

BESIDE = {
    "train/ant/deep/0.png": "deeper folder",
    "train/ant/deep/deeper/0.png": "deeper folder",
    "test/bee/deep/notes.txt": "deeper folder",
    "train/ant/0.avif": "other ending",
    "train/ant/no ending": "other ending",
    "train/ant/0.png.txt": "other ending",
    "train/list.csv": "outside a class",
    "train/0.png": "outside a class",
    "valid/ant/0.png": "outside train and test",
    "README": "outside train and test",
    ".DS_Store": "hidden",
    "train/ant/._0.png": "hidden",
    "train/ant/Thumbs.db": "hidden",
    "train/desktop.ini": "hidden",
    "train/.cache/0.png": "hidden",
    "__MACOSX/train/ant/._0.png": "hidden",
    "train/@eaDir/0.png": "hidden",
    "$RECYCLE.BIN/0.png": "hidden",
}


@pytest.mark.parametrize("pack", [folder_of, tarred, zipped])
@pytest.mark.parametrize("top", ["", "mine/"])
def test_no_file_is_left_out_in_silence(tmp_path, pack, top, capsys):
    files = {f"{top}{name}": PLAIN for name in (*FILES, *BESIDE)}
    dataset = prepared(pack(tmp_path / "x", files), tmp_path)
    assert dataset.counts == {"train": 6, "validation": 0, "test": 6}
    reasons = list(BESIDE.values())
    expected = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    assert json.loads((tmp_path / "dataset/dataset.json").read_text())["passed_over"] == expected
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and str(tmp_path / "x") in told
    for reason, count in expected.items():
        assert f"{reason}: {count} (such as " in told


def test_where_all_is_read_nothing_is_told(tmp_path, capsys):
    dataset = prepared(folder_of(tmp_path / "x", FILES), tmp_path)
    assert dataset.description["passed_over"] == {} and capsys.readouterr().out == ""


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    """Told by a stand-in for the system, since root may read everything."""
    path, scandir = folder_of(tmp_path / "x", FILES), os.scandir

    def denied(folder):
        if str(folder).endswith("train/ant"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match=r"cannot be read to its end .*Permission denied.*train/ant"):
        prepared(path, tmp_path)
    # The plan, which is written before, takes it for empty: 9 images, 6 folders and the one that holds all.
    assert archives.listing(path)["entries"] == 16


# --- names from other systems -----------------------------------------------------------------------------------------

LETTERS = "Café"


@pytest.mark.parametrize("pack", [folder_of, tarred, zipped])
def test_a_name_is_one_however_it_is_composed(tmp_path, pack):
    """macOS takes é apart, others do not: train from the one, test from the other, and a class in both ways."""
    composed, apart = (unicodedata.normalize(form, LETTERS) for form in ("NFC", "NFD"))
    assert composed != apart
    files = {f"{split}/bee/0.png": PLAIN for split in ("train", "test")}
    files |= {f"train/{composed}/0.png": PLAIN, f"train/{apart}/1.png": PLAIN, f"test/{apart}/0.png": PLAIN}
    dataset = prepared(pack(tmp_path / "x", files), tmp_path)
    assert dataset.class_names == [composed, "bee"] and dataset.counts["train"] == 3
    for names in ({apart: "x"}, {composed: "x"}):
        assert datasets.printed_names([composed, "bee"], names, "") == ["x", "bee"]
    with pytest.raises(InputError, match="two classes are printed"):
        datasets.printed_names([composed, "bee"], {"bee": apart}, "")


def test_a_zip_with_backslashes(tmp_path):
    files = {name.replace("/", "\\"): content for name, content in FILES.items()}
    path = zipped(tmp_path / "x.zip", files)
    assert prepared(path, tmp_path).counts["train"] == 6
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train\\..\\..\\x.png", PLAIN)
    with pytest.raises(InputError, match="leads out of the archive"):
        prepared(path, tmp_path)


def unflagged(path, raw):
    """A zip with the class or image Xxxxx given these five bytes for a name, and no flag that says UTF-8."""
    content = path.read_bytes()
    assert b"Xxxxx" in content and len(raw) == 5
    path.write_bytes(content.replace(b"Xxxxx", raw))
    return path


def test_names_in_utf8_without_the_flag(tmp_path):
    files = FILES | {f"{split}/Xxxxx/0.png": PLAIN for split in ("train", "test")}
    path = unflagged(zipped(tmp_path / "x.zip", files), LETTERS.encode())
    assert prepared(path, tmp_path).class_names == [LETTERS, "ant", "bee"]


def test_names_of_an_unknown_encoding(tmp_path):
    """Of a class they are refused; of an image they do no harm."""
    raw = "Maïs!".encode("cp1252")
    path = unflagged(zipped(tmp_path / "a.zip", FILES | {"train/ant/Xxxxx.png": PLAIN}), raw)
    assert prepared(path, tmp_path).counts["train"] == 7
    path = unflagged(zipped(tmp_path / "b.zip", FILES | {f"{s}/Xxxxx/0.png": PLAIN for s in ("train", "test")}), raw)
    with pytest.raises(InputError, match=r"Ma.*s!.*does not say its encoding; pack it anew"):
        prepared(path, tmp_path)


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.LNKTYPE, target
    return member


def test_hard_links_of_a_tar_are_read(tmp_path):
    """To an image, to a file that is none of them, from before and behind it, twice, to a link, composed otherwise."""
    other = saved(Image.fromarray(RAMP[::-1].copy()))
    accented = unicodedata.normalize("NFD", LETTERS)
    links = [link("train/ant/3.png", "./train/ant/0.png"), link("train/ant/4.png", "all/a.png")]
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(links[0])
        for name, content in (FILES | {"all/a.png": other, accented: other}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        archive.addfile(links[1])
        archive.addfile(link("train/ant/5.png", "all/a.png"))
        archive.addfile(link("train/ant/6.png", "train/ant/5.png"))
        archive.addfile(link("train/ant/7.png", unicodedata.normalize("NFC", accented)))
    images, labels = prepared(tmp_path / "x.tar.gz", tmp_path).split("train")
    assert labels.tolist() == [0] * 8 + [1] * 3
    expected = [RAMP] * 4 + [RAMP[::-1]] * 4 + [RAMP] * 3
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), expected)


def test_hard_links_that_lead_elsewhere_are_refused(tmp_path):
    for target in ("/etc/passwd", "../x", "train/ant", "train/ant/9.png"):
        path = tarred(tmp_path / "x.tar.gz", FILES)
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(link("train/ant/9.png", target))
        with pytest.raises(InputError, match=rf"train/ant/9\.png: .*hard link to {target}.*put the file itself"):
            prepared(path, tmp_path)


def test_too_many_hard_links_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(archives.LIMITS, "entries", 10)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i in range(11):
            archive.addfile(link(f"train/ant/{i}.png", "a"))
    with pytest.raises(InputError, match="at most 10 entries"):
        prepared(tmp_path / "x.tar", tmp_path)


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder_of(tmp_path / "images", FILES)
    assert prepared("~/images", tmp_path).counts["train"] == 6
    with pytest.raises(InputError, match="~nobody-of-this-name/images: expected a folder"):
        prepared("~nobody-of-this-name/images", tmp_path)
    (tmp_path / "c.yaml").write_text("[]")
    document = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert Path(config.load(document | {"claims": "~/c.yaml"}).claims) == tmp_path / "c.yaml"


def planned(path, results, change=None):
    """The plan of a study of these images, in a folder of its own."""
    document = yaml.safe_load((ROOT / "config.yaml").read_text())
    own = {"source": "image-folder", "path": str(path)}
    update_config(document, {"report": {"title": "Own"}, "run": ["mlp-numpy"], "validation_images": 2})
    update_config(document, {"dataset": "own", "datasets": {"own": own}})
    update_config(document, change or {})
    plan.write(config.load(document), document, results / "own/plan")
    return (results / "own/plan/stages/prepare.json").read_text()


def replaced(path, content):
    """Other content in place, size and time as before: what `cp -p` of a file from elsewhere may leave."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swapped(folder):
    for old, new in (("ant", "x"), ("bee", "ant"), ("x", "bee")):
        (folder / "train" / old).rename(folder / "train" / new)


CHANGES = {
    "replaced": lambda folder: replaced(folder / "train/ant/0.png", PLAIN[::-1]),
    "exchanged classes": swapped,
    "one more": lambda folder: (folder / "test/bee/3.png").write_bytes(PLAIN),
    "one less": lambda folder: (folder / "test/bee/2.png").unlink(),
    "another name": lambda folder: (folder / "test/bee/2.png").rename(folder / "test/bee/9.png"),
    "touched": lambda folder: (folder / "train/ant/0.png").touch(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_images_that_change_under_the_same_path_are_noticed(tmp_path, change):
    """The plan is what the job that prepares the data reads: another plan makes it run again."""
    folder = folder_of(tmp_path / "images", FILES)
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))  # as archives that were made to be the same each time leave them
    before = planned(folder, tmp_path)
    assert planned(folder, tmp_path) == before
    CHANGES[change](folder)
    assert planned(folder, tmp_path) != before


def test_an_archive_that_changes_is_noticed(tmp_path):
    path = tarred(tmp_path / "x.tar.gz", FILES)
    before, content = planned(path, tmp_path), path.read_bytes()
    replaced(path, content[::-1])
    assert planned(path, tmp_path) != before
    link = tmp_path / "link"
    link.symlink_to(path)
    before = planned(link, tmp_path)
    path.write_bytes(content)
    assert planned(link, tmp_path) != before
    named = {"datasets": {"own": {"sha256": "0" * 64}}}  # whose content can be no other
    assert "files" not in json.loads(planned(path, tmp_path, named))


def test_images_that_were_prepared_may_go(tmp_path):
    folder = folder_of(tmp_path / "images", FILES)
    before = planned(folder, tmp_path)
    folder.rename(tmp_path / "elsewhere")
    assert planned(folder, tmp_path) == before


NEEDS = {  # of images of 16 pixels a side, six in the training split and two in the validation split
    "variants.mlp-numpy: batch_size: 200, but the training split has 8 images": {},
    "variants.vgg: kind: a torch-vgg takes images of 17 pixels": {
        "run": ["vgg"],
        "variants": {"vgg": {"batch_size": 2}},
    },
    "search.mlp-grid: batch_size: 7, but the training split has 6 images": {
        "run": ["mlp-tuned"],
        "search": {"mlp-grid": {"grid": [{"setting": "batch_size", "values": [7, 2]}]}},
    },
}


@pytest.mark.parametrize("message", NEEDS)
def test_data_and_configuration_are_compared_before_anything_trains(tmp_path, capsys, message):
    """By the job that prepares the data, and where they are there by the call itself, before any job."""
    folder = folder_of(tmp_path / "images", FILES | {f"train/ant/{i}.png": PLAIN for i in (3, 4)})
    planned(folder, tmp_path, NEEDS[message])
    stage = tmp_path / "own/plan/stages/prepare.json"
    places = ["--stage", stage, "--output", tmp_path / "own/dataset", "--resources", tmp_path]
    assert cli.main(["prepare-dataset", *map(str, places)]) == 1
    assert f"config: {message}" in capsys.readouterr().err
    with pytest.raises(InputError, match=re.escape(f"config: {message}")):
        planned(folder, tmp_path, NEEDS[message])


def test_one_class_is_refused(tmp_path):
    files = {name: content for name, content in FILES.items() if "ant" in name}
    with pytest.raises(InputError, match=r"expected at least two classes, found one \(ant\)"):
        prepared(folder_of(tmp_path / "x", files), tmp_path)


# --- archives ---------------------------------------------------------------------------------------------------------


def test_a_tar_that_holds_a_zip_is_a_tar(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {name: PLAIN for name in FILES if "1" in name}).read_bytes()
    with tarfile.open(tmp_path / "x", "w") as archive:
        for name, content in (FILES | {"z.zip": inner}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert prepared(tmp_path / "x", tmp_path).counts["train"] == 6


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(PLAIN)
    with pytest.raises(InputError, match="it is neither a tar nor a zip"):
        prepared(tmp_path / "x", tmp_path)


def test_a_zip_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (FILES | {"train/ant/9.png": bytes(10_000_000)}).items():
            archive.writestr(name, content)
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 10_000_000), struct.pack("<L", 1000)))
    with pytest.raises(InputError, match=r"cannot be read to its end \(Bad CRC-32"):
        prepared(path, tmp_path)


@pytest.mark.parametrize("hidden", ["first", "middle", "last", "before", "behind"])
def test_what_a_zips_directory_does_not_name_is_refused(tmp_path, hidden):
    """Files that were left in place when the directory lost them, and what `cat` puts before or behind."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
        if hidden in ("first", "middle", "last"):
            del archive.filelist[{"first": 0, "middle": 5, "last": -1}[hidden]]
    if hidden == "before":
        path.write_bytes(zipped(tmp_path / "a.zip", {"train/ant/9.png": PLAIN}).read_bytes() + path.read_bytes())
    if hidden == "behind":
        path.write_bytes(path.read_bytes() + PLAIN)
    with pytest.raises(InputError, match=r"cannot be read to its end \((room for files|more follows)"):
        prepared(path, tmp_path)


def test_a_zip_that_was_streamed_and_has_a_comment_is_read(tmp_path):
    """Where a packer cannot go back, a descriptor follows each file."""
    streamed = io.BytesIO()
    pipe = SimpleNamespace(write=streamed.write, flush=lambda: None)
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"of mine"
        for name, content in FILES.items():
            archive.writestr(name, content)
    (tmp_path / "x.zip").write_bytes(streamed.getvalue())
    assert streamed.getvalue().count(b"PK\7\10") == len(FILES)
    assert prepared(tmp_path / "x.zip", tmp_path).counts["train"] == 6


def test_a_sparse_tar_is_refused(tmp_path):
    member = tarfile.TarInfo("train/ant/9.png")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 0
    (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match=r"train/ant/9\.png: .*without --sparse"):
        prepared(tmp_path / "x.tar", tmp_path)


def test_a_tar_that_ends_behind_the_header_of_a_long_name_is_refused(tmp_path):
    """The zeros stand where the header of the file itself should, so they end nothing."""
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    long = tarfile.TarInfo("a" * 200).tobuf(tarfile.GNU_FORMAT)[:1024]
    whole = (tmp_path / "x.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "x.tar").write_bytes(whole + bytes(-len(whole) % 512) + long + bytes(10240))
    with pytest.raises(InputError, match="cannot be read to its end"):
        prepared(tmp_path / "x.tar", tmp_path)


# --- no validation split ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy-mlp", "torch-mlp"])
@pytest.mark.parametrize("train_on", ["train", "train+validation"])
def test_a_run_trains_without_a_validation_split(tmp_path, kind, train_on):
    dataset = prepared(folder_of(tmp_path / "x", FILES), tmp_path)
    images, labels = dataset.split("validation")
    assert images.shape == (0, 3, 16, 16) and labels.shape == (0,)
    settings = Settings(
        kind=kind,
        optimiser="sgd",
        learning_rate=0.01,
        steps=2,
        batch_size=4,
        preprocessing="standardise",
        evaluate_every=1,
        evaluation_images=4,
        threads=1,
        train_on=train_on,
    )
    finished = Store(tmp_path / "store").obtain(Request(settings, 0, dataset, code_digest(kind), "trial"))
    curve = (finished / "curve.csv").read_text()
    assert "\n2,8,test," in curve and "validation" not in curve
