"""Pictures survive: orientation, alpha, grey, 16 bits; broken files are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import png
import pytest
from burnish.runtime.errors import InputError
from burnish.runtime.pictures import Picture, from_array, read, to_array, write
from PIL import Image, ImageCms


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


@pytest.mark.parametrize(("grey", "alpha"), [(False, False), (False, True), (True, False)])
def test_sixteen_bits_round_trip(tmp_path: Path, grey: bool, alpha: bool) -> None:
    planes = (1 if grey else 3) + alpha
    pixels = np.random.default_rng(0).integers(0, 65536, (4, 5, planes)).astype(np.uint16)
    with (tmp_path / "a.png").open("wb") as file:
        png.Writer(5, 4, greyscale=grey, alpha=alpha, bitdepth=16).write(file, pixels.reshape(4, -1).tolist())
    picture = read(tmp_path / "a.png")
    assert picture.bits == 16
    np.testing.assert_array_equal(to_array(picture), pixels)
    write(picture, tmp_path / "b.png")
    np.testing.assert_array_equal(to_array(read(tmp_path / "b.png")), pixels)


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


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_comes_out_upright(tmp_path: Path, turn: int) -> None:
    """The same scene, stored in each of the eight ways a camera may hold it."""
    upright = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that store it so
    image = Image.fromarray(upright)
    stored = image if turn == 1 else image.transpose(Image.Transpose(back[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    np.testing.assert_array_equal(read(save(stored, tmp_path / "a.png", exif=exif)).pixels, upright)


def test_colour_profiles_survive(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    picture = read(save(Image.fromarray(pixels), tmp_path / "a.png", icc_profile=profile))
    assert picture.icc_profile == profile
    deep = Picture(
        np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16), bits=16, icc_profile=profile
    )
    for name, given in (("b.png", picture), ("c.jpg", picture), ("d.png", deep)):
        write(given, tmp_path / name)
        assert read(tmp_path / name).icc_profile == profile
    np.testing.assert_array_equal(read(tmp_path / "d.png").pixels, deep.pixels)


def test_inks_become_colours(tmp_path: Path) -> None:
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[..., 1] = inks[..., 2] = 255  # magenta and yellow make red
    for profile in (None, b"no profile at all"):
        picture = read(save(Image.fromarray(inks, "CMYK"), tmp_path / "a.jpg", quality=100, icc_profile=profile))
        red, green, blue = picture.pixels[2, 2]
        assert red > 200
        assert max(green, blue) < 60
        assert picture.icc_profile is None


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_several_frames_the_first_is_read_and_it_is_said(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    path = save(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    picture = read(path)
    np.testing.assert_allclose(picture.pixels[3, 3], [255, 0, 0], atol=2)
    assert "first" in picture.notes[0]
    assert not read(save(frames[0], tmp_path / "one.png")).notes


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


def test_floats_are_rounded_once(photo: np.ndarray) -> None:
    picture = Picture(photo[:8, :8])
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(np.rint(picture.rgb * 255), picture.pixels)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    Image.new("1", (40_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match="megapixels"):
        read(tmp_path / "bomb.png")


def test_arrays_of_another_kind_are_refused() -> None:
    for wrong in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 7), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="expected"):
            from_array(wrong)


def test_a_failed_write_leaves_nothing(tmp_path: Path, photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write(Picture(photo), tmp_path / "picture.unknown")
    assert not list(tmp_path.iterdir())
