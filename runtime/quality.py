"""The quality scale: 0 to 1 is 10 to 50 dB of PSNR, linearly.

Predicted quality is a number in [0, 1]; callers may say `min_quality` in it, and people read it in dB.
"""

from __future__ import annotations

import math

PSNR_AT_ZERO = 10.0
PSNR_AT_ONE = 50.0


def quality_to_psnr(quality: float) -> float:
    """PSNR in dB that a quality in [0, 1] stands for."""
    return PSNR_AT_ZERO + (PSNR_AT_ONE - PSNR_AT_ZERO) * quality


def quality_to_mse(quality: float) -> float:
    """Mean squared error, of pixels in [0, 1], that a quality in [0, 1] stands for."""
    return 10.0 ** (-quality_to_psnr(quality) / 10.0)


def quality_of_mean(one: float, count: int, other: float, difference: float) -> float:
    """Predicted quality when `other` joins `one`, the mean of `count` restorations; from theirs and their mean squared
    difference.

    ‖(n a + b) / (n + 1)‖² = (n ‖a‖² + ‖b‖²) / (n + 1) − n ‖a − b‖² / (n + 1)² for the errors a and b, which are taken to
    differ by no more than independent ones would: ‖a − b‖² ≤ ‖a‖² + ‖b‖².
    """
    mine, others, share = quality_to_mse(one), quality_to_mse(other), 1 / (count + 1)
    apart = min(difference, mine + others)
    return mse_to_quality(share * (count * mine + others) - share * share * count * apart)


def mse_to_quality(mse: float) -> float:
    """The quality of a mean squared error; may leave [0, 1]. `mse`: above 0."""
    return (-10.0 * math.log10(mse) - PSNR_AT_ZERO) / (PSNR_AT_ONE - PSNR_AT_ZERO)
