"""How to quantise, as plain versioned data."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from ..distill.recipe import Frozen

TargetName = Literal["xnnpack", "coreml", "tensorrt"]
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)


class QuantizeConfig(Frozen):
    """Post-training quantisation to int8: 8-bit weights a channel, 8-bit activations a tensor."""

    version: Literal[1] = 1
    targets: tuple[TargetName, ...] = Field(
        default=TARGET_NAMES, min_length=1, description="whose rules to quantise by"
    )
    pictures: int = Field(default=38, gt=0, description="degraded pictures calibration draws")
    iterations: int = Field(default=2, gt=0, description="iterations of each picture's trajectory that are seen")
    rounding: Literal["gptq", "nearest"] = Field(
        default="gptq",
        description="weights become codes whose errors cancel in what a layer computes (GPTQ), or the nearest ones, with "
        "NNCF's fast bias correction",
    )
    equalisation: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="how far channels' ranges move into weights: 1 makes all alike, 0 balances the weights alone",
    )
    outliers: float = Field(
        default=1e-3, ge=0, lt=0.5, description="share of a sample's values outside a range, at either end"
    )
    training_minutes: float | None = Field(
        default=None, gt=0, description="quantisation-aware training of each target; null for none"
    )
    seed: int = 0
    # Left in float: the heads, since 8 bits cannot resolve a small gain in quality, what touches pixels directly, what moves
    # the whole picture at once (the context, and the tokens with the latent that they come from, whose errors are alike in
    # every tile), and the encoder's first layers, where a dark picture fills a few of 256 codes.
    left_in_float: tuple[str, ...] = (
        "encoder.stem",
        "encoder.level1",
        "encoder.level3",
        "encoder.tokens",
        "encoder.head",
        "refiner.head",
        "refiner.correction",
        "refiner.context",
    )
