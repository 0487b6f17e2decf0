"""What the heads know of a leaf that was added: when it is present, and how good its pictures are.

All of that lies in hidden units of its own, exactly silent on whatever scores no higher than the pictures the student
knows: those are judged as before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..runtime.errors import InputError
from ..runtime.routing import Routing
from .distillation import iterate
from .metrics import psnr, quality_of
from .pairs import Pairs
from .regression import logistic_regression, minimise
from .student import ENCODER_UNITS, HIDDEN, REFINER_UNITS, Head, Student, StudentConfig

# A new leaf's logit where its unit is silent: a gate of 6e-6, too little to be seen even on a clean picture.
CLOSED = -12.0
# Pictures that heads are fitted on: with the new degradation, and of all the student knows.
PRESENT, KNOWN = 192, 256
# Where the gate is half open: this far from the highest score of a known picture to the LOW quantile of the new ones.
HALFWAY, LOW = 0.4, 0.1
# A correction of quality: weight of its squared slopes, of its height on known pictures, how far below zero it is to be there.
RIDGE, HUSH, SILENT = 0.003, 30.0, 2.0
WORST, BEST = 0.02, 0.98  # qualities as far as a correction follows them


class Judged(NamedTuple):
    """What a head saw of N pictures, (N, channels), the logits of quality it gave them and their quality in truth, (N,)."""

    seen: Tensor
    logits: Tensor
    truth: Tensor


class Heads(NamedTuple):
    """What each head saw of the same iterations of pictures the student knows, (N, channels)."""

    encode: Tensor
    refine: Tensor


def leaf_units(config: StudentConfig, leaf: str, units: int) -> slice:
    """The hidden units that an added leaf has to itself in a head with `units` for each."""
    first = HIDDEN + units * config.added.index(leaf)
    return slice(first, first + units)


@torch.no_grad()
def see_known(student: Student, pairs: Pairs) -> Heads:
    """What the heads see of pictures the student knows; the same before and after an expert is added."""
    encode, refine = _judge(student, pairs.routing, ((picture, picture) for picture in pairs.known(KNOWN)))
    return Heads(encode.seen, refine.seen)


@torch.no_grad()
def fit_leaf(student: Student, leaf: str, pairs: Pairs, known: Heads) -> None:
    """Teach the assessing head when `leaf` is present: logistic regression on what it averages over the picture.

    The logit is CLOSED + relu(score − t), with t the highest score of a known picture. Raises InputError when the new
    degradation scores no higher.
    """
    head = student.encoder.head
    present = torch.cat([head.pooled(*student.encode(picture[None]).features) for picture, _ in pairs.new(PRESENT)])
    # A third is kept out of the regression: how high pictures score is read from those.
    kept = len(present) // 3, len(known.encode) // 3
    fitted = torch.cat([present[kept[0] :], known.encode[kept[1] :]])
    labels = (torch.arange(len(fitted)) < len(present) - kept[0]).float()
    weight, _ = logistic_regression(fitted, labels)
    highest, low = (known.encode @ weight).max(), (present[: kept[0]] @ weight).quantile(LOW)
    if low <= highest:
        raise InputError(
            f"{leaf} cannot be told from what the student knows: {LOW:.0%} of its crops look like known ones; "
            "expected pairs with more of the degradation, and of that alone"
        )
    slope = -CLOSED / (HALFWAY * (low - highest))
    unit, row = leaf_units(student.config, leaf, ENCODER_UNITS).start, 2 + student.config.leaves.index(leaf)
    head.let_tell(unit, row, slope * weight, slope * highest)


@torch.no_grad()
def fit_quality(student: Student, leaf: str, pairs: Pairs, known: Heads) -> tuple[float, float]:
    """Teach both heads how good pictures with `leaf` are, before and after the expert has been at work.

    Without that, the heads judge what they never saw, and the best of its restorations would be rolled back. Returns by how
    much refine's head errs on the mean, of quality, before and after.
    """
    encode, refine = _judge(student, pairs.routing, pairs.new(PRESENT))
    encoder, refiner = (leaf_units(student.config, leaf, count).stop for count in (ENCODER_UNITS, REFINER_UNITS))
    _correct(student.encoder.head, encoder - 2, encode, known.encode)
    corrected = _correct(student.refiner.head, refiner - 2, refine, known.refine)
    before, after = ((logits.sigmoid() - refine.truth).abs().mean() for logits in (refine.logits, corrected))
    return float(before), float(after)


def _judge(student: Student, routing: Routing, pictures: Iterable[tuple[Tensor, Tensor]]) -> tuple[Judged, Judged]:
    """What encode's head and refine's head make of two iterations of pictures, which come with their truth."""
    encode: list[Judged] = []
    refine: list[Judged] = []
    seen: list[tuple[Tensor, Tensor]] = []
    head = student.refiner.head
    hook = head.register_forward_hook(lambda _, features, logits: seen.append((head.pooled(*features), logits[:, 0])))
    try:
        for degraded, clean in pictures:
            for step in iterate(student, routing, degraded[None], 2):
                pooled = student.encoder.head.pooled(*step.estimate.features)
                before = quality_of(psnr(step.current, clean[None]))
                after = quality_of(psnr(step.restored.clamp(0, 1), clean[None]))
                encode.append(Judged(pooled, step.estimate.assessment[:, 0], before))
                refine.append(Judged(*seen.pop(), after))
    finally:
        hook.remove()
    first, second = (Judged(*map(torch.cat, zip(*judged, strict=True))) for judged in (encode, refine))
    return first, second


def _correct(head: Head, first: int, new: Judged, known: Tensor) -> Tensor:
    """Give a head two hidden units that correct its logit of quality on new pictures; returns the corrected logits.

    One raises and one lowers, by a regression of how much the head under- and overrates; both are silent on known pictures.
    """
    error = new.truth.clamp(WORST, BEST).logit() - new.logits
    both = torch.cat([new.seen, known])
    centre, spread = both.mean(0), both.std(0) + 1e-3
    inputs, others = (new.seen - centre) / spread, (known - centre) / spread
    weight, bias, signs = torch.zeros(2, inputs.shape[1]), torch.ones(2), torch.tensor([1.0, -1.0])

    def loss() -> Tensor:
        wrong = torch.relu(inputs @ weight.T + bias) - torch.relu(signs * error[:, None])
        heard = torch.relu(others @ weight.T + bias + SILENT)
        return wrong.square().mean() + HUSH * heard.square().mean() + RIDGE * weight.square().sum()

    minimise(loss, weight, bias)
    bias = bias - torch.relu((others @ weight.T + bias).amax(0))
    units = slice(first, first + 2)
    head.hidden.weight[units] = weight / spread
    head.hidden.bias[units] = bias - weight / spread @ centre
    head.output.weight[0, units] = signs
    return new.logits + torch.relu(inputs @ weight.T + bias) @ signs
