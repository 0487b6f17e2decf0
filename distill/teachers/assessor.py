"""What looks at latents in RAR: says what is wrong, conditions the restorer, and tells which of two restorations is better.

The published assessor is a fine-tuned 7B language model with a text adapter. Here it is an interface, and a compact one
that is trained from scratch: the published image adapter, a degradation embedding, and a pairwise comparison.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import PatchEmbed
from torch import Tensor, nn

from ...runtime.tree import LEAVES
from ..recipe import Frozen


class Assessment(NamedTuple):
    """What the restorer is told about a batch of latents."""

    tokens: Tensor  # (B, T, context width): the restorer's context
    pooled: Tensor  # (B, pooled width)
    degradation: Tensor  # (B, leaves of the degradation tree), logits


class Assessor(nn.Module, ABC):
    """Looks at latents (B, C, h, w) alone; the pictures are never decoded for it."""

    @abstractmethod
    def identify(self, latent: Tensor) -> Assessment:
        """What is wrong with a picture, and how the restorer is told."""

    @abstractmethod
    def compare(self, new: Tensor, old: Tensor, original: Tensor) -> Tensor:
        """Log-odds (B,) that `new` restores `original` better than `old` does."""

    @abstractmethod
    def quality(self, latent: Tensor, original: Tensor) -> Tensor:
        """Quality (B,) in [0, 1] (`runtime.quality`) of a restoration of `original`."""


class AssessorConfig(Frozen):
    """Size of the compact assessor; `grid` is the side in latent pixels that positions are laid out for."""

    channels: int
    grid: int
    patch: int
    width: int
    heads: int
    layers: int
    token_layers: int
    tokens: int
    context_width: int
    pooled_width: int


class CompactAssessor(Assessor):
    """Image adapter on latents, degradation embedding → conditioning tokens, comparison, rating."""

    def __init__(self, config: AssessorConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        # RAR's image adapter: patches (published: 2×2) without bias, sine positions, layer norm, a pre-norm transformer.
        self.patches = PatchEmbed(config.grid, config.grid, config.patch, config.channels, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.adapter = nn.ModuleList(
            BasicTransformerBlock(width, heads, width // heads, activation_fn="gelu") for _ in range(config.layers)
        )
        self.presence = nn.Linear(2 * width, len(LEAVES))
        # Conditioning: learned queries, moved by the degradation embedding, read the picture.
        self.degradation_embedding = nn.Linear(2 * width + len(LEAVES), width)
        self.queries = nn.Parameter(torch.randn(1, config.tokens, width))
        self.readers = nn.ModuleList(
            BasicTransformerBlock(width, heads, width // heads, cross_attention_dim=width, activation_fn="gelu")
            for _ in range(config.token_layers)
        )
        self.to_tokens = nn.Linear(width, config.context_width)
        self.to_pooled = nn.Linear(width, config.pooled_width)
        self.comparison = _head(6 * width, width)
        self.rating = _head(4 * width, width)

    def look(self, latent: Tensor) -> Tensor:
        """Tokens (B, N, width) of a latent."""
        seen = self.norm(self.patches(latent))
        for block in self.adapter:
            seen = block(seen)
        return seen

    def describe(self, seen: Tensor) -> Assessment:
        """What is wrong with what was seen; the estimate is part of what the restorer is told."""
        degradation = self.presence(summary(seen))
        # Looking is learned from the assessor's own losses; the restorer's would drown them.
        seen = seen.detach()
        known = torch.cat([summary(seen), degradation.detach().sigmoid()], 1)
        tokens = self.queries + self.degradation_embedding(known)[:, None]
        for block in self.readers:
            tokens = block(tokens, encoder_hidden_states=seen)
        return Assessment(self.to_tokens(tokens), self.to_pooled(tokens.mean(1)), degradation.float())

    def prefer(self, new: Tensor, old: Tensor, original: Tensor) -> Tensor:
        """Log-odds (B,) that what was seen of `new` is better; as published, the question is always new against previous."""
        return self.comparison(torch.cat([summary(new), summary(old), summary(original)], 1)).float()[:, 0]

    def rate(self, seen: Tensor, original: Tensor) -> Tensor:
        """Quality (B,) in [0, 1] of what was seen of a restoration, beside what was seen of its original."""
        return self.rating(torch.cat([summary(seen), summary(original)], 1)).float().sigmoid()[:, 0]

    def identify(self, latent: Tensor) -> Assessment:
        """The description of a latent."""
        return self.describe(self.look(latent))

    def compare(self, new: Tensor, old: Tensor, original: Tensor) -> Tensor:
        """The preference between two latents."""
        return self.prefer(self.look(new), self.look(old), self.look(original))

    def quality(self, latent: Tensor, original: Tensor) -> Tensor:
        """The rating of a latent."""
        return self.rate(self.look(latent), self.look(original))


def _head(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, 1))


def summary(seen: Tensor) -> Tensor:
    """Mean and spread over tokens: (B, N, W) → (B, 2W)."""
    return torch.cat([seen.mean(1), seen.std(1)], 1)
