"""What SIPL asks of a network it extends: three decoder sites where features can be changed, and features to guide them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

# Called with a site (0: H/8, 1: H/4, 2: H/2) and its features; returns features of the same shape.
Fuse = Callable[[int, Tensor], Tensor]


def unchanged(site: int, features: Tensor) -> Tensor:
    """The `Fuse` of a network on its own."""
    return features


class Backbone(nn.Module, ABC):
    """A single-pass restorer in two halves. Pictures are (B, 3, H, W) RGB in [0, 1], sides multiples of `multiple`."""

    multiple: int
    sites: tuple[int, int, int]  # channels at sites 0, 1, 2

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encoder features, largest scale first; those of sites 2, 1, 0 are the second to the fourth."""

    @abstractmethod
    def decode(self, x: Tensor, features: tuple[Tensor, ...], fuse: Fuse) -> Tensor:
        """The restored picture: features through the decoder, changed by `fuse` at each site, added to `x`."""

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(x, self.encode(x), unchanged)
