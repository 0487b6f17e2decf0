"""The student: one compact network with two methods, `encode` and `refine`.

`encode` reads a picture once; `refine` turns the current restoration into a better one, seeing the original's features
(the evidence), the current restoration's features (the estimate), the tokens and the experts' gates. Blocks are dense
3×3 convolutions with ReLU at H/2 and below, which int8 runs near its peak; see docs/student.md. A leaf may have a
*specialist*: weights of its own for `refine`, which restore a picture that has this degradation alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ..runtime.methods import REFINE, specialist_method
from ..runtime.tree import LEAVES, PARENTS
from .recipe import Frozen

EXPERTS = (*PARENTS, *LEAVES)
HIDDEN = 64  # units of a head
# Units that a leaf added later has to itself (`leaves`), in the heads of encode and of refine.
ENCODER_UNITS, REFINER_UNITS = 3, 2


class StudentConfig(Frozen):
    """Sizes of a student; `widths` and block counts go from H/2 to H/8."""

    size: str
    widths: tuple[int, int, int]
    encoder_blocks: tuple[int, int, int]
    refiner_blocks: tuple[int, int, int]
    tokens: int = Field(default=64, gt=0, description="entries of the privileged dictionary, a square number")
    token_width: int = Field(default=64, gt=0)
    rank: int = Field(default=4, gt=0, description="rank of every LoRA expert")
    experts: tuple[str, ...] = EXPERTS
    leaves: tuple[str, ...] = LEAVES
    specialists: tuple[str, ...] = Field(default=(), description="leaves that have a refiner of their own")

    @property
    def added(self) -> tuple[str, ...]:
        """The leaves that were added to a trained student."""
        return tuple(leaf for leaf in self.leaves if leaf not in LEAVES)


SIZES: dict[str, StudentConfig] = {
    "nano": StudentConfig(
        size="nano", widths=(16, 32, 64), encoder_blocks=(1, 1, 1), refiner_blocks=(1, 2, 2), tokens=36, token_width=32
    ),
    "small": StudentConfig(size="small", widths=(32, 64, 96), encoder_blocks=(1, 1, 2), refiner_blocks=(2, 2, 2)),
    "base": StudentConfig(size="base", widths=(64, 128, 192), encoder_blocks=(1, 1, 2), refiner_blocks=(3, 3, 3)),
}


class Encoded(NamedTuple):
    """`features`: H/2, H/4, H/8; `tokens`: (B, N, C); `assessment`: (B, 2 + leaves)."""

    features: tuple[Tensor, Tensor, Tensor]
    tokens: Tensor
    assessment: Tensor


class Block(nn.Module):
    """Residual block: 3×3, ReLU, 3×3, add, ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class ExpertBlock(Block):
    """A block whose first convolution carries all LoRA experts side by side: W x + B (gates ⊙ (A x + a)) (UIR-LoRA, eq. 6).

    The bias a is ours: an open gate then shifts features wherever it is, so that experts tell degradations apart early.
    """

    def __init__(self, width: int, ranks: int) -> None:
        super().__init__(width)
        self.lora_a = nn.Conv2d(width, ranks, 1)
        self.lora_b = nn.Conv2d(ranks, width, 1, bias=False)

    def gated(self, x: Tensor, gates: Tensor) -> Tensor:
        hidden = torch.relu(self.conv1(x) + self.lora_b(self.lora_a(x) * gates))
        return torch.relu(x + self.conv2(hidden))


class DictionaryAttention(nn.Module):
    """Tokens = dictionary + attention of the dictionary to the latent (SIPL, equation 3), then a feed-forward step."""

    def __init__(self, width: int, tokens: int, token_width: int) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(torch.randn(1, tokens, token_width) * 0.5)
        self.query = nn.Linear(token_width, token_width)
        self.key = nn.Conv2d(width, token_width, 1)
        self.value = nn.Conv2d(width, token_width, 1)
        self.project = nn.Linear(token_width, token_width)
        self.expand = nn.Linear(token_width, token_width * 2)
        self.reduce = nn.Linear(token_width * 2, token_width)

    def forward(self, latent: Tensor) -> Tensor:
        dictionary = self.dictionary
        if latent.shape[0] > 1:
            dictionary = dictionary.expand(latent.shape[0], -1, -1)
        key, value = self.key(latent).flatten(2), self.value(latent).flatten(2)
        attention = torch.bmm(self.query(dictionary), key).softmax(-1)
        tokens = dictionary + self.project(torch.bmm(attention, value.transpose(1, 2)))
        return tokens + self.reduce(torch.relu(self.expand(tokens)))


class TokenAttention(nn.Module):
    """The latent asks the tokens (SIPL, equation 4)."""

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, token_width, 1)
        self.key = nn.Linear(token_width, token_width)
        self.value = nn.Linear(token_width, token_width)
        self.project = nn.Conv2d(token_width, width, 1)

    def forward(self, latent: Tensor, tokens: Tensor) -> Tensor:
        query = self.query(latent)
        attention = torch.bmm(query.flatten(2).transpose(1, 2), self.key(tokens).transpose(1, 2)).softmax(-1)
        attended = torch.bmm(attention, self.value(tokens)).transpose(1, 2)
        return latent + self.project(attended.reshape(query.shape))


class Head(nn.Module):
    """Global averages of several scales to a few numbers; stays in float when the rest is quantised."""

    def __init__(self, widths: tuple[int, ...], outputs: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(sum(widths), hidden)
        self.output = nn.Linear(hidden, outputs)

    def pooled(self, *features: Tensor) -> Tensor:
        """Averages over each scale's pixels, side by side: (B, sum of widths)."""
        return torch.cat([self.pool(f).flatten(1) for f in features], 1)

    def forward(self, *features: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(self.pooled(*features))))

    @torch.no_grad()
    def let_tell(self, unit: int, output: int, weight: Tensor, threshold: Tensor) -> None:
        """Let a hidden unit raise one output and no other, by relu(weight · averages − threshold)."""
        self.hidden.weight[unit] = weight
        self.hidden.bias[unit] = -threshold
        self.output.weight[:, unit] = 0.0
        self.output.weight[output, unit] = 1.0


class Fusion(nn.Module):
    """Evidence and estimate of one scale, each through its own 1×1 convolution, added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.original = nn.Conv2d(width, width, 1)
        self.current = nn.Conv2d(width, width, 1)

    def forward(self, original: Tensor, current: Tensor) -> Tensor:
        return self.original(original) + self.current(current)


class Context(nn.Module):
    """What the whole picture has in common, added everywhere; stays in float when the rest is quantised.

    An error here is an error of the whole picture's brightness and colour, and a single pixel costs nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, latent: Tensor) -> Tensor:
        return latent + self.conv(self.pool(latent))


class Correction(nn.Module):
    """An affine correction of every pixel, x + x·gain + bias; stays in float when the rest is quantised.

    Haze (x − A)/t + A and exposure are multiplications, which a sum alone learns slowly.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.ConvTranspose2d(width, 3, 2, stride=2)
        self.bias = nn.ConvTranspose2d(width, 3, 2, stride=2)

    def forward(self, image: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The corrected picture, and how far each of its values moved."""
        change = image * self.gain(features) + self.bias(features)
        return image + change, change.abs()


class Encoder(nn.Module):
    """encode(image) → features at H/2, H/4, H/8, tokens, assessment."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        w1, w2, w3 = config.widths
        n1, n2, n3 = config.encoder_blocks
        self.stem = nn.Conv2d(3, w1, 2, stride=2)
        self.level1 = nn.Sequential(*(Block(w1) for _ in range(n1)))
        self.down1 = nn.Conv2d(w1, w2, 2, stride=2)
        self.level2 = nn.Sequential(*(Block(w2) for _ in range(n2)))
        self.down2 = nn.Conv2d(w2, w3, 2, stride=2)
        self.level3 = nn.Sequential(*(Block(w3) for _ in range(n3)))
        self.tokens = DictionaryAttention(w3, config.tokens, config.token_width)
        self.head = Head(config.widths, 2 + len(config.leaves), HIDDEN + ENCODER_UNITS * len(config.added))

    def forward(self, image: Tensor) -> Encoded:
        f1 = self.level1(torch.relu(self.stem(image)))
        f2 = self.level2(torch.relu(self.down1(f1)))
        f3 = self.level3(torch.relu(self.down2(f2)))
        return Encoded((f1, f2, f3), self.tokens(f3), self.head(f1, f2, f3))


class Refiner(nn.Module):
    """refine(current, original features, current features, tokens, gates) → restored, quality.

    The largest scale of the current restoration is not passed: a 2×2 convolution reads it from the picture itself, which
    costs less than carrying a tensor of that size across the boundary.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        w1, w2, w3 = config.widths
        n1, n2, n3 = config.refiner_blocks
        ranks = len(config.experts) * config.rank
        self.stem = nn.Conv2d(3, w1, 2, stride=2)
        self.original1 = nn.Conv2d(w1, w1, 1)
        self.fuse2, self.fuse3 = Fusion(w2), Fusion(w3)
        self.context = Context(w3)
        self.attention = TokenAttention(w3, config.token_width)
        self.level3 = nn.ModuleList(ExpertBlock(w3, ranks) for _ in range(n3))
        self.up3 = nn.ConvTranspose2d(w3, w2, 2, stride=2)
        self.level2 = nn.ModuleList(ExpertBlock(w2, ranks) for _ in range(n2))
        self.up2 = nn.ConvTranspose2d(w2, w1, 2, stride=2)
        self.level1 = nn.Sequential(*(Block(w1) for _ in range(n1)))
        self.correction = Correction(w1)
        # Predicted quality also sees how large the correction was: a step that changes little gains little.
        self.head = Head((*config.widths, 3), 1, HIDDEN + REFINER_UNITS * len(config.added))

    def forward(
        self,
        current: Tensor,
        original: tuple[Tensor, Tensor, Tensor],
        estimate: tuple[Tensor, Tensor],
        tokens: Tensor,
        gates: Tensor,
    ) -> tuple[Tensor, Tensor]:
        d3 = torch.relu(self.fuse3(original[2], estimate[1]))
        d3 = self.attention(self.context(d3), tokens)
        for block in self.level3:
            assert isinstance(block, ExpertBlock)
            d3 = block.gated(d3, gates)
        d2 = torch.relu(self.up3(d3) + self.fuse2(original[1], estimate[0]))
        for block in self.level2:
            assert isinstance(block, ExpertBlock)
            d2 = block.gated(d2, gates)
        d1 = self.level1(torch.relu(self.up2(d2) + self.original1(original[0]) + self.stem(current)))
        restored, change = self.correction(current, d1)
        return restored, torch.sigmoid(self.head(d1, d2, d3, change))


class Student(nn.Module):
    """Both methods on one set of weights. Pictures are (B, 3, H, W) RGB in [0, 1], sides multiples of 8."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.refiner = Refiner(config)
        self.specialists = nn.ModuleDict({leaf: Refiner(config) for leaf in config.specialists})
        _initialise(self)

    def encode(self, image: Tensor) -> Encoded:
        return self.encoder(image)

    def refine(self, current: Tensor, original: Encoded, estimate: Encoded, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Restored picture (not clipped) and its predicted quality (B, 1); `gates`: (B, E·r, 1, 1)."""
        return self.refiner(current, original.features, estimate.features[1:], estimate.tokens, gates)

    @property
    def refiners(self) -> dict[str, Refiner]:
        """Every refiner by the method that it is: `refine`, then the specialists' `refine_LEAF`."""
        specialists = {specialist_method(leaf): cast(Refiner, own) for leaf, own in self.specialists.items()}
        return {REFINE: self.refiner, **specialists}


def _initialise(student: Student) -> None:
    """He initialisation, which keeps the signal's size through a network without normalisation, then a calm start:
    residual branches small, the output near zero, experts silent, 1/√d of attention in the weights and not in the graph.
    """
    for module in student.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # A stride-2 transposed 2×2 convolution reaches every output from one input position.
            fan = module.in_channels if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, Block):
                module.conv2.weight.mul_(0.3)
            if isinstance(module, ExpertBlock):
                module.lora_b.weight.zero_()
                assert module.lora_a.bias is not None
                module.lora_a.bias.normal_()
            if isinstance(module, DictionaryAttention | TokenAttention):
                module.query.weight.mul_(student.config.token_width**-0.5)
                module.project.weight.mul_(0.3)
        for refiner in student.refiners.values():
            refiner.correction.gain.weight.mul_(0.05)
            refiner.correction.bias.weight.mul_(0.05)
