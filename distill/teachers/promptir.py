"""PromptIR: a Restormer whose decoder levels are steered by learned prompts.

Potlapalli et al., "PromptIR: Prompting for All-in-One Blind Image Restoration", NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .restormer import Restormer, RestormerConfig
from .transformer import TransformerBlock


@dataclass(frozen=True)
class PromptIRConfig(RestormerConfig):
    """A Restormer and the sizes of the prompts at H/2, H/4, H/8."""

    prompt_count: int = 5
    prompt_dims: tuple[int, int, int] = (64, 128, 320)
    prompt_sizes: tuple[int, int, int] = (64, 32, 16)


class Prompt(nn.Module):
    """Prompt generation: a softmax-weighted mix of learned prompts, resized to the features (PromptIR, equation 2)."""

    def __init__(self, features: int, dim: int, count: int, size: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, count, dim, size, size))
        self.linear_layer = nn.Linear(features, count)
        self.conv3x3 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.linear_layer(x.mean((-2, -1))).softmax(1)
        mixed = torch.einsum("bn,ncij->bcij", weights, self.prompt_param[0].to(weights.dtype))
        return self.conv3x3(F.interpolate(mixed, x.shape[-2:], mode="bilinear"))


class PromptIR(Restormer):
    """PromptIR; the latent leaves its prompt block with the channels of the level above."""

    def __init__(self, config: PromptIRConfig) -> None:
        _, c2, c3, c4 = (config.dim * 2**i for i in range(4))
        super().__init__(config, latent_out=c3)
        # Level 1 (H/2), 2, 3 (H/8): features there, and features after the block.
        shapes = ((c2, c2), (c3, c3), (c4, c3))
        for level, (inside, after) in enumerate(shapes, 1):
            dim, size = config.prompt_dims[level - 1], config.prompt_sizes[level - 1]
            width = inside + dim
            self.add_module(f"prompt{level}", Prompt(inside, dim, config.prompt_count, size))
            self.add_module(f"noise_level{level}", TransformerBlock(width, config.heads[2], config.expansion))
            self.add_module(f"reduce_noise_level{level}", nn.Conv2d(width, after, 1, bias=False))

    def steer(self, site: int, features: Tensor, picture: Tensor) -> Tensor:
        level = 3 - site
        prompt = self.get_submodule(f"prompt{level}")(features)
        mixed = self.get_submodule(f"noise_level{level}")(torch.cat([features, prompt], 1))
        return self.get_submodule(f"reduce_noise_level{level}")(mixed)


class PublishedPromptIR(PromptIR):
    """PromptIR with the six tensors that its checkpoints hold and its computation never uses; SIPL's lack them."""

    def __init__(self, config: PromptIRConfig) -> None:
        super().__init__(config)
        c1, c2, c3, _ = (config.dim * 2**i for i in range(4))
        p1, p2, p3 = config.prompt_dims
        reduced = 16 * config.dim // 3  # 256 of 48
        unused = {
            "chnl_reduce1": (p1, p1),
            "chnl_reduce2": (p2, p2),
            "chnl_reduce3": (p3, reduced),
            "reduce_noise_channel_1": (c1 + p1, c1),
            "reduce_noise_channel_2": (c2 + p2, c2),
            "reduce_noise_channel_3": (c3 + reduced, c3),
        }
        for name, (inputs, outputs) in unused.items():
            self.add_module(name, nn.Conv2d(inputs, outputs, 1, bias=False))
