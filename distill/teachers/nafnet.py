"""NAFNet from spandrel, in two halves. Chen et al., "Simple Baselines for Image Restoration", ECCV 2022."""

from __future__ import annotations

from dataclasses import dataclass

from spandrel.architectures.NAFNet import NAFNet as SpandrelNAFNet
from torch import Tensor

from .backbone import Backbone, Fuse


@dataclass(frozen=True)
class NAFNetConfig:
    """Sizes of a NAFNet; the defaults are those that all-in-one restoration compares with (17.11 M parameters)."""

    width: int = 32
    encoders: tuple[int, int, int, int] = (1, 1, 1, 28)
    middle: int = 1
    decoders: tuple[int, int, int, int] = (1, 1, 1, 1)


class NAFNet(Backbone):
    """SIPL's sites are the decoder's outputs at H/8, H/4 and H/2, guided by the encoder's outputs of the same scales."""

    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__()
        self.multiple = 16
        self.sites = (config.width * 8, config.width * 4, config.width * 2)
        network = SpandrelNAFNet(
            width=config.width,
            middle_blk_num=config.middle,
            enc_blk_nums=list(config.encoders),
            dec_blk_nums=list(config.decoders),
        )
        # The published layout has these names at its top level.
        self.intro, self.ending = network.intro, network.ending
        self.encoders, self.downs = network.encoders, network.downs
        self.middle_blks = network.middle_blks
        self.ups, self.decoders = network.ups, network.decoders

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        x, features = self.intro(x), list[Tensor]()
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            features.append(x)
            x = down(x)
        return (*features, self.middle_blks(x))

    def decode(self, x: Tensor, features: tuple[Tensor, ...], fuse: Fuse) -> Tensor:
        *skips, y = features
        for site, (up, decoder, skip) in enumerate(zip(self.ups, self.decoders, reversed(skips), strict=True)):
            y = decoder(up(y) + skip)
            if site < len(self.sites):
                y = fuse(site, y)
        return self.ending(y) + x


NAFNET: dict[str, NAFNetConfig] = {
    "published": NAFNetConfig(),
    "reduced": NAFNetConfig(width=24, encoders=(1, 1, 2, 4)),
    "tiny": NAFNetConfig(width=12, encoders=(1, 1, 1, 1)),
}
