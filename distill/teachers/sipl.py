"""SIPL: self-improved privilege learning, on any backbone.

A learned dictionary attends to privileged features (of the ground truth in training, of the previous restoration in
use), and the decoder's features attend to the result (equations 3 and 4). `(x, privileged)` is therefore the whole
interface: round t is `guided(x, features(I_t))`, the degraded picture x staying fixed (equation 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..recipe import Frozen
from .backbone import Backbone
from .backbones import BackboneSize, backbone
from .checkpoints import fill, strip_prefix, unwrap
from .constants import Constants
from .protocol import Round, Size, Teacher, Trajectory
from .transformer import LayerNorm

if TYPE_CHECKING:
    from ..training import Objective

KeysValues = tuple[Tensor, Tensor]


class Settings(Frozen):
    """SIPL's choice."""

    input: Literal["fixed", "replace"] = Field(
        default="fixed",
        description="what the next round restores: the degraded picture (paper), or the last restoration (released code)",
    )


@dataclass(frozen=True)
class Dictionary:
    """Side of the square dictionary map and heads of both attentions at sites 0 (H/8), 1 and 2; defaults as published."""

    sizes: tuple[int, int, int] = (16, 32, 64)
    dictionary_heads: tuple[int, int, int] = (1, 2, 1)
    feature_heads: tuple[int, int, int] = (1, 2, 4)
    # Published: zeros. Layer norm of an all-zero entry multiplies its gradient by 300, which starves every other weight
    # under a clipped gradient norm, so short trainings start from small random entries.
    std: float = 0.0


class SpatialCrossAttention(nn.Module):
    """Attention over positions with unit-length queries and keys and a learned temperature a head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.kv = nn.Conv2d(dim, dim * 2, 1, bias=False)
        self.kv_dwconv = nn.Conv2d(dim * 2, dim * 2, 3, padding=1, groups=dim * 2, bias=False)
        self.q = nn.Conv2d(dim, dim, 1, bias=False)
        self.q_dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        # Contiguous: the attention kernel that works in pieces takes nothing else, and another would hold the whole matrix.
        return x.reshape(batch, self.heads, channels // self.heads, -1).transpose(-2, -1).contiguous()

    def keys_values(self, source: Tensor) -> KeysValues:
        """Unit keys, and values, of a normalised map: (B, heads, h·w, channels / heads) each."""
        key, value = self.kv_dwconv(self.kv(source)).chunk(2, 1)
        return F.normalize(self._split(key), dim=-1), self._split(value)

    def forward(self, queries: Tensor, keys_values: KeysValues) -> Tensor:
        batch, channels, height, width = queries.shape
        query = F.normalize(self._split(self.q_dwconv(self.q(queries))), dim=-1) * self.temperature
        key, value = (x.expand(batch, -1, -1, -1) for x in keys_values)
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.project_out(attended.transpose(-2, -1).reshape(batch, channels, height, width))


class DualGateFeedForward(nn.Module):
    """Two halves that gate each other: gelu(x₂)·x₁ + gelu(x₁)·x₂."""

    def __init__(self, dim: int, expansion: int = 2) -> None:
        super().__init__()
        hidden = dim * expansion
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=False)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(b) * a + F.gelu(a) * b)


class CrossBlock(nn.Module):
    """Cross-attention with the residual on the normalised query, then a feed-forward block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm11 = LayerNorm(dim)
        self.norm12 = LayerNorm(dim)
        self.attn = SpatialCrossAttention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.ffn = DualGateFeedForward(dim)

    def keys_values(self, source: Tensor) -> KeysValues:
        return self.attn.keys_values(self.norm12(source))

    def forward(self, queries: Tensor, keys_values: KeysValues) -> Tensor:
        queries = self.norm11(queries)
        x = queries + self.attn(queries, keys_values)
        return x + self.ffn(self.norm2(x))


class SIPL(Constants, Teacher):
    """A backbone with proxy fusion at its three sites. Names follow the published layout, the backbone's under `backbone.`."""

    def __init__(self, backbone: Backbone, dictionary: Dictionary) -> None:
        super().__init__()
        self.settings = Settings()
        self.backbone = backbone
        self.multiple, self.feature_width = backbone.multiple, backbone.sites[0]
        for site, dim in enumerate(backbone.sites):
            size = dictionary.sizes[site]
            # The published layout numbers dictionaries from the largest scale and blocks from the smallest.
            self.register_parameter(
                f"privileged_dictionary{3 - site}", nn.Parameter(dictionary.std * torch.randn(1, dim, size, size))
            )
            self.add_module(f"p{site + 1}_cross", CrossBlock(dim, dictionary.dictionary_heads[site]))
            self.add_module(f"cross_p{site + 1}", CrossBlock(dim, dictionary.feature_heads[site]))

    @property
    def replaces(self) -> bool:
        """Whether a later round restores the last restoration, and not the degraded picture again."""
        return cast(Settings, self.settings).input == "replace"

    def _dictionary(self, site: int) -> Tensor:
        return self.get_parameter(f"privileged_dictionary{3 - site}")

    def _cross(self, site: int) -> CrossBlock:
        block = self.get_submodule(f"cross_p{site + 1}")
        assert isinstance(block, CrossBlock)
        return block

    def tokens(self, privileged: tuple[Tensor, ...]) -> list[Tensor]:
        """Every site's dictionary after it attended to privileged features (`backbone.encode`): maps (B, C, s, s)."""
        maps: list[Tensor] = []
        for site in range(3):
            source = privileged[3 - site]
            block = self.get_submodule(f"p{site + 1}_cross")
            assert isinstance(block, CrossBlock)
            maps.append(block(self._dictionary(site).expand(len(source), -1, -1, -1), block.keys_values(source)))
        return maps

    def _plain_keys_values(self) -> list[KeysValues]:
        """Keys and values of the raw dictionaries."""
        return self.constant("plain", lambda: self._keys_values([self._dictionary(site) for site in range(3)]))

    def _keys_values(self, maps: list[Tensor]) -> list[KeysValues]:
        return [self._cross(site).keys_values(guide) for site, guide in enumerate(maps)]

    def forward(self, x: Tensor, privileged: tuple[Tensor, ...] | None = None) -> Tensor:
        """Restore (B, 3, H, W), unclipped; `privileged`: features of a better version of the picture."""
        maps = None if privileged is None else self.tokens(privileged)
        return self._decode(x, maps)

    def _decode(self, x: Tensor, maps: list[Tensor] | None) -> Tensor:
        guides = self._plain_keys_values() if maps is None else self._keys_values(maps)
        return self.backbone.decode(
            x, self.backbone.encode(x), lambda site, features: self._cross(site)(features, guides[site])
        )

    def rounds(self, image: Tensor, count: int) -> Trajectory:
        """Round 1 is the plain pass; its features for students are the dictionary guided by the picture it starts from."""
        trajectory: Trajectory = []
        current, source = image, image
        for turn in range(count):
            maps = self.tokens(self.backbone.encode(current))
            restored = self._decode(source, None if turn == 0 else maps).float().clamp(0, 1)
            trajectory.append(Round(restored, features=maps[0]))
            current = restored
            source = restored if self.replaces else image
        return trajectory

    def passes(self, image: Tensor) -> dict[str, Callable[[], Any]]:
        features = self.backbone.encode(image)
        return {
            "plain": lambda: self(image),
            "encoder features": lambda: self.backbone.encode(image),
            "privileged": lambda: self(image, features),
        }

    def objective(self) -> Objective[SIPL]:
        from .training import PrivilegedObjective

        return PrivilegedObjective(self)

    def load_published(self, content: Mapping[str, Any]) -> None:
        tensors = unwrap(content)
        tensors = strip_prefix(tensors, "net.") or tensors
        own = set(self.state_dict())
        fill(self, {n if n in own else f"backbone.{n}": t for n, t in tensors.items()}, "this checkpoint")


# Sizes of what is no published configuration: the reduced teacher that ships, and the tiny one of tests.
REDUCED = Dictionary(sizes=(8, 12, 16), std=0.5)
TINY = Dictionary(sizes=(4, 6, 8), std=0.5)


def build(size: Size, kind: str, published: BackboneSize = "published") -> SIPL:
    """SIPL on the backbone `kind`; `published`: the backbone's size where it is not the tiny one."""
    if size == "tiny":
        return SIPL(backbone(kind, "tiny"), TINY)
    return SIPL(backbone(kind, published), REDUCED if published == "reduced" else Dictionary())
