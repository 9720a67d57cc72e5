"""Images in: what is read, what is refused or left out, and what never leaves its folder."""

import errno
import io
import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unmix import DataWarning, read_images
from unmix.data.images import check_images
from unmix.errors import DataError, DomainError, SettingError


def png(image, form="PNG", **settings):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, form, **settings)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path, pictures):
    """Two domains of six images; b has one folder more."""
    root = tmp_path / "set"
    for place, image in enumerate(pictures):
        path = root / ("a" if place < 6 else "b/deep") / f"{place:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return root


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_folder_list_archive_and_array_give_the_same(folder, pictures, tmp_path):
    (folder / ".DS_Store").write_text("not an image")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    archive = zipped(tmp_path / "set.zip", {f"around/{name}": (folder / name).read_bytes() for name in names})
    (folder / "list.csv").write_text("path,domain\n" + "".join(f"{name},{name[0]}\n" for name in names))
    listed = read_images(folder / "list.csv")
    (folder / "list.csv").unlink()
    labels = ["a"] * 6 + ["b"] * 6
    for table in (read_images(folder), read_images(archive), listed, read_images(pictures, labels)):
        np.testing.assert_array_equal(table.images, pictures)
        assert table.domains.tolist() == labels
    assert read_images(folder).paths[-1] == "b/deep/11.png"


def test_size_mode_and_orientation(folder, pictures):
    table = read_images(folder, size=(8, 4), mode="L")
    assert table.images.shape == (12, 8, 4, 1)
    clear = Image.new("RGBA", (10, 9), (0, 0, 0, 0))
    clear.save(folder / "a" / "00.png")
    with pytest.raises(DataError, match=r"modes RGB \(11, such as a/01.png\), RGBA \(1, such as a/00.png\).*mode="):
        read_images(folder)
    assert (read_images(folder, mode="RGB").images[0] == 255).all()
    turned = Image.fromarray(pictures[0].transpose(1, 0, 2))
    exif = Image.Exif()
    exif[0x0112] = 5
    turned.save(folder / "a" / "00.png", exif=exif)
    np.testing.assert_array_equal(read_images(folder).images, pictures)


def test_orientation_is_read_wherever_it_stands_before_the_pixels(folder, pictures):
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="5"/></rdf:RDF></x:xmpmeta>'
    )
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    turned = Image.fromarray(pictures[0].transpose(1, 0, 2))
    turned.save(folder / "a" / "00.png", pnginfo=text)
    np.testing.assert_array_equal(read_images(folder).images, pictures)
    turned.save(folder / "a" / "00.jpg", xmp=xmp.encode())
    assert read_images(folder).images.shape == (13, 9, 10, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", None])
def test_transparent_parts_are_white_in_every_mode(folder, pictures, mode):
    for place in folder.rglob("*.png"):
        place.unlink()
    grey = mode == "L"
    Image.new("L" if grey else "RGB", (10, 9)).save(folder / "a" / "0.png", transparency=0 if grey else (0, 0, 0))
    assert (read_images(folder, mode=mode).images == 255).all()


def test_images_without_folders_are_of_one_domain(tmp_path, pictures):
    for place, image in enumerate(pictures):
        (tmp_path / f"{place:02}.png").write_bytes(png(image))
    table = read_images(tmp_path)
    np.testing.assert_array_equal(table.images, pictures)
    assert set(table.domains) == {"all"}
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        archive.writestr("0.png", png(pictures[0]))
    assert read_images(tmp_path / "flat.zip").domains.tolist() == ["all"]


def colours_of_16_bits(form):
    values = np.full((9, 10, 3), 300, ">u2")
    if form == "PPM":
        return b"P6\n10 9\n65535\n" + values.tobytes()
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 10, 9, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(own)) + name + own + struct.pack(">I", zlib.crc32(name + own)) for name, own in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("form", ["PPM", "PNG"])
def test_colours_of_more_than_8_bits_are_refused(folder, form):
    (folder / "a" / "00.png").write_bytes(colours_of_16_bits(form))
    with pytest.raises(DataError, match=r"a/00.png has mode RGB;16, more than 8 bits per channel"):
        read_images(folder, on_error="skip")


def test_above_the_limit_images_are_mapped(folder, pictures):
    table = read_images(folder, max_memory=10)
    assert isinstance(table.images, np.memmap)
    np.testing.assert_array_equal(table.images, pictures)


def test_a_damaged_file_is_named_and_refused_or_skipped(folder):
    whole = (folder / "a" / "03.png").read_bytes()
    (folder / "a" / "03.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b" / "note.txt").write_text("hello")
    with pytest.raises(DataError, match=r"b/note.txt is not an image.*on_error=\"skip\""):
        read_images(folder)
    (folder / "b" / "note.txt").unlink()
    with pytest.raises(DataError, match=r"a/03.png is damaged or truncated"):
        read_images(folder)
    with pytest.warns(DataWarning, match=r"1 of 12 files left out: a/03.png is damaged"):
        table = read_images(folder, on_error="skip")
    assert len(table) == 11
    assert list(table.skipped) == ["a/03.png"]
    assert "a/03.png" not in table.paths


def test_images_that_cannot_be_used(folder, pictures, tmp_path):
    small = folder / "a" / "small.png"
    small.write_bytes(png(pictures[0, :5, :5]))
    with pytest.raises(DataError, match=r"9×10 \(12, such as a/00.png\), 5×5 \(1, such as a/small.png\).*size="):
        read_images(folder)
    small.write_bytes(png(np.zeros((9, 10), np.uint16)))
    with pytest.raises(DataError, match=r"a/small.png has mode I;16.*8 bits"):
        read_images(folder, mode="L")
    with pytest.raises(DataError, match="There is nothing at"):
        read_images(tmp_path / "none")
    with pytest.raises(DataError, match=r"small.png is one file"):
        read_images(small)
    with pytest.raises(DomainError, match="pass domains only with an array"):
        read_images(folder, ["a"])
    with pytest.raises(DataError, match="uint8, 0 to 255; got an array of float64"):
        read_images(pictures / 255)
    with pytest.raises(DataError, match=r"channels; got shape \(12, 3, 9, 10\)"):
        read_images(pictures.transpose(0, 3, 1, 2))
    with pytest.raises(DataError, match="cannot be read as an array: Can't call numpy"):
        read_images(torch.zeros(12, 9, 10, 3, requires_grad=True))
    with pytest.raises(DataError, match="array of images is empty"):
        read_images(pictures[:0])
    with pytest.raises(DomainError, match="domains must hold one label for each of 12 images"):
        read_images(pictures, ["a"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it holds no file"):
        read_images(tmp_path / "empty")
    (folder / "loose.png").write_bytes(png(pictures[0]))
    with pytest.raises(DataError, match=r"loose.png lies in no folder of a domain"):
        read_images(folder)
    (tmp_path / "list.csv").write_text("file,domain\na,b\n")
    with pytest.raises(DataError, match="no column 'path'"):
        read_images(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("path,domain\na,\n")
    with pytest.raises(DataError, match="without a path or a domain"):
        read_images(tmp_path / "list.csv")
    for words, message in (({"mode": "CMYK"}, "mode must be"), ({"on_error": "x"}, "on_error"), ({"size": 0}, "size")):
        with pytest.raises(SettingError, match=message):
            read_images(pictures, **words)


def test_a_pipe_does_not_wait_and_a_missing_file_is_not_damaged(folder):
    os.mkfifo(folder / "a" / "pipe.png")
    with pytest.raises(DataError, match=r"a/pipe.png is no regular file. Repair or remove it"):
        read_images(folder)
    with pytest.warns(DataWarning, match=r"1 of 13 files left out: a/pipe.png is no regular file"):
        assert len(read_images(folder, on_error="skip")) == 12
    (folder / "list.csv").write_text("path,domain\na/00.png,a\na/none.png,a\n")
    with pytest.raises(DataError, match=r"a/none.png could not be opened \(No such file or directory\)"):
        read_images(folder / "list.csv")


def test_arrays_and_settings_that_cannot_be(pictures):
    with pytest.raises(DomainError, match="missing values"):
        read_images(pictures, [None] * 12)
    assert read_images(pictures, np.arange(12.0) // 6).domains.tolist() == ["0"] * 6 + ["1"] * 6
    with pytest.raises(DataError, match=r"All images must have one size and mode; got shapes \[\(5, 10, 3\), \(9, 10"):
        read_images([*pictures, pictures[0, :5]])
    with pytest.raises(DataError, match=r"Move the channels to the end: images.transpose\(0, 2, 3, 1\)"):
        read_images(pictures.transpose(0, 3, 1, 2))
    with pytest.raises(DataError, match=r"Leave the transparency out: images\[..., :3\]"):
        read_images(np.zeros((12, 9, 10, 4), np.uint8))
    with pytest.raises(DataError, match=r"got shape \(12, 9\). Pass one array of all images"):
        read_images(pictures[..., 0, 0])
    with pytest.raises(DataError, match=r"got shape \(9, 10, 3\), which looks like one image.*Pass image\[None\]"):
        read_images(pictures[0])
    for size in (16.0, "16", (8, 8, 3), (8.0, 8), True, (8, True)):
        with pytest.raises(SettingError, match=r"size must be one number of pixels or \(height, width\)"):
            read_images(pictures, size=size)
    for limit in ("2GB", None, float("nan"), -1):
        with pytest.raises(SettingError, match="max_memory must be a number of bytes, such as 2e9"):
            read_images(pictures, max_memory=limit)


def test_what_was_read_can_be_read_again(folder):
    (folder / "a" / "note.png").write_text("hello")
    with pytest.warns(DataWarning, match="a/note.png"):
        table = read_images(folder, on_error="skip")
    again = read_images(table, size=8, mode="L")
    assert again.images.shape == (12, 8, 8, 1)
    assert (again.domains.tolist(), again.paths, again.skipped) == (table.domains.tolist(), table.paths, table.skipped)
    assert read_images(table, np.arange(12) % 2).domains.tolist() == ["0", "1"] * 6


def test_a_link_to_itself_is_a_damaged_file(folder):
    os.symlink("loop.png", folder / "a" / "loop.png")
    with pytest.raises(DataError, match=r"a/loop.png could not be opened \(Too many levels"):
        read_images(folder)
    with pytest.warns(DataWarning, match="1 of 13 files left out: a/loop.png could not be opened"):
        assert len(read_images(folder, on_error="skip")) == 12
    (folder / "list.csv").write_text("path,domain\na/00.png,a\na/loop.png,a\n")
    with pytest.raises(DataError, match=r"a/loop.png could not be opened"):
        read_images(folder / "list.csv")


def test_names_that_are_not_utf8(folder, pictures):
    try:
        for name in (b"a/\xff.png", b"\xfe/01.png"):
            path = folder / os.fsdecode(name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png(pictures[0]))
    except OSError:
        pytest.skip("This file system takes no such names.")
    with pytest.raises(DataError, match=r"a/\\udcff.png has a name that is not UTF-8"):
        read_images(folder)
    with pytest.warns(DataWarning, match=r"2 of 14 files left out: a/\\udcff.png .*; \\udcfe/01.png"):
        table = read_images(folder, on_error="skip")
    assert sorted(set(table.domains)) == ["a", "b"]
    assert "".join([*table.paths, *table.skipped]).isascii()


@pytest.mark.parametrize("around", ["", "around/"])
def test_a_file_beside_the_domains_is_refused_or_skipped(around, folder, tmp_path):
    members = {f"{around}{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*.png")}
    archive = zipped(tmp_path / "set.zip", {f"{around}README.txt": b"hello", **members})
    with pytest.raises(DataError, match=f"{around}README.txt lies in no folder of a domain"):
        read_images(archive)
    with pytest.warns(DataWarning, match=f"1 of 13 files left out: {around}README.txt lies in no folder of a domain"):
        table = read_images(archive, on_error="skip")
    assert sorted(set(table.domains)) == ["a", "b"]


def test_a_full_disk_is_said_before_anything_is_written(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def unable(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match=r"3240 bytes of images do not fit into .*No space left on device"):
        read_images(folder, max_memory=10)
    monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
    assert len(read_images(folder, max_memory=10)) == 12


def test_a_check_of_images_takes_no_memory_of_their_size():
    images = np.zeros((2000, 64, 64, 3), np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="All images are the same"):
            check_images(images)
        assert tracemalloc.get_traced_memory()[1] < images.nbytes / 20
    finally:
        tracemalloc.stop()
    images[-1, -1, -1, -1] = 1
    check_images(images)


def test_paths_that_leave_their_folder(folder, pictures, tmp_path):
    outside = tmp_path / "secret.png"
    outside.write_bytes(png(pictures[0]))
    for name in ("../secret.png", outside.as_posix()):
        (folder / "list.csv").write_text(f"path,domain\n{name},a\n")
        with pytest.raises(DataError, match=r"secret.png' leaves"):
            read_images(folder / "list.csv")
    (folder / "list.csv").unlink()
    for name in ("../b/x.png", "/b/x.png", "C:/b/x.png", "a\\..\\..\\x.png"):
        with pytest.raises(DataError, match=r"x.png' leaves"):
            read_images(zipped(tmp_path / "slip.zip", {name: png(pictures[0])}), on_error="skip")
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "../secret.png")
    with pytest.raises(DataError, match=r"link.png' leaves"):
        read_images(tmp_path / "link.zip")
    before = sorted(tmp_path.rglob("*"))
    os.symlink(outside, folder / "a" / "link.png")
    with pytest.raises(DataError, match=r"a/link.png' leaves"):
        read_images(folder, on_error="skip")
    (folder / "a" / "link.png").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_bombs(folder, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    with pytest.raises(DataError, match=r"a/00.png declares more than 60 pixels"):
        read_images(folder)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(DataError, match=r"a/00.png declares more than 40 pixels"):
        read_images(folder)
    monkeypatch.setattr("unmix.data.image_files.ARCHIVE_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.png", bytes(10**6))
    with pytest.raises(DataError, match="would unpack to 1000000 bytes"):
        read_images(tmp_path / "bomb.zip")
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"damaged or not a \.zip"):
        read_images(tmp_path / "bad.zip")


def test_a_list_of_pictures():
    source = np.random.default_rng(0)
    array = source.integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    pictures = [Image.fromarray(own) for own in array]
    table = read_images(pictures, ["a", "b", "a"])
    np.testing.assert_array_equal(table.images, array)
    assert (table.domains.tolist(), table.paths) == (["a", "b", "a"], ("[0]", "[1]", "[2]"))
    assert read_images(pictures, size=(4, 5), mode="L").images.shape == (3, 4, 5, 1)
    with pytest.raises(DataError, match=r"must hold nothing else; got ndarray among them"):
        read_images([pictures[0], array[1]])
    with pytest.raises(
        DataError, match=r"all grey \(L\) or all RGB; got the modes RGB \(2, such as \[0\]\), L \(1, such as"
    ):
        read_images([*pictures[:2], pictures[2].convert("L")])
    with pytest.raises(DataError, match=r"one size; got, as height×width, 8×9 \(2, .*Pass size="):
        read_images([*pictures[:2], pictures[2].resize((4, 4))])
    with pytest.raises(DataError, match=r"\[0\] has mode I;16, more than 8 bits per channel"):
        read_images([Image.fromarray(np.zeros((8, 8), np.uint16))])
