"""The backbones of SIPL by name and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .adair import AdaIR
from .backbone import Backbone
from .nafnet import NAFNet, NAFNetConfig
from .promptir import PromptIR, PromptIRConfig
from .restormer import Restormer, RestormerConfig

TrunkSize = Literal["published", "reduced", "tiny"]


@dataclass(frozen=True)
class Trunk:
    """A backbone and whose work it is."""

    network: Backbone
    title: str
    paper: str
    licence: str
    commercial_use: bool


def trunk(name: str, size: TrunkSize) -> Trunk:
    """A backbone with fresh weights: as published, or small enough to train here."""
    if name == "promptir":
        return Trunk(
            PromptIR(PROMPTIR[size]),
            "PromptIR",
            "Potlapalli et al., PromptIR: Prompting for All-in-One Blind Image Restoration, NeurIPS 2023",
            "non-commercial (PromptIR)",
            commercial_use=False,
        )
    if name == "adair":
        return Trunk(
            AdaIR(RESTORMER[size]),
            "AdaIR",
            "Cui et al., AdaIR: Adaptive All-in-One Image Restoration via Frequency Mining and Modulation, ICLR 2025",
            "none published (AdaIR)",
            commercial_use=False,
        )
    if name == "nafnet":
        return Trunk(
            NAFNet(NAFNET[size]),
            "NAFNet",
            "Chen et al., Simple Baselines for Image Restoration, ECCV 2022",
            "MIT (NAFNet)",
            commercial_use=True,
        )
    return Trunk(
        Restormer(RESTORMER[size]),
        "Restormer",
        "Zamir et al., Restormer: Efficient Transformer for High-Resolution Image Restoration, CVPR 2022",
        "academic (Restormer)",
        commercial_use=False,
    )


_REDUCED = RestormerConfig(dim=24, blocks=(2, 2, 3, 3), refinement=2, expansion=2.0, stride=2)
_TINY = RestormerConfig(dim=8, blocks=(1, 1, 1, 1), refinement=1, expansion=2.0, stride=2)
RESTORMER: dict[TrunkSize, RestormerConfig] = {"published": RestormerConfig(), "reduced": _REDUCED, "tiny": _TINY}
PROMPTIR: dict[TrunkSize, PromptIRConfig] = {
    "published": PromptIRConfig(),
    "reduced": PromptIRConfig(**vars(_REDUCED), prompt_dims=(16, 32, 64), prompt_sizes=(32, 16, 8)),
    "tiny": PromptIRConfig(**vars(_TINY), prompt_dims=(8, 8, 8), prompt_sizes=(8, 4, 2)),
}
NAFNET: dict[TrunkSize, NAFNetConfig] = {
    "published": NAFNetConfig(),
    "reduced": NAFNetConfig(width=24, encoders=(1, 1, 2, 4)),
    "tiny": NAFNetConfig(width=12, encoders=(1, 1, 1, 1)),
}
