"""Restormer, the trunk of PromptIR and AdaIR: a four-level encoder-decoder of transposed-attention blocks.

Zamir et al., "Restormer", CVPR 2022. `stride` is ours: 1 is the published network, 2 works at half resolution and
ends, as students do, in an affine correction of every pixel (haze and exposure are multiplications).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .backbone import Backbone, Fuse
from .transformer import Downsample, PatchEmbed, TransformerBlock, Upsample


@dataclass(frozen=True)
class RestormerConfig:
    """Sizes of a Restormer; the defaults are the published ones."""

    dim: int = 48
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    refinement: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    expansion: float = 2.66
    stride: int = 1


class Restormer(Backbone):
    """The trunk; subclasses change features at a site in `steer`, after SIPL's fusion there."""

    def __init__(self, config: RestormerConfig, latent_out: int | None = None) -> None:
        """`latent_out`: channels of the latent after `steer`, where a subclass changes them."""
        super().__init__()
        c1, c2, c3, c4 = (config.dim * 2**i for i in range(4))
        self.multiple = 8 * config.stride
        self.sites = (c4, c3, c2)
        latent = c4 if latent_out is None else latent_out

        def level(dim: int, index: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(dim, config.heads[index], config.expansion) for _ in range(count)))

        def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 1, bias=False)

        self.patch_embed = PatchEmbed(c1, config.stride)
        self.encoder_level1 = level(c1, 0, config.blocks[0])
        self.down1_2 = Downsample(c1)
        self.encoder_level2 = level(c2, 1, config.blocks[1])
        self.down2_3 = Downsample(c2)
        self.encoder_level3 = level(c3, 2, config.blocks[2])
        self.down3_4 = Downsample(c3)
        self.latent = level(c4, 3, config.blocks[3])
        self.up4_3 = Upsample(latent)
        self.reduce_chan_level3 = pointwise(latent // 2 + c3, c3)
        self.decoder_level3 = level(c3, 2, config.blocks[2])
        self.up3_2 = Upsample(c3)
        self.reduce_chan_level2 = pointwise(c3, c2)
        self.decoder_level2 = level(c2, 1, config.blocks[1])
        self.up2_1 = Upsample(c2)
        self.decoder_level1 = level(c2, 0, config.blocks[0])
        self.refinement = level(c2, 0, config.refinement)
        self.affine = config.stride > 1
        self.output: nn.Module
        if self.affine:
            head = nn.Conv2d(c2, 6 * config.stride**2, 3, padding=1, bias=False)
            nn.init.normal_(head.weight, std=1e-3)  # a calm start, near the identity
            self.output = nn.Sequential(head, nn.PixelShuffle(config.stride))
        else:
            self.output = nn.Conv2d(c2, 3, 3, padding=1, bias=False)

    def steer(self, site: int, features: Tensor, picture: Tensor) -> Tensor:
        return features

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        e1 = self.encoder_level1(self.patch_embed(x))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        return e1, e2, e3, self.latent(self.down3_4(e3))

    def decode(self, x: Tensor, features: tuple[Tensor, ...], fuse: Fuse) -> Tensor:
        e1, e2, e3, latent = features
        latent = self.steer(0, fuse(0, latent), x)
        d3 = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(latent), e3], 1)))
        d3 = self.steer(1, fuse(1, d3), x)
        d2 = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(d3), e2], 1)))
        d2 = self.steer(2, fuse(2, d2), x)
        d1 = self.decoder_level1(torch.cat([self.up2_1(d2), e1], 1))
        correction = self.output(self.refinement(d1))
        if not self.affine:
            return correction + x
        gain, bias = correction.chunk(2, 1)
        return x + x * gain + bias
