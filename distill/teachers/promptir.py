"""PromptIR: a Restormer-style encoder-decoder whose decoder levels are steered by learned prompts.

Potlapalli et al., "PromptIR: Prompting for All-in-One Blind Image Restoration", NeurIPS 2023. Parameter names follow the
published checkpoints' layout. `stride` is ours: 1 is the published network, 2 works at half resolution (the reduced one).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class PromptIRConfig:
    """Sizes of a PromptIR; the defaults are the published ones."""

    dim: int = 48
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    refinement: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    expansion: float = 2.66
    prompt_count: int = 5
    prompt_dims: tuple[int, int, int] = (64, 128, 320)
    prompt_sizes: tuple[int, int, int] = (64, 32, 16)
    stride: int = 1

    @property
    def multiple(self) -> int:
        """Picture sides must be a multiple of this many pixels."""
        return 8 * self.stride


class LayerNorm(nn.Module):
    """Layer norm over channels at every pixel, with bias."""

    class Body(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))
            self.bias = nn.Parameter(torch.zeros(dim))

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = self.Body(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, x.shape[-1:], self.body.weight, self.body.bias).permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention: attention between channels, linear in pixels (Restormer, section 3.1)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv_dwconv(self.qkv(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.unbind(1)
        attention = (F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)) * self.temperature
        return self.project_out((attention.softmax(-1) @ value).reshape(batch, channels, height, width))


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network (Restormer, section 3.2)."""

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=False)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    def __init__(self, dim: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = ChannelAttention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.ffn = GatedFeedForward(dim, expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


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


class PatchEmbed(nn.Module):
    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 3 if stride == 1 else 2 * stride, stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Downsample(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Upsample(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim * 2, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class PromptIR(nn.Module):
    """PromptIR in two halves, `encode` and `decode`, so that extensions can act between and after the decoder's levels."""

    def __init__(self, config: PromptIRConfig) -> None:
        super().__init__()
        self.config = config
        c1, c2, c3, c4 = (config.dim * 2**i for i in range(4))
        p1, p2, p3 = config.prompt_dims

        def level(dim: int, index: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(dim, config.heads[index], config.expansion) for _ in range(count)))

        def prompt(index: int, features: int) -> Prompt:
            return Prompt(features, config.prompt_dims[index], config.prompt_count, config.prompt_sizes[index])

        def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 1, bias=False)

        self.patch_embed = PatchEmbed(c1, config.stride)
        self.prompt1, self.prompt2, self.prompt3 = prompt(0, c2), prompt(1, c3), prompt(2, c4)
        self.encoder_level1 = level(c1, 0, config.blocks[0])
        self.down1_2 = Downsample(c1)
        self.encoder_level2 = level(c2, 1, config.blocks[1])
        self.down2_3 = Downsample(c2)
        self.encoder_level3 = level(c3, 2, config.blocks[2])
        self.down3_4 = Downsample(c3)
        self.latent = level(c4, 3, config.blocks[3])
        self.up4_3 = Upsample(c3)
        self.reduce_chan_level3 = pointwise(c2 + c3, c3)
        self.noise_level3 = TransformerBlock(c4 + p3, config.heads[2], config.expansion)
        self.reduce_noise_level3 = pointwise(c4 + p3, c3)
        self.decoder_level3 = level(c3, 2, config.blocks[2])
        self.up3_2 = Upsample(c3)
        self.reduce_chan_level2 = pointwise(c3, c2)
        self.noise_level2 = TransformerBlock(c3 + p2, config.heads[2], config.expansion)
        self.reduce_noise_level2 = pointwise(c3 + p2, c3)
        self.decoder_level2 = level(c2, 1, config.blocks[1])
        self.up2_1 = Upsample(c2)
        self.noise_level1 = TransformerBlock(c2 + p1, config.heads[2], config.expansion)
        self.reduce_noise_level1 = pointwise(c2 + p1, c2)
        self.decoder_level1 = level(c2, 0, config.blocks[0])
        self.refinement = level(c2, 0, config.refinement)
        self.output: nn.Module
        if config.stride == 1:
            self.output = nn.Conv2d(c2, 3, 3, padding=1, bias=False)
        else:
            self.output = nn.Sequential(
                nn.Conv2d(c2, 3 * config.stride**2, 3, padding=1, bias=False), nn.PixelShuffle(config.stride)
            )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of levels 1 to 3 and the latent, largest first."""
        e1 = self.encoder_level1(self.patch_embed(x))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        return e1, e2, e3, self.latent(self.down3_4(e3))

    def fuse(self, site: int, features: Tensor) -> Tensor:
        """Hook for extensions: site 0 after the latent, 1 after decoder level 3, 2 after decoder level 2."""
        return features

    def decode(self, x: Tensor, features: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """The restored picture: features through the decoder, added to `x`."""
        e1, e2, e3, latent = features
        latent = self.fuse(0, latent)
        latent = self.reduce_noise_level3(self.noise_level3(torch.cat([latent, self.prompt3(latent)], 1)))
        d3 = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(latent), e3], 1)))
        d3 = self.fuse(1, d3)
        d3 = self.reduce_noise_level2(self.noise_level2(torch.cat([d3, self.prompt2(d3)], 1)))
        d2 = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(d3), e2], 1)))
        d2 = self.fuse(2, d2)
        d2 = self.reduce_noise_level1(self.noise_level1(torch.cat([d2, self.prompt1(d2)], 1)))
        d1 = self.decoder_level1(torch.cat([self.up2_1(d2), e1], 1))
        return self.output(self.refinement(d1)) + x

    def forward(self, x: Tensor) -> Tensor:
        """Restore (B, 3, H, W) RGB in [0, 1]; sides must be multiples of `config.multiple`."""
        return self.decode(x, self.encode(x))
