"""How to quantise, as plain versioned data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..distill.recipe import Frozen


class QuantizeConfig(Frozen):
    """Post-training quantisation to int8: 8-bit weights a channel, 8-bit activations a tensor."""

    version: Literal[1] = 1
    pictures: int = Field(default=38, gt=0, description="degraded pictures calibration draws")
    iterations: int = Field(default=2, gt=0, description="iterations of each picture's trajectory that are seen")
    bias_correction: bool = True
    range: Literal["extremes", "mean"] = Field(
        default="extremes", description="how activation ranges join over samples"
    )
    seed: int = 0
    # Left in float: the heads, since 8 bits cannot resolve a small gain in quality, and what touches pixels directly.
    encode_float: tuple[str, ...] = ("encoder.head",)
    refine_float: tuple[str, ...] = ("refiner.head", "refiner.correction")
