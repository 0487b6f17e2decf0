"""Measures of one picture against another."""

from __future__ import annotations

import numpy as np
import pytest
from burnish.device_tests import metrics
from burnish.device_tests.metrics import View, compare
from burnish.runtime import InputError
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab


def test_a_picture_against_itself(photo: NDArray[np.float32]) -> None:
    view = View(photo)
    assert compare(view, view).model_dump() == {"psnr": 100.0, "ssim": 1.0, "delta_e": 0.0, "bias": 0.0}


def test_brightness_bias_is_signed_and_in_levels(photo: NDArray[np.float32]) -> None:
    middle = photo * 0.5 + 0.2
    darker = compare(View(middle - np.float32(3 / 255)), View(middle))
    assert darker.bias == pytest.approx(-3.0, abs=1e-3)
    assert darker.psnr == pytest.approx(-20 * np.log10(3 / 255), abs=1e-3)
    assert 0.5 < darker.delta_e < 2.0


def test_a_hue_is_seen_by_delta_e_and_by_no_brightness(photo: NDArray[np.float32]) -> None:
    """Red up and green down so that luma stays: what brightness and a grey SSIM cannot see."""
    middle = photo * 0.5 + 0.2
    shift = np.array([0.02, -0.02 * metrics.LUMA[0] / metrics.LUMA[1], 0], np.float32)
    tinted = compare(View(middle + shift), View(middle))
    assert abs(tinted.bias) < 1e-3
    assert tinted.ssim > 0.9999
    assert tinted.delta_e > 1.0


def test_delta_e_on_a_grid_is_that_of_every_pixel(photo: NDArray[np.float32]) -> None:
    """Also where the error has the period of a strided layer, which an even grid would see at one phase alone."""
    noise = np.random.default_rng(0).normal(0, 0.03, photo.shape).astype(np.float32)
    lattice = np.zeros_like(photo)
    lattice[::4, ::4] = 0.1
    for error in (noise, lattice):
        other = np.clip(photo + error, 0, 1)
        every = float(deltaE_ciede2000(rgb2lab(photo), rgb2lab(other)).mean())
        assert compare(View(other), View(photo)).delta_e == pytest.approx(every, rel=0.05)


def test_what_a_person_sees_is_8_bits(photo: NDArray[np.float32]) -> None:
    assert compare(View.shown(photo + np.float32(0.4 / 255)), View(photo)).psnr == 100.0


def test_a_picture_too_small_for_ssim_is_refused() -> None:
    with pytest.raises(InputError, match="20×10 pixels"):
        View(np.zeros((10, 20, 3), np.float32))
