"""How far one picture is from another: PSNR, SSIM, ΔE2000 and brightness."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from ..distill.recipe import Frozen
from ..runtime.errors import InputError

Array = NDArray[np.float32]

# Rec. 601, as in most published figures on luma.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# The window of SSIM (σ 1.5, cut at 3.5 σ) must fit into a picture.
LEAST_SIDE = 11
# ΔE2000 is dear: beyond this many pixels it is taken on a grid. Its step is odd, since a lattice of even period, such as a
# strided layer or a JPEG block leaves, would be met at one phase alone.
DENSE_PIXELS = 1 << 15
GRID = 5


class Comparison(Frozen):
    """A picture against a reference."""

    psnr: float = Field(description="dB over RGB, at most 100")
    ssim: float = Field(description="SSIM of luma, Gaussian window of σ 1.5 (Wang et al. 2004)")
    delta_e: float = Field(description="mean CIEDE2000 colour difference; 1 is about what a person can just see")
    bias: float = Field(description="mean luma less the reference's, in 1/255; negative is darker")


class View:
    """A picture with what comparisons need of it, worked out once."""

    def __init__(self, rgb: Array) -> None:
        """`rgb`: float32 H×W×3 in [0, 1]. Raises InputError for less than 11 pixels a side."""
        if min(rgb.shape[:2]) < LEAST_SIDE:
            raise InputError(
                f"a picture of {rgb.shape[1]}×{rgb.shape[0]} pixels; expected at least {LEAST_SIDE} a side"
            )
        step = GRID if rgb.shape[0] * rgb.shape[1] > DENSE_PIXELS else 1
        self.rgb = rgb
        self.luma = rgb @ LUMA
        self.lab: Array = rgb2lab(rgb[::step, ::step])

    @classmethod
    def shown(cls, rgb: Array) -> View:
        """What a person gets to see of a result: clipped, 8 bits a channel."""
        return cls(from_pixels(to_pixels(rgb)))


def to_pixels(rgb: Array) -> NDArray[np.uint8]:
    """Clipped and rounded to 8 bits a channel."""
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def from_pixels(pixels: NDArray[np.uint8]) -> Array:
    """8 bits a channel as float32 in [0, 1]."""
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def psnr(picture: Array, reference: Array) -> float:
    """Peak signal-to-noise ratio over all channels in dB, at most 100; both in [0, 1]."""
    error = float(np.mean(np.square(picture - reference)))
    return 100.0 if error < 1e-10 else float(-10 * np.log10(error))


def compare(picture: View, reference: View) -> Comparison:
    """Every measure of `picture` against `reference`, of one size."""
    ssim: Any = structural_similarity(
        reference.luma, picture.luma, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return Comparison(
        psnr=psnr(picture.rgb, reference.rgb),
        ssim=float(ssim),
        delta_e=float(np.mean(deltaE_ciede2000(reference.lab, picture.lab))),
        bias=float(np.mean(picture.luma, dtype=np.float64) - np.mean(reference.luma, dtype=np.float64)) * 255,
    )
