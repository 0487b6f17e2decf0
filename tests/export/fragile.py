"""A model that breaks on the way to a phone: every operation here has a replacement in the table of advice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fragile(nn.Module):
    """encode and refine of a user's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.both = nn.Conv2d(8, 16, 1)
        self.same = nn.Conv2d(8, 8, 3, padding="same")
        self.out = nn.Conv2d(8, 3, 3)

    def encode(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.gelu(x)
        left, right = self.both(x).chunk(2, 1)
        return left * right

    def refine(self, current: Tensor, feature: Tensor) -> Tensor:
        x = F.pad(self.same(feature), (1, 1, 1, 1), mode="reflect")
        return current + self.out(x)


def make() -> tuple[Fragile, dict[str, tuple[Tensor, ...]]]:
    """The model and its example inputs."""
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 32, 32)
    return Fragile(), {"encode": (picture,), "refine": (picture, torch.rand(1, 8, 32, 32))}


class Sound(nn.Module):
    """The same with what the table says instead."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 3, 3, padding=1)

    def encode(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        return self.left(x) * self.right(x)

    def refine(self, current: Tensor, feature: Tensor) -> Tensor:
        return current + self.out(self.inner(feature))


def make_sound() -> tuple[Sound, dict[str, tuple[Tensor, ...]]]:
    """The model and its example inputs."""
    return Sound(), make()[1]


def make_nothing() -> str:
    """No model."""
    return "no model"
