"""Distillation: a student learns from ground truth and from a teacher's trajectory at once.

Equations and weights: docs/distillation.md. Several iterations are unrolled and each is supervised; the picture handed
to the next iteration is detached, so the first iteration is never made worse to flatter the second.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..runtime.routing import Routing
from ..runtime.tree import LEAVES
from .data import Batch
from .metrics import fidelity_loss, psnr, quality_of
from .recipe import Frozen, check_known
from .student import Encoded, Student
from .teachers.protocol import Teacher
from .training import Objective

Match = Literal["skip", "merge"]
# Difference in predicted quality at which a ranking counts as settled: 0.4 dB.
RANKING_SCALE = 0.01


class Weights(Frozen):
    """Weights of the losses."""

    image: float = Field(
        default=1.0, ge=0, description="distance to the ground truth; 0 where a teacher is all there is to learn from"
    )
    floor: float = Field(
        default=3e-4, gt=0, description="mean squared error below which a picture counts as nearly perfect"
    )
    teacher: float = Field(default=0.3, ge=0, description="distance to the teacher's picture of the same iteration")
    tokens: float = Field(default=0.1, ge=0, description="distance of the tokens from the teacher's")
    routing: float = Field(default=0.2, ge=0, description="cross-entropy of the degradation logits, and granularity")
    quality: float = Field(
        default=1.0, ge=0, description="error of predicted quality, and of its change over an iteration"
    )
    ranking: float = Field(
        default=0.1, ge=0, description="whether an iteration is judged better or worse than the last"
    )
    privileged: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of samples whose tokens come from a better picture than there is, on the way to the truth (SIPL); "
        "falls to 0 by the end of the training",
    )
    teacher_share: float = Field(default=0.25, ge=0, le=1, description="share of a batch that the teacher restores too")
    teacher_rounds: int | None = Field(
        default=None, gt=0, description="the teacher's rounds; null for one an iteration"
    )
    match: Match = Field(
        default="skip", description="which of the teacher's rounds an iteration learns: see match_rounds"
    )
    keep: tuple[str, ...] = Field(
        default=(),
        description="leaves whose samples learn what the student made of them at the start, with no regard to the truth",
    )
    true_gates: float = Field(
        default=0.5, ge=0, le=1, description="share of samples routed by the truth, not by the student"
    )
    unroll: tuple[float, ...] = Field(
        default=(0.2, 0.6, 0.2), description="shares of steps that unroll 1, 2, 3, … iterations"
    )

    @model_validator(mode="after")
    def _known(self) -> Weights:
        check_known(self.keep, LEAVES)
        return self


def route_batch(routing: Routing, granularity: Tensor, belief: Tensor) -> Tensor:
    """`runtime.routing.route` over a batch: granularity (B,), leaf probabilities (B, leaves) → gates (B, experts)."""
    confidence = torch.sigmoid((routing.threshold - granularity) / routing.softness)[:, None]
    parents, start = [], 0
    for leaves in routing.tree.values():
        parents.append(belief[:, start : start + len(leaves)].amax(1, keepdim=True))
        start += len(leaves)
    gates = torch.cat([(1 - confidence) * torch.cat(parents, 1), confidence * belief], 1)
    kept = torch.zeros_like(gates).scatter(1, gates.topk(routing.top, 1).indices, 1.0)
    return gates * kept


def own_gates(routing: Routing, assessment: Tensor, rank: int) -> Tensor:
    """Gates that assessments (B, 2 + leaves) open, as refine takes them: (B, experts · rank, 1, 1)."""
    return _ranks(route_batch(routing, assessment[:, 1], assessment[:, 2:].sigmoid()), rank)


def whole_columns(routing: Routing) -> list[int]:
    """Columns of an assessment that a look at the whole picture is asked for."""
    return [2 + index for index, leaf in enumerate(routing.leaves) if leaf in routing.whole]


def by_look(routing: Routing, assessment: Tensor, look: Tensor) -> Tensor:
    """Assessments of tiles, (B, 2 + leaves), that say of the whole picture what those of looks at it, as many, say."""
    columns, told = whole_columns(routing), assessment.clone()
    told[:, columns] = look[:, columns]
    return told


def tokens_by_look(routing: Routing, tokens: Tensor, assessment: Tensor, told: Tensor) -> Tensor:
    """Tokens of tiles, (B, N, C), and in their place those `told` by the looks, as many, whose `assessment` finds a leaf in
    `routing.look_tokens` likely (`runtime.routing.token_source` over a batch).
    """
    asked = {2 + index: leaf for index, leaf in enumerate(routing.leaves) if leaf in routing.look_tokens}
    least = assessment.new_tensor([routing.least_likely(leaf) for leaf in asked.values()])
    taken = (assessment[:, list(asked)] > least).any(1)
    return torch.where(taken[:, None, None], told, tokens)


def _ranks(gates: Tensor, rank: int) -> Tensor:
    """Every expert's gate repeated over its rank: (B, experts) → (B, experts · rank, 1, 1)."""
    return gates.repeat_interleave(rank, 1)[..., None, None]


class Iteration(NamedTuple):
    """`current` (B, 3, H, W), what encode says of it, what refine makes of it, not clipped, and the quality (B, 1) of that."""

    current: Tensor
    estimate: Encoded
    restored: Tensor
    quality: Tensor


def iterate(student: Student, routing: Routing, pictures: Tensor, iterations: int) -> Iterator[Iteration]:
    """What a student makes of a batch, iteration by iteration, with the gates that it opens itself."""
    current = pictures
    original = estimate = student.encode(current)
    for step in range(iterations):
        if step:
            estimate = student.encode(current)
        gates = own_gates(routing, estimate.assessment, student.config.rank)
        restored, quality = student.refine(current, original, estimate, gates)
        yield Iteration(current, estimate, restored, quality)
        current = restored.detach().clamp(0, 1)


def match_rounds(rounds: int, iterations: int, match: Match) -> list[int]:
    """The teacher's round (from 0) that each of a student's iterations learns; there may be more or fewer of them.

    `skip`: iteration t learns round t, and the last round once there is no other. `merge`: the rounds are shared out
    evenly and an iteration learns the last of its share, so that the last iteration ends where the teacher ends.
    """
    if match == "skip" or rounds <= iterations:
        return [min(t, rounds - 1) for t in range(iterations)]
    return [math.ceil((t + 1) * rounds / iterations) - 1 for t in range(iterations)]


def ranking_loss(before: Tensor, after: Tensor, change: Tensor) -> Tensor:
    """Pairwise ranking of an iteration's predicted qualities, (B, 1) each, by the true change: what replaces RAR's comparison.

    RankNet's log(1 + e^(−s Δq)), weighted by |Δ| so that pairs which are equal in truth need no order.
    """
    weight = (change.abs() / RANKING_SCALE).clamp(max=1.0)
    return (weight * F.softplus(-change.sign() * (after - before) / RANKING_SCALE)).mean()


class DistillationObjective(Objective[Student]):
    """All losses of a student. A teacher is asked live, or its rounds come with the batch, or there is none.

    `feature_width`: channels of the teacher's features, None where it has none.
    """

    def __init__(
        self,
        student: Student,
        weights: Weights,
        routing: Routing,
        teacher: Teacher | None = None,
        feature_width: int | None = None,
    ) -> None:
        super().__init__()
        self.model = student
        self.weights, self.routing = weights, routing
        # In a list, so that the frozen teacher is no part of what is trained, averaged or saved.
        self._teacher: list[Teacher] = [] if teacher is None else [teacher.eval().requires_grad_(False)]
        # A student keeps what it can by learning from itself (Li and Hoiem, "Learning without Forgetting", 2016).
        self._start: list[Student] = [copy.deepcopy(student).eval().requires_grad_(False)] if weights.keep else []
        self._token_side = math.isqrt(student.config.tokens)
        self.project: nn.Linear | None = None
        if feature_width is not None:
            self.project = nn.Linear(student.config.token_width, feature_width)

    def _taught(self, batch: Batch, iterations: int) -> list[tuple[Tensor, Tensor | None]]:
        """For every iteration the picture and features to learn, of the first samples of the batch; none without a teacher."""
        if batch.rounds.shape[1]:
            steps = [
                (batch.rounds[:, t], batch.features[:, t] if batch.features.shape[2] else None)
                for t in range(batch.rounds.shape[1])
            ]
        else:
            share = round(len(batch.clean) * self.weights.teacher_share) if self._teacher else 0
            if not share:
                return []
            teacher = self._teacher[0].to(batch.clean.device)
            rounds = teacher.restore(batch.degraded[:share], self.weights.teacher_rounds or iterations)
            steps = [(step.picture, step.features) for step in rounds]
        return [steps[t] for t in match_rounds(len(steps), iterations, self.weights.match)]

    def _gates(self, assessment: Tensor, presence: Tensor) -> Tensor:
        """Some samples are routed by the truth, the others by the student's own assessment, which so learns what helps."""
        doubt = torch.rand(len(presence), device=presence.device) * 6 - 3
        told = torch.rand(len(presence), 1, device=presence.device) < self.weights.true_gates
        granularity = torch.where(told[:, 0], self.routing.threshold + self.routing.softness * doubt, assessment[:, 1])
        belief = torch.where(told, presence, assessment[:, 2:].sigmoid())
        return _ranks(route_batch(self.routing, granularity, belief), self.model.config.rank)

    def _privileged(self, estimate: Encoded, current: Tensor, clean: Tensor) -> Encoded:
        """Tokens of some samples read from α·truth + (1 − α)·current, α uniform in [0, 1], as SIPL trains its dictionary."""
        count = round(len(clean) * self.weights.privileged * (1 - self.progress))
        if not count:
            return estimate
        chosen = torch.randperm(len(clean), device=clean.device)[:count]
        alpha = torch.rand(count, 1, 1, 1, device=clean.device)
        with torch.no_grad():
            better = self.model.encode(alpha * clean[chosen] + (1 - alpha) * current[chosen]).features[2]
        told = self.model.encoder.tokens(better)
        return estimate._replace(tokens=estimate.tokens.index_copy(0, chosen, told.to(estimate.tokens.dtype)))

    def _goal(self, batch: Batch, current: Tensor, gates: Tensor) -> Tensor:
        """The pictures to come to: the truth, or, of samples with a leaf that is kept, what the start makes of `current`."""
        if not self._start:
            return batch.clean
        kept = [index for index, leaf in enumerate(self.routing.leaves) if leaf in self.weights.keep]
        samples = (batch.severities[:, kept] > 0).any(1).nonzero()[:, 0]
        if not len(samples):
            return batch.clean
        start = self._start[0].to(current.device)
        with torch.no_grad():
            original = estimate = start.encode(batch.degraded[samples])
            if current is not batch.degraded:
                estimate = start.encode(current[samples])
            kept_as, _ = start.refine(current[samples], original, estimate, gates[samples])
        return batch.clean.index_copy(0, samples, kept_as.to(batch.clean.dtype))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        student, w, clean = self.model, self.weights, batch.clean
        rounds = 1 + int(torch.multinomial(torch.tensor(w.unroll), 1))
        taught = self._taught(batch, rounds)
        present = (batch.severities > 0).float()
        zero = clean.new_zeros(())
        parts = {name: zero for name in ("image", "teacher", "tokens", "routing", "quality", "ranking")}
        figures: dict[str, Tensor] = {}

        current = batch.degraded
        original = estimate = student.encode(current)
        tiles = (batch.look != current).flatten(1).any(1).nonzero()[:, 0]
        look = student.encode(batch.look[tiles]) if len(tiles) else None
        input_error = (current - clean).square().mean((1, 2, 3))
        quality_now = quality_of(psnr(current, clean))[:, None]
        figures["psnr_0"] = psnr(current, clean).mean()
        for t in range(rounds):
            assessment = estimate.assessment.float()
            # What is still wrong: presence times the root of the share of the squared error that is left.
            error = (current - clean).square().mean((1, 2, 3))
            left = (error / input_error.clamp_min(1e-6)).clamp(0, 1).sqrt()[:, None]
            remaining = present * left
            parts["routing"] = parts["routing"] + self._routing_loss(assessment, remaining)
            if look is not None and self.routing.look_tokens:
                tokens = tokens_by_look(self.routing, estimate.tokens[tiles], look.assessment, look.tokens)
                estimate = estimate._replace(tokens=estimate.tokens.index_copy(0, tiles, tokens))
            if look is not None and t == 0:
                seen, whole = look.assessment.float(), whole_columns(self.routing)
                told = F.binary_cross_entropy_with_logits(seen[:, whole], present[tiles][:, [c - 2 for c in whole]])
                parts["routing"] = parts["routing"] + told
                assessment = assessment.index_copy(0, tiles, by_look(self.routing, assessment[tiles], seen))
            estimate = self._privileged(estimate, current, clean)
            gates = self._gates(assessment, remaining)
            restored, predicted = student.refine(current, original, estimate, gates)
            restored, predicted = restored.float(), predicted.float()
            parts["image"] = parts["image"] + fidelity_loss(restored, self._goal(batch, current, gates), w.floor)
            if taught:
                picture, features = taught[t]
                parts["teacher"] = parts["teacher"] + fidelity_loss(restored[: len(picture)], picture, w.floor)
                if features is not None:
                    parts["tokens"] = parts["tokens"] + self._token_loss(estimate.tokens[: len(features)], features)
            result = restored.detach().clamp(0, 1)
            quality_next = quality_of(psnr(result, clean))[:, None]
            own = torch.sigmoid(assessment[:, :1])
            change = (predicted - own.detach()) - (quality_next - quality_now)
            parts["quality"] = (
                parts["quality"] + ((own - quality_now).abs() + (predicted - quality_next).abs() + change.abs()).mean()
            )
            parts["ranking"] = parts["ranking"] + ranking_loss(own, predicted, quality_next - quality_now)
            figures[f"psnr_{t + 1}"] = psnr(result, clean).mean()
            current, quality_now = result, quality_next
            if t + 1 < rounds:
                estimate = student.encode(current)
        parts = {name: value / rounds for name, value in parts.items()}
        loss = torch.stack([getattr(w, name) * value for name, value in parts.items()]).sum()
        return {"loss": loss, **parts, **figures}

    @staticmethod
    def _routing_loss(assessment: Tensor, remaining: Tensor) -> Tensor:
        """Cross-entropy of the leaves, and UniRestorer's granularity loss ‖p − y‖² / (2 e^g) + g / 2.

        A floor under the error bounds g from below; without it a mixture that is always told right drives e^-g to infinity.
        """
        logits, granularity = assessment[:, 2:], assessment[:, 1]
        error = (logits.detach().sigmoid() - remaining).square().mean(1) + 1e-3
        spread = 0.5 * (error * torch.exp(-granularity) + granularity)
        return F.binary_cross_entropy_with_logits(logits, remaining) + 0.1 * spread.mean()

    def _token_loss(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Smooth L1 between the projected tokens and the teacher's features, both normalised over channels.

        `features`: a map (B, C, h, w), pooled to as many entries as the student has tokens.
        """
        assert self.project is not None
        projected = self.project(tokens).float()
        target = F.adaptive_avg_pool2d(features.float(), self._token_side).flatten(2).transpose(1, 2)
        goal = F.layer_norm(target, target.shape[-1:])
        return F.smooth_l1_loss(F.layer_norm(projected, projected.shape[-1:]), goal)
