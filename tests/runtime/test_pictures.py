"""Pictures survive: orientation, alpha, grey, 16 bits; broken files are refused in one line."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import png
import pytest
from burnish.runtime.errors import InputError
from burnish.runtime.pictures import Picture, encode, from_array, read, to_array, write
from PIL import Image, ImageCms, TiffImagePlugin
from PIL.PngImagePlugin import putchunk


def test_orientation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be upright
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = read(tmp_path / "a.png")
    assert upright.rgb.shape == (6, 4, 3)
    assert upright.rgb[0, 3].sum() == 3.0


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_modes_round_trip(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(0)
    channels = len(mode)
    pixels = rng.integers(0, 256, (5, 7, channels), np.uint8)
    image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels, mode)
    image.save(tmp_path / "a.png")
    write(read(tmp_path / "a.png"), tmp_path / "b.png")
    again = Image.open(tmp_path / "b.png")
    assert again.mode == mode
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))


def deep(planes: int, height: int = 11, width: int = 13) -> np.ndarray:
    """uint16 H×W×C of noise, so that a byte out of place shows."""
    return np.random.default_rng(0).integers(0, 65536, (height, width, planes)).astype(np.uint16)


def with_chunks(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with chunks more behind its header."""
    stream = io.BytesIO()
    for name, body in chunks:
        putchunk(stream, name, body)
    return data[:33] + stream.getvalue() + data[33:]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_sixteen_bits_are_read_from_png(tmp_path: Path, planes: int, interlaced: bool) -> None:
    pixels = deep(planes)
    make: Any = png.Writer
    with (tmp_path / "a.png").open("wb") as file:
        make(13, 11, greyscale=planes < 3, alpha=planes in (2, 4), bitdepth=16, interlace=interlaced).write(
            file, pixels.reshape(11, -1).tolist()
        )
    picture = read(tmp_path / "a.png")
    assert picture.bits == 16
    assert not picture.notes
    np.testing.assert_array_equal(to_array(picture), pixels)


@pytest.mark.parametrize("planes", [1, 3])
def test_what_a_deep_png_says_of_itself_is_heeded(planes: int) -> None:
    """A colour that is transparent; significant bits, which leave the samples as they are."""
    pixels = deep(planes)
    clear = (b"tRNS", struct.pack(f">{planes}H", *pixels[2, 3].tolist()))
    picture = read(io.BytesIO(with_chunks(encode(from_array(pixels), ".png"), (b"sBIT", bytes([12] * planes)), clear)))
    np.testing.assert_array_equal(to_array(picture)[..., :-1], pixels)
    assert picture.alpha is not None
    assert [tuple(at) for at in np.argwhere(picture.alpha != 65535)] == [(2, 3)]
    assert picture.alpha[2, 3] == 0


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_sixteen_bits_round_trip(tmp_path: Path, planes: int, suffix: str) -> None:
    pixels, path = deep(planes), tmp_path / f"a{suffix}"
    write(from_array(pixels), path)
    again = to_array(read(path))
    if (planes, suffix) == (2, ".tiff"):  # grey with alpha is written in colour
        pixels = pixels[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(again, pixels)
    if suffix == ".tiff":  # what others make of it
        theirs = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(
            theirs, pixels[..., 0] if planes == 1 else pixels[..., [2, 1, 0, 3][: again.shape[2]]]
        )


@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("planes", [1, 3, 4])
def test_sixteen_bits_are_read_from_tiff(tmp_path: Path, planes: int, compression: int) -> None:
    pixels = deep(planes, 300, 40)  # of several strips
    shown = pixels[..., 0] if planes == 1 else pixels[..., [2, 1, 0, 3][:planes]]
    cv2.imwrite(str(tmp_path / "a.tiff"), shown, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    for source in (tmp_path / "a.tiff", io.BytesIO((tmp_path / "a.tiff").read_bytes())):
        np.testing.assert_array_equal(to_array(read(source)), pixels)


@pytest.mark.parametrize("peak", [256, 1023, 65535])
def test_sixteen_bits_are_read_from_ppm(peak: int) -> None:
    pixels = deep(3).astype(int) % (peak + 1)
    picture = read(io.BytesIO(f"P6 13 11 {peak}\n".encode() + pixels.astype(">u2").tobytes()))
    np.testing.assert_array_equal(picture.pixels, np.rint(pixels * (65535 / peak)))
    assert not picture.notes


def plain_ppm() -> bytes:
    return b"P3 2 1 1023\n1023 0 0 0 512 1023\n"


def multiplied_tiff() -> bytes:
    """ExtraSamples says that colours were multiplied by alpha."""
    return encode(from_array(deep(4)), ".tiff").replace(
        struct.pack("<HHIH", 338, 3, 1, 2), struct.pack("<HHIH", 338, 3, 1, 1)
    )


def cv2_encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(plain_ppm(), id="ppm"),
        pytest.param(multiplied_tiff(), id="tiff"),
        pytest.param(cv2_encoded(".jp2", deep(3, 64, 64)), id="jp2"),
        pytest.param(cv2_encoded(".avif", deep(3, 64, 64) // 64, cv2.IMWRITE_AVIF_DEPTH, 10), id="avif"),
    ],
)
def test_it_is_said_where_eight_bits_are_left(data: bytes) -> None:
    picture = read(io.BytesIO(data))
    assert picture.bits == 8
    assert "restored in 8 bits" in picture.notes[0]


@pytest.mark.parametrize("suffix", [".jp2", ".avif", ".ppm", ".tiff", ".png"])
def test_nothing_is_said_of_pictures_of_eight_bits(suffix: str) -> None:
    assert not read(io.BytesIO(cv2_encoded(suffix, (deep(3, 64, 64) >> 8).astype(np.uint8)))).notes


def test_deep_colours_in_separate_planes_are_refused() -> None:
    apart = encode(from_array(deep(3)), ".tiff").replace(struct.pack("<HHI", 278, 4, 1), struct.pack("<HHI", 284, 3, 1))
    apart = apart.replace(struct.pack("<HHII", 284, 3, 1, 11), struct.pack("<HHII", 284, 3, 1, 2))
    with pytest.raises(InputError, match="separate planes"):
        read(io.BytesIO(apart))


def test_other_formats_get_sixteen_bits_rounded_to_eight() -> None:
    pixels = deep(3)
    shown = read(io.BytesIO(encode(from_array(pixels), ".bmp"))).pixels
    np.testing.assert_array_equal(shown, np.rint(pixels / 257))


def test_broken_files_are_refused(tmp_path: Path, photo: np.ndarray) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    write(Picture(photo), tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    for name in ("text.png", "cut.png", "missing.png"):
        with pytest.raises(InputError, match="expected"):
            read(tmp_path / name)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_comes_out_upright(turn: int, bits: int) -> None:
    """The same scene, stored in each of the eight ways a camera may hold it."""
    upright = deep(3, 4, 6) if bits == 16 else (deep(3, 4, 6) >> 8).astype(np.uint8)
    transposed = turn >= 5
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[turn]
    assert stored.shape[:2] == ((6, 4) if transposed else (4, 6))
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(from_array(stored), ".png")
    turned = with_chunks(data, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    np.testing.assert_array_equal(read(io.BytesIO(turned)).pixels, upright)


def test_colour_profiles_survive(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    picture = read(save(Image.fromarray(pixels), tmp_path / "a.png", icc_profile=profile))
    assert picture.icc_profile == profile
    fine = Picture(deep(3), icc_profile=profile)
    for name, given in (("b.png", picture), ("c.jpg", picture), ("d.png", fine), ("e.tiff", fine)):
        write(given, tmp_path / name)
        assert read(tmp_path / name).icc_profile == profile


def test_inks_become_colours(tmp_path: Path) -> None:
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[..., 1] = inks[..., 2] = 255  # magenta and yellow make red
    for profile in (None, b"no profile at all"):
        picture = read(save(Image.fromarray(inks, "CMYK"), tmp_path / "a.jpg", quality=100, icc_profile=profile))
        red, green, blue = picture.pixels[2, 2]
        assert red > 200
        assert max(green, blue) < 60
        assert picture.icc_profile is None


def test_lab_does_not_leave_its_profile_to_the_colours_it_becomes(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.fromarray(np.full((4, 4, 3), (128, 0, 0), np.uint8), "LAB")
    picture = read(save(image, tmp_path / "a.tiff", icc_profile=profile))
    assert picture.icc_profile is None
    np.testing.assert_allclose(picture.pixels[0, 0], 119, atol=2)  # L* of 50 is this grey


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_several_frames_the_first_is_read_and_it_is_said(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    path = save(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    picture = read(path)
    np.testing.assert_allclose(picture.pixels[3, 3], [255, 0, 0], atol=2)
    assert "first" in picture.notes[0]
    assert not read(save(frames[0], tmp_path / "one.png")).notes


def test_of_a_deep_animation_the_first_frame_is_read_and_it_is_said() -> None:
    pixels = deep(3)
    control = struct.pack(">IIIIIHHBB", 0, 13, 11, 0, 0, 1, 10, 0, 0)
    data = with_chunks(encode(from_array(pixels), ".png"), (b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", control))
    picture = read(io.BytesIO(data))
    assert "first" in picture.notes[0]
    np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("mode", ["1", "P", "I", "F", "LAB", "YCbCr"])
def test_rarer_modes_are_read(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).convert("L").convert(mode)
    picture = read(save(image, tmp_path / ("a.png" if mode in ("1", "P") else "a.tiff")))
    assert picture.pixels.shape == (6, 8, 3)
    assert picture.bits == (16 if mode in ("I", "F") else 8)


def test_formats_that_start_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    with pytest.raises(InputError, match="EPS"):
        read(path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((4, 4), np.nan, np.float32))
    with pytest.raises(InputError, match="no numbers"):
        read(save(image, tmp_path / "a.tiff"))


def test_twelve_bits_of_grey_are_not_dark() -> None:
    values = np.array([[0, 4095, 2048, 1], [100, 200, 300, 400]])
    data = int("".join(f"{value:012b}" for value in values.ravel()), 2).to_bytes(12, "big")
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in (
        (256, 4),
        (257, 2),
        (278, 2),
        (258, 12),
        (277, 1),
        (259, 1),
        (262, 1),
        (273, 0),
        (279, len(data)),
    ):
        directory[tag] = value
    stream = io.BytesIO()
    directory.save(stream)
    picture = read(io.BytesIO(stream.getvalue() + data))
    assert (picture.bits, picture.grey, picture.notes) == (16, True, ())
    np.testing.assert_array_equal(picture.pixels[..., 0], np.rint(values * (65535 / 4095)))


def test_floats_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="no numbers"):
        Picture(np.full((4, 4, 3), np.nan, np.float32))


def test_floats_are_rounded_once(photo: np.ndarray) -> None:
    picture = Picture(photo[:8, :8])
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(np.rint(picture.rgb * 255), picture.pixels)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    Image.new("1", (40_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match="megapixels"):
        read(tmp_path / "bomb.png")


@pytest.mark.parametrize("interlaced", [False, True])
def test_of_a_deep_png_no_more_is_inflated_than_its_header_says(interlaced: bool) -> None:
    """Of 6×4 pixels, and 300 MiB of nothing behind them."""
    squeeze = zlib.compressobj(1)
    nothing = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(300)) + squeeze.flush()
    stream = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    stream.seek(0, io.SEEK_END)
    putchunk(stream, b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, interlaced))
    putchunk(stream, b"IDAT", nothing)
    putchunk(stream, b"IEND", b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(stream).pixels.shape == (4, 6, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


@pytest.mark.parametrize("wrong", [Image.new("RGB", (4, 4)), [[1, 2], [3, 4]], None, b"bytes", 7])
@pytest.mark.parametrize("take", [read, from_array, Picture])
def test_what_is_no_picture_is_refused_in_a_line(take: Any, wrong: object) -> None:
    with pytest.raises(InputError, match=r"^got .*; expected") as refused:
        take(wrong)
    assert "\n" not in str(refused.value)


def test_arrays_of_another_kind_are_refused() -> None:
    huge = np.broadcast_to(np.uint8(0), (20_000, 20_000, 3))  # which takes a byte
    kinds = (np.zeros((4, 4, 7), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.int64))
    for wrong in (*kinds, np.zeros((1, 4, 4, 3), np.uint8)):
        for take in (from_array, Picture):
            with pytest.raises(InputError, match="expected"):
                take(wrong)
    with pytest.raises(InputError, match="expected"):
        from_array(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(InputError, match="H×W×3"):
        Picture(np.zeros((4, 4), np.uint8))
    for take in (from_array, Picture):
        with pytest.raises(InputError, match="megapixels"):
            take(huge)
    with pytest.raises(InputError, match="megapixels"):
        from_array(huge[..., 0])


def test_a_picture_is_as_deep_as_its_pixels() -> None:
    white = Picture(np.full((2, 2, 3), 65535, np.uint16))
    assert white.bits == 16
    assert white.rgb.max() == 1
    assert white.with_rgb(np.ones((2, 2, 3), np.float32)).pixels.max() == 65535
    with pytest.raises(InputError, match="8 or 16"):
        Picture(np.ones((2, 2, 3), np.float32), bits=10)
    for alpha in (np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint16), [[0, 0], [0, 0]]):
        with pytest.raises(InputError, match="expected"):
            Picture(white.pixels, alpha)  # type: ignore[arg-type]


def test_a_failed_write_leaves_nothing(tmp_path: Path, photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write(Picture(photo), tmp_path / "picture.unknown")
    assert not list(tmp_path.iterdir())
