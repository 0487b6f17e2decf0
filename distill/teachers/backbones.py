"""The backbones of SIPL by name and size."""

from __future__ import annotations

from typing import Literal

from .adair import AdaIR
from .backbone import Backbone
from .promptir import PromptIR, PromptIRConfig
from .restormer import Restormer, RestormerConfig

BackboneSize = Literal["published", "reduced", "tiny"]


def backbone(name: str, size: BackboneSize) -> Backbone:
    """`promptir`, `adair`, `nafnet` or `restormer` with fresh weights: as published, or small enough to train here."""
    if name == "promptir":
        return PromptIR(PROMPTIR[size])
    if name == "nafnet":
        # spandrel, which only this backbone needs, is in another extra than training.
        from .nafnet import NAFNET, NAFNet

        return NAFNet(NAFNET[size])
    return {"adair": AdaIR, "restormer": Restormer}[name](RESTORMER[size])


_REDUCED = RestormerConfig(dim=24, blocks=(2, 2, 3, 3), refinement=2, expansion=2.0, stride=2)
_TINY = RestormerConfig(dim=8, blocks=(1, 1, 1, 1), refinement=1, expansion=2.0, stride=2)
RESTORMER: dict[BackboneSize, RestormerConfig] = {"published": RestormerConfig(), "reduced": _REDUCED, "tiny": _TINY}
PROMPTIR: dict[BackboneSize, PromptIRConfig] = {
    "published": PromptIRConfig(),
    "reduced": PromptIRConfig(**vars(_REDUCED), prompt_dims=(16, 32, 64), prompt_sizes=(32, 16, 8)),
    "tiny": PromptIRConfig(**vars(_TINY), prompt_dims=(8, 8, 8), prompt_sizes=(8, 4, 2)),
}
