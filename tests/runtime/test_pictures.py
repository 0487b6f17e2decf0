"""Pictures survive: orientation, alpha, grey, 16 bits; broken files are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import png
import pytest
from burnish.runtime.errors import InputError
from burnish.runtime.pictures import Picture, from_array, read, to_array, write
from PIL import Image


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
