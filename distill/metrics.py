"""Fidelity of batches of pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio a picture, in dB: (B, C, H, W) in [0, 1] → (B,), at most 100."""
    mse = (a.float() - b.float()).square().flatten(1).mean(1)
    return -10.0 * torch.log10(mse.clamp_min(1e-10))
