"""When a leaf is present: its logit fitted again at the size of use, once a student is trained.

Training sees small patches, a few at a time; in use whole tiles are assessed, and looks at pictures made small. A logistic
regression on what the assessing head's hidden units say of thousands of those replaces a leaf's row of its last layer. Where a
leaf is on a picture alone, a hidden unit that was idle may tell it from what the head averages, and is silent on nearly all
that does not have it. Nothing else of the student moves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..runtime.errors import InputError
from ..runtime.tree import LEAVES
from .data import STAYING, DegradedPatches, Mixture, list_pictures, to_tensor
from .recipe import Frozen, check_known
from .regression import logistic_regression
from .student import HIDDEN, Student

# Share of tiles without a leaf that its own unit is silent on.
SILENT = 0.998


class Detection(Frozen):
    """Which leaves are fitted again, and on what."""

    leaves: tuple[str, ...] = Field(default=(), description="whose logits are fitted again")
    as_high: tuple[str, ...] = Field(
        default=(), description="of these, whose logits stay as high on the mean as they were where the leaf is present"
    )
    alone: tuple[str, ...] = Field(
        default=(),
        description="leaves that get a hidden unit of their own, which tells them where nothing else is on a picture",
    )
    pictures: int = Field(default=3000, gt=0, description="degraded pictures, each of which gives a look and a tile")
    tile: int = Field(default=272, ge=64, le=2048, multiple_of=16, description="side of both, the programs' tile")

    @model_validator(mode="after")
    def _known(self) -> Detection:
        check_known((*self.leaves, *self.alone), LEAVES)
        check_known(self.as_high, self.leaves)
        if not self.leaves and not self.alone:
            raise ValueError("nothing to fit: expected `leaves` or `alone`")
        if looked := [leaf for leaf in self.alone if leaf in STAYING]:
            raise ValueError(
                f"`alone` is of leaves that tiles tell; a look tells {', '.join(looked)}: name it in `leaves`"
            )
        return self


@torch.no_grad()
def fit_detection(
    student: Student, photos: Path, mixture: Mixture, detection: Detection, seed: int, seen: Callable[[int], None]
) -> None:
    """Fit the logits of `detection.leaves` again on pictures of `photos` under `mixture`, and units of those in
    `detection.alone`; `seen` is told how many pictures there are.

    Mild ones count as much as severe ones: a light darkness that is missed costs as much as a deep one. Leaves that a
    picture made small has lost are fitted on tiles alone. Leaves in `detection.as_high` keep the height of their gates, which
    their experts have learnt with. Raises InputError where a leaf is on none or all of the pictures, or not believed where it
    is to stay as high; and where one of `alone` is alone on none or absent from none, or no unit is idle.
    """
    head, device = student.encoder.head, next(student.parameters()).device
    scenes = DegradedPatches(list_pictures(photos), mixture, detection.tile, detection.pictures, seed)
    averages: list[Tensor] = []  # of every scene what the head sees of the look at it, and of a tile
    severities: list[Tensor] = []
    for number in range(detection.pictures):
        scene = scenes.scene(number)
        tile = scene.degraded[scene.cut(detection.tile, np.random.default_rng([seed, number, 2]))]
        for picture in (torch.from_numpy(scene.look), to_tensor(tile)):
            averages.append(head.pooled(*student.encode(picture[None].to(device)).features))
        severities.append(torch.from_numpy(scene.severities))
        seen(number + 1)
    pooled, severity = torch.cat(averages).unflatten(0, (-1, 2)), torch.stack(severities)
    hidden = torch.relu(head.hidden(pooled)).cpu()
    for leaf in detection.leaves:
        row = 2 + student.config.leaves.index(leaf)
        # A picture made small has lost its noise and its blur: of these, tiles alone tell.
        told = hidden if leaf in STAYING else hidden[:, 1:]
        inputs, present = told.flatten(0, 1), (severity[:, LEAVES.index(leaf)] > 0).repeat_interleave(told.shape[1])
        if present.all() or not present.any():
            raise InputError(
                f"{leaf} is on {int(present.sum())} of {len(present)} pictures; expected some with and some without: "
                "draw more `pictures`, or give it a share in `mixture`"
            )
        weight, bias = logistic_regression(inputs, present.float())
        if leaf in detection.as_high:
            last = head.output.weight[row].cpu(), head.output.bias[row].cpu()
            before, after = ((inputs[present] @ w + b).mean() for w, b in (last, (weight, bias)))
            if min(before, after) <= 0:
                raise InputError(
                    f"{leaf} has logits of {before:.1f} before and {after:.1f} after on the mean where it is present; expected "
                    "both above 0 of a leaf that stays as high: leave it out of `as_high`"
                )
            weight, bias = weight * before / after, bias * before / after
        head.output.weight[row] = weight.to(device)
        head.output.bias[row] = bias.to(device)
    # Units behind the shared ones belong to leaves that were added, and are silent on what the student knows.
    idle = (hidden == 0).flatten(0, 1).all(0)[:HIDDEN].nonzero()[:, 0].tolist()
    for leaf in detection.alone:
        weight, threshold = _tell_alone(leaf, pooled[:, 1].cpu(), severity)
        if not idle:
            raise InputError(f"the assessing head has no idle unit for {leaf}; leave it out of `alone`")
        head.let_tell(idle.pop(0), 2 + student.config.leaves.index(leaf), weight, threshold)


def _tell_alone(leaf: str, tiles: Tensor, severity: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (channels,) of a score that tells tiles with this leaf alone from those without it, and the threshold that all but
    1 in 500 of these stay below.

    `tiles`: what the head sees of them, (pictures, channels); `severity`: (pictures, leaves).
    """
    own = severity[:, LEAVES.index(leaf)]
    alone, without = (own > 0) & ((severity > 0).sum(1) == 1), own == 0
    if not alone.any() or not without.any():
        raise InputError(
            f"{leaf} is alone on {int(alone.sum())} and absent from {int(without.sum())} of {len(severity)} pictures; expected "
            "some of both: draw more `pictures`, or give it a share in `mixture`"
        )
    told = alone | without
    weight, _ = logistic_regression(tiles[told], alone[told].float())
    return weight, (tiles[without] @ weight).quantile(SILENT)
