"""Fidelity of batches of pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from ..runtime.quality import PSNR_AT_ONE, PSNR_AT_ZERO


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio a picture, in dB: (B, C, H, W) in [0, 1] → (B,), at most 100."""
    mse = (a.float() - b.float()).square().flatten(1).mean(1)
    return -10.0 * torch.log10(mse.clamp_min(1e-10))


def quality_of(decibels: Tensor) -> Tensor:
    """PSNR in dB on the quality scale, [0, 1] (`runtime.quality`)."""
    return ((decibels - PSNR_AT_ZERO) / (PSNR_AT_ONE - PSNR_AT_ZERO)).clamp(0, 1)


def fidelity_loss(restored: Tensor, target: Tensor, floor: float) -> Tensor:
    """Mean over pictures of log(1 + MSE / floor): a PSNR loss that is smooth at zero.

    A logarithm lets every degradation pull alike, though haze errs ten times as far as noise. The floor takes away the
    kink that L1 and plain PSNR have where nothing is wrong: clean and mild pictures would hold the network at the identity.
    """
    return torch.log1p((restored - target).square().mean((1, 2, 3)) / floor).mean()
