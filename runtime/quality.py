"""The quality scale: 0 to 1 is 10 to 50 dB of PSNR, linearly.

Predicted quality is a number in [0, 1]; callers may say `min_quality` in it, and people read it in dB.
"""

PSNR_AT_ZERO = 10.0
PSNR_AT_ONE = 50.0


def quality_to_psnr(quality: float) -> float:
    """PSNR in dB that a quality in [0, 1] stands for."""
    return PSNR_AT_ZERO + (PSNR_AT_ONE - PSNR_AT_ZERO) * quality
