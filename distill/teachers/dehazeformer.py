"""DehazeFormer: a U-net of convolutions and shifted windows whose output is a soft reconstruction K·x − B + x.

Song et al., "Vision Transformers for Single Image Dehazing", TIP 2023. Parameter names follow the published
checkpoints; sizes are those of DehazeFormer-L (25.44 M), which UniRestorer has among its experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DehazeFormerConfig:
    """Sizes by stage: encoder at full, half and quarter resolution, decoder at half and full."""

    dims: tuple[int, int, int, int, int] = (48, 96, 192, 96, 48)
    blocks: tuple[int, int, int, int, int] = (16, 16, 16, 12, 12)
    heads: tuple[int, int, int, int, int] = (2, 4, 6, 1, 1)
    expansions: tuple[int, int, int, int, int] = (2, 4, 4, 2, 2)
    # The share of a stage's blocks, its last ones, that attend to windows; the others only convolve.
    attending: tuple[float, float, float, float, float] = (1 / 4, 1 / 2, 3 / 4, 0, 0)
    window: int = 8


def _reflected(dim_in: int, dim_out: int) -> nn.Conv2d:
    return nn.Conv2d(dim_in, dim_out, 3, padding=1, padding_mode="reflect")


class RescaleLayerNorm(nn.Module):
    """Normalises over channels and positions at once, and tells how to give mean and deviation back afterwards."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dim, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.meta1, self.meta2 = nn.Conv2d(1, dim, 1), nn.Conv2d(1, dim, 1)
        for meta, start in ((self.meta1, 1.0), (self.meta2, 0.0)):
            nn.init.trunc_normal_(meta.weight, std=0.02)
            assert meta.bias is not None
            nn.init.constant_(meta.bias, start)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean((1, 2, 3), keepdim=True)
        deviation = ((x - mean).square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        normal = (x - mean) / deviation * self.weight + self.bias
        return normal, self.meta1(deviation), self.meta2(mean)


class WindowBias(nn.Module):
    """Relative positions in a window → a bias for every pair and head, by a small network on their logarithms."""

    relative_positions: Tensor

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        side = torch.arange(window)
        places = torch.cartesian_prod(side, side)
        apart = (places[:, None] - places[None]).float()
        # In the published layout, though it is a constant.
        self.register_buffer("relative_positions", apart.sign() * apart.abs().log1p())
        self.meta = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, heads))

    def forward(self) -> Tensor:
        """(heads, window², window²)."""
        return self.meta(self.relative_positions).permute(2, 0, 1)


class Mixer(nn.Module):
    """Two convolutions, and in attending blocks attention within windows beside them."""

    def __init__(self, dim: int, heads: int, window: int, shift: int, attends: bool) -> None:
        super().__init__()
        self.heads, self.window, self.shift, self.attends = heads, window, shift, attends
        self.conv = nn.Sequential(_reflected(dim, dim), nn.ReLU(), _reflected(dim, dim))
        if attends:
            self.V, self.proj, self.QK = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, 2 * dim, 1)
            self.attn = WindowBias(window, heads)

    def _windows(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """(B, C, rows·w, columns·w) → (B·rows·columns, heads, w², C / heads)."""
        batch, channels, w = x.shape[0], x.shape[1], self.window
        x = x.view(batch, self.heads, channels // self.heads, rows, w, columns, w)
        return x.permute(0, 3, 5, 1, 4, 6, 2).reshape(-1, self.heads, w * w, channels // self.heads)

    def _attend(self, x: Tensor, value: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        top, left = (_padding(side, self.window, self.shift, x.device) for side in (height, width))
        padded = torch.cat([self.QK(x), value], 1)[..., top, :][..., left]
        rows, columns = len(top) // self.window, len(left) // self.window
        query, key, value = (self._windows(part, rows, columns) for part in padded.chunk(3, 1))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self.attn().to(query.dtype))
        mixed = mixed.view(len(x), rows, columns, self.heads, self.window, self.window, -1)
        mixed = mixed.permute(0, 3, 6, 1, 4, 2, 5).reshape(len(x), -1, len(top), len(left))
        return mixed[..., self.shift : self.shift + height, self.shift : self.shift + width]

    def forward(self, x: Tensor) -> Tensor:
        if not self.attends:
            return self.conv(x)
        value = self.V(x)
        return self.proj(self.conv(value) + self._attend(x, value))


def _padding(side: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Indices that mirror `side` up to whole windows, the first `shift` of them before it."""
    period = max(1, 2 * (side - 1))
    index = torch.arange(-shift, side + (-side - shift) % window, device=device) % period
    return torch.minimum(index, period - index)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, expansion: int, window: int, shift: int, attends: bool) -> None:
        super().__init__()
        self.norm1 = RescaleLayerNorm(dim) if attends else None
        self.attn = Mixer(dim, heads, window, shift, attends)
        layers = nn.Sequential(nn.Conv2d(dim, dim * expansion, 1), nn.ReLU(), nn.Conv2d(dim * expansion, dim, 1))
        self.mlp = nn.ModuleDict({"mlp": layers})  # the published name

    def forward(self, x: Tensor) -> Tensor:
        if self.norm1 is None:
            x = x + self.attn(x)
        else:
            normal, scale, offset = self.norm1(x)
            x = x + self.attn(normal) * scale + offset
        return x + self.mlp["mlp"](x)


class Stage(nn.Module):
    def __init__(self, config: DehazeFormerConfig, index: int) -> None:
        super().__init__()
        count = config.blocks[index]
        convolving = count - config.attending[index] * count
        self.blocks = nn.Sequential(
            *(
                Block(
                    config.dims[index],
                    config.heads[index],
                    config.expansions[index],
                    config.window,
                    shift=config.window // 2 * (number % 2),
                    attends=number >= convolving,
                )
                for number in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Projection(nn.Module):
    """`proj` of the published layout, with pixel shuffle where it enlarges."""

    def __init__(self, conv: nn.Conv2d, shuffle: int | None = None) -> None:
        super().__init__()
        self.proj = conv if shuffle is None else nn.Sequential(conv, nn.PixelShuffle(shuffle))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class SelectiveFusion(nn.Module):
    """Two maps weighed against each other in every channel by what they have in common."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(dim // 8, 4)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, 2 * dim, 1, bias=False)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        weights = self.mlp((x + skip).mean((2, 3), keepdim=True)).unflatten(1, (2, -1)).softmax(1)
        return x * weights[:, 0] + skip * weights[:, 1]


class DehazeFormer(nn.Module):
    """Restores (B, 3, H, W) in [0, 1]; sides are multiples of 4."""

    def __init__(self, config: DehazeFormerConfig) -> None:
        super().__init__()
        full, half, quarter, up_half, up_full = config.dims
        self.patch_embed = Projection(_reflected(3, full))
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = (Stage(config, i) for i in range(5))
        self.patch_merge1 = Projection(nn.Conv2d(full, half, 2, 2))
        self.skip1 = nn.Conv2d(full, full, 1)
        self.patch_merge2 = Projection(nn.Conv2d(half, quarter, 2, 2))
        self.skip2 = nn.Conv2d(half, half, 1)
        self.patch_split1 = Projection(nn.Conv2d(quarter, 4 * up_half, 1), 2)
        self.fusion1 = SelectiveFusion(up_half)
        self.patch_split2 = Projection(nn.Conv2d(up_half, 4 * up_full, 1), 2)
        self.fusion2 = SelectiveFusion(up_full)
        self.patch_unembed = Projection(_reflected(up_full, 4), 1)

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.layer1(self.patch_embed(x))
        e2 = self.layer2(self.patch_merge1(e1))
        d2 = self.patch_split1(self.layer3(self.patch_merge2(e2)))
        d2 = self.layer4(self.fusion1(d2, self.skip2(e2)) + d2)
        d1 = self.patch_split2(d2)
        d1 = self.layer5(self.fusion2(d1, self.skip1(e1)) + d1)
        gain, bias = self.patch_unembed(d1).split((1, 3), 1)
        return gain * x - bias + x
