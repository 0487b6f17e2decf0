"""AdaIR: a Restormer whose decoder levels mine low and high frequencies of the degraded picture.

Cui et al., "AdaIR: Adaptive All-in-One Image Restoration via Frequency Mining and Modulation", ICLR 2025.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .restormer import Restormer, RestormerConfig

# The largest half-width of the low band is 1/128 of the frequency plane's side.
BAND_DIVISOR = 128


class ChannelCrossAttention(nn.Module):
    """Transposed attention whose queries come from one map and whose keys and values from another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q = nn.Conv2d(dim, dim, 1, bias=False)
        self.q_dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.kv = nn.Conv2d(dim, dim * 2, 1, bias=False)
        self.kv_dwconv = nn.Conv2d(dim * 2, dim * 2, 3, padding=1, groups=dim * 2, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        batch, channels, height, width = asking.shape

        def heads(x: Tensor) -> Tensor:
            return x.reshape(batch, self.heads, channels // self.heads, height * width)

        key, value = self.kv_dwconv(self.kv(asked)).chunk(2, 1)
        query = F.normalize(heads(self.q_dwconv(self.q(asking))), dim=-1)
        attention = (query @ F.normalize(heads(key), dim=-1).transpose(-2, -1)) * self.temperature
        return self.project_out((attention.softmax(-1) @ heads(value)).reshape(batch, channels, height, width))


class SpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)).sigmoid()


class ChannelGate(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(1, dim // 16)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, dim, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True))).sigmoid()


class FrequencyModulation(nn.Module):
    """Low frequencies are weighted by where the high ones are, high ones by which channels the low ones fill."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.SpatialGate = SpatialGate()
        self.ChannelGate = ChannelGate(dim)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return self.proj(low * self.SpatialGate(high) + high * self.ChannelGate(low))


class FrequencyBlock(nn.Module):
    """Splits the picture's spectrum at a learned, picture-dependent radius and lets features attend to both parts."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        # `conv` and `score_gen` are in the published checkpoints and in no published computation.
        self.conv = nn.Conv2d(3, dim, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(3, dim, 3, padding=1, bias=False)
        self.score_gen = nn.Conv2d(2, 2, 7, padding=3)
        self.para1 = nn.Parameter(torch.zeros(dim, 1, 1))
        self.para2 = nn.Parameter(torch.ones(dim, 1, 1))
        self.channel_cross_l = ChannelCrossAttention(dim, heads)
        self.channel_cross_h = ChannelCrossAttention(dim, heads)
        self.channel_cross_agg = ChannelCrossAttention(dim, heads)
        self.frequency_refine = FrequencyModulation(dim)
        hidden = max(1, dim // 8)
        self.rate_conv = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, hidden, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(hidden, 2, 1, bias=False),
        )

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitudes of the high and the low band of (B, C, h, w)."""
        height, width = x.shape[-2:]
        rate = self.rate_conv(x).sigmoid()
        rows = (height // BAND_DIVISOR * rate[:, 0]).int()[:, None]
        columns = (width // BAND_DIVISOR * rate[:, 1]).int()[:, None]
        y = torch.arange(height, device=x.device)[:, None] - height // 2
        z = torch.arange(width, device=x.device)[None, :] - width // 2
        low = (y >= -rows) & (y < rows) & (z >= -columns) & (z < columns)
        # Fourier transforms know no 16-bit floats.
        spectrum = torch.fft.fftshift(torch.fft.fft2(x.float(), norm="forward"), dim=(-2, -1))

        def band(mask: Tensor) -> Tensor:
            part = torch.fft.ifftshift(spectrum * mask, dim=(-2, -1))
            return torch.fft.ifft2(part, norm="forward").abs().to(x.dtype)

        return band(~low), band(low)

    def forward(self, picture: Tensor, features: Tensor) -> Tensor:
        picture = F.interpolate(picture, features.shape[-2:], mode="bilinear")
        high, low = self._split(self.conv1(picture))
        # The published layout calls the attention of the high band `_l` and that of the low band `_h`.
        mined = self.frequency_refine(self.channel_cross_h(low, features), self.channel_cross_l(high, features))
        return self.channel_cross_agg(features, mined) * self.para1 + features * self.para2


class AdaIR(Restormer):
    """A Restormer with a frequency block after the latent and after decoder levels 3 and 2."""

    def __init__(self, config: RestormerConfig) -> None:
        super().__init__(config)
        for number, dim in enumerate(self.sites, 1):
            self.add_module(f"fre{number}", FrequencyBlock(dim, config.heads[2]))

    def steer(self, site: int, features: Tensor, picture: Tensor) -> Tensor:
        return self.get_submodule(f"fre{site + 1}")(picture, features)
