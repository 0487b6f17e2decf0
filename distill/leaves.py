"""What the heads know of a leaf that was added: when it is present, and how good its pictures are.

All of that lies in hidden units of its own, exactly silent on whatever scores no higher than the pictures the student
knows: those are judged as before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.errors import InputError
from ..runtime.routing import Routing
from .distillation import iterate
from .metrics import psnr, quality_of
from .pairs import Pairs
from .student import ENCODER_UNITS, HIDDEN, REFINER_UNITS, Head, Student, StudentConfig

# A new leaf's logit where its unit is silent: a gate of 6e-6, too little to be seen even on a clean picture.
CLOSED = -12.0
# Pictures that heads are fitted on: with the new degradation, and of all the student knows.
PRESENT, KNOWN = 192, 256
DECAY = 1e-3  # of the squared weights of a leaf's regression
# Where the gate is half open: this far from the highest score of a known picture to the LOW quantile of the new ones.
HALFWAY, LOW = 0.4, 0.1
# Where judging differently begins, as HALFWAY, and at least this share of the spread of the new pictures' scores.
EDGE, NARROWEST = 0.2, 0.05
RIDGE = 0.3  # of the squared weights of a correction of quality
WORST, BEST = 0.02, 0.98  # qualities as far as a correction follows them


class Separation(NamedTuple):
    """A direction in which pictures of a new degradation score higher than known ones."""

    weight: Tensor  # (channels,)
    highest: Tensor  # score of a known picture
    low: Tensor  # quantile LOW of the scores of new ones
    spread: Tensor  # standard deviation of those


class Judged(NamedTuple):
    """What a head saw of N pictures, (N, channels), the logits of quality it gave them and their quality in truth, (N,)."""

    seen: Tensor
    logits: Tensor
    truth: Tensor


class Seen(NamedTuple):
    """What both heads saw of the same iterations of pictures."""

    encode: Judged
    refine: Judged


def leaf_units(config: StudentConfig, leaf: str, units: int) -> slice:
    """The hidden units that an added leaf has to itself in a head with `units` for each."""
    first = HIDDEN + units * config.added.index(leaf)
    return slice(first, first + units)


@torch.no_grad()
def judge_known(student: Student, pairs: Pairs) -> Seen:
    """What the heads see of pictures the student knows; the same before and after an expert is added."""
    return _judge(student, pairs.routing, ((picture, picture) for picture in pairs.known(KNOWN)))


@torch.no_grad()
def fit_leaf(student: Student, leaf: str, pairs: Pairs, known: Seen) -> None:
    """Teach the assessing head when `leaf` is present: logistic regression on what it averages over the picture.

    The logit is CLOSED + relu(score − t), with t the highest score of a known picture. Raises InputError when the new
    degradation scores no higher.
    """
    head = student.encoder.head
    present = torch.cat([head.pooled(*student.encode(picture[None]).features) for picture, _ in pairs.new(PRESENT)])
    weight, highest, low, _ = _separate(present, known.encode.seen)
    if low <= highest:
        raise InputError(
            f"{leaf} cannot be told from what the student knows: {LOW:.0%} of its crops look like known ones; "
            "expected pairs with more of the degradation, and of that alone"
        )
    slope = -CLOSED / (HALFWAY * (low - highest))
    unit, row = leaf_units(student.config, leaf, ENCODER_UNITS).start, 2 + student.config.leaves.index(leaf)
    head.hidden.weight[unit] = slope * weight
    head.hidden.bias[unit] = -slope * highest
    head.output.weight[row, unit] = 1.0


@torch.no_grad()
def fit_quality(student: Student, leaf: str, pairs: Pairs, known: Seen) -> None:
    """Teach both heads how good pictures with `leaf` are, before and after the expert has been at work.

    Without that, the heads judge what they never saw, and the best of its restorations would be rolled back.
    """
    new = _judge(student, pairs.routing, pairs.new(PRESENT))
    encoder, refiner = (leaf_units(student.config, leaf, count).stop for count in (ENCODER_UNITS, REFINER_UNITS))
    _correct(student.encoder.head, encoder - 2, new.encode, known.encode)
    _correct(student.refiner.head, refiner - 2, new.refine, known.refine)


def _judge(student: Student, routing: Routing, pictures: Iterable[tuple[Tensor, Tensor]]) -> Seen:
    """What the heads see of two iterations of pictures, which come with their truth."""
    encode: list[Judged] = []
    refine: list[Judged] = []
    averages: list[Tensor] = []
    head = student.refiner.head
    hook = head.register_forward_pre_hook(lambda _, features: averages.append(head.pooled(*features)))
    for degraded, clean in pictures:
        for step in iterate(student, routing, degraded[None], 2):
            seen = student.encoder.head.pooled(*step.estimate.features)
            before, after = (quality_of(psnr(picture, clean[None])) for picture in (step.current, step.restored))
            encode.append(Judged(seen, step.estimate.assessment[:, 0], before))
            refine.append(Judged(averages.pop(), step.quality[:, 0].logit(), after))
    hook.remove()
    return Seen(*(Judged(*map(torch.cat, zip(*judged, strict=True))) for judged in (encode, refine)))


def _separate(new: Tensor, known: Tensor) -> Separation:
    """By logistic regression, both (N, channels); how high new ones score is read from a third that is kept out of it."""
    kept = len(new) // 3, len(known) // 3
    fitted = torch.cat([new[kept[0] :], known[kept[1] :]])
    labels = (torch.arange(len(fitted)) < len(new) - kept[0]).float()
    centre, spread = fitted.mean(0), fitted.std(0) + 1e-3
    weight = _regression((fitted - centre) / spread, labels) / spread
    scores = new[: kept[0]] @ weight
    return Separation(weight, (known @ weight).max(), scores.quantile(LOW), scores.std())


@torch.enable_grad()
def _regression(inputs: Tensor, labels: Tensor) -> Tensor:
    """Weights (C,) of a logistic regression of labels (N,) on standardised inputs (N, C)."""
    parameters = torch.zeros(inputs.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ parameters[1:] + parameters[0]
        value = F.binary_cross_entropy_with_logits(logits, labels) + DECAY * parameters.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]  any closure that returns a number
    return parameters.detach()[1:]


def _correct(head: Head, unit: int, new: Judged, known: Judged) -> None:
    """Add c(x), linear in what the head sees, to its logit of quality, on new pictures alone.

    Of two units, relu(s(x) + c(x)) − relu(s(x)) is c(x) where s is well above 0, and 0 where s is well below; s is the score
    of a new picture, steep enough that c cannot lift a known one over the edge.
    """
    weight, highest, low, spread = _separate(new.seen, known.seen)
    margin = torch.maximum(EDGE * (low - highest), NARROWEST * spread)
    above = new.seen @ weight > highest + margin
    if above.sum() < 2:
        return  # they look like pictures the student knows, and are judged like those
    slopes, offset = _ridge(new.seen[above], new.truth[above].clamp(WORST, BEST).logit() - new.logits[above])
    largest = torch.cat([judged.seen @ slopes + offset for judged in (new, known)]).abs().max()
    steep = 2 * largest / margin
    head.hidden.weight[unit] = steep * weight
    head.hidden.bias[unit] = -steep * (highest + margin)
    head.hidden.weight[unit + 1] = head.hidden.weight[unit] + slopes
    head.hidden.bias[unit + 1] = head.hidden.bias[unit] + offset
    head.output.weight[0, unit] = -1.0
    head.output.weight[0, unit + 1] = 1.0


def _ridge(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes (C,) and offset of a linear regression of targets (N,) on inputs (N, C), standardised for the penalty."""
    centre, spread = inputs.mean(0), inputs.std(0) + 1e-3
    standard = (inputs - centre) / spread
    matrix = standard.T @ standard / len(inputs) + RIDGE * torch.eye(inputs.shape[1])
    slopes = torch.linalg.solve(matrix, standard.T @ (targets - targets.mean()) / len(inputs)) / spread
    return slopes, targets.mean() - centre @ slopes
