"""SIPL: self-improved privilege learning on PromptIR.

A learned dictionary attends to privileged features (of the ground truth in training, of the previous restoration in
use), and the decoder's features attend to the result (equations 3 and 4). `(x, privileged)` is therefore the whole
interface: iteration t is `forward(x, features(I_t))`, the degraded picture x staying fixed (equation 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .promptir import LayerNorm, PromptIR, PromptIRConfig


@dataclass(frozen=True)
class SIPLConfig:
    """A PromptIR and the side of the square dictionary map at each of the three fusion sites."""

    base: PromptIRConfig
    dictionary_sizes: tuple[int, int, int] = (16, 32, 64)
    dictionary_heads: tuple[int, int, int] = (1, 2, 1)
    feature_heads: tuple[int, int, int] = (1, 2, 4)
    # Published: zeros. Layer norm of an all-zero entry multiplies its gradient by 300, which starves every other weight
    # under a clipped gradient norm, so short trainings start from small random entries.
    dictionary_std: float = 0.0


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

    def forward(self, queries: Tensor, source: Tensor) -> Tensor:
        batch, channels, height, width = queries.shape

        def heads(x: Tensor) -> Tensor:
            return x.reshape(batch, self.heads, channels // self.heads, -1).transpose(-2, -1)

        key, value = self.kv_dwconv(self.kv(source)).chunk(2, 1)
        query = F.normalize(heads(self.q_dwconv(self.q(queries))), dim=-1) * self.temperature
        attended = F.scaled_dot_product_attention(query, F.normalize(heads(key), dim=-1), heads(value), scale=1.0)
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

    def forward(self, queries: Tensor, source: Tensor) -> Tensor:
        queries = self.norm11(queries)
        x = queries + self.attn(queries, self.norm12(source))
        return x + self.ffn(self.norm2(x))


class SIPLPromptIR(PromptIR):
    """PromptIR with proxy fusion at the latent and after decoder levels 3 and 2."""

    def __init__(self, config: SIPLConfig) -> None:
        super().__init__(config.base)
        dims = [config.base.dim * factor for factor in (8, 4, 2)]
        for site, dim in enumerate(dims):
            size = config.dictionary_sizes[site]
            # The published layout numbers the sites from the largest scale: dictionary 3 sits at the latent.
            self.register_parameter(
                f"privileged_dictionary{3 - site}",
                nn.Parameter(config.dictionary_std * torch.randn(1, dim, size, size)),
            )
            self.add_module(f"p{site + 1}_cross", CrossBlock(dim, config.dictionary_heads[site]))
            self.add_module(f"cross_p{site + 1}", CrossBlock(dim, config.feature_heads[site]))
        self._tokens: list[Tensor] = []

    def tokens(self, site: int, batch: int, privileged: tuple[Tensor, ...] | None) -> Tensor:
        """The dictionary of a site after it attended to the privileged features; the raw dictionary without any."""
        dictionary = self.get_parameter(f"privileged_dictionary{3 - site}").expand(batch, -1, -1, -1)
        if privileged is None:
            return dictionary
        block = self.get_submodule(f"p{site + 1}_cross")
        return block(dictionary, privileged[3 - site])

    def fuse(self, site: int, features: Tensor) -> Tensor:
        return self.get_submodule(f"cross_p{site + 1}")(features, self._tokens[site])

    def forward(self, x: Tensor, privileged: tuple[Tensor, ...] | None = None) -> Tensor:
        """Restore (B, 3, H, W); `privileged`: features of a better version of the picture, as `encode` gives them."""
        self._tokens = [self.tokens(site, x.shape[0], privileged) for site in range(3)]
        return self.decode(x, self.encode(x))


SIPL_PROMPTIR_S = SIPLConfig(
    base=PromptIRConfig(
        dim=24,
        blocks=(2, 2, 3, 3),
        refinement=2,
        expansion=2.0,
        prompt_dims=(16, 32, 64),
        prompt_sizes=(32, 16, 8),
        stride=2,
    ),
    dictionary_sizes=(8, 12, 16),
    dictionary_std=0.5,
)
