"""When a leaf is present: its logit fitted again at the size of use, once a student is trained.

Training sees small patches, a few at a time; in use whole tiles are assessed, and looks at pictures made small. A logistic
regression on what the assessing head's hidden units say of thousands of those replaces a leaf's row of its last layer. Nothing
else of the student moves.
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
from .student import Student


class Detection(Frozen):
    """Which leaves are fitted again, and on what."""

    leaves: tuple[str, ...] = Field(min_length=1, description="whose logits are fitted again")
    as_high: tuple[str, ...] = Field(
        default=(), description="of these, whose logits stay as high on the mean as they were where the leaf is present"
    )
    pictures: int = Field(default=3000, gt=0, description="degraded pictures, each of which gives a look and a tile")
    tile: int = Field(default=272, ge=64, le=2048, multiple_of=16, description="side of both, the programs' tile")

    @model_validator(mode="after")
    def _known(self) -> Detection:
        check_known(self.leaves, LEAVES)
        check_known(self.as_high, self.leaves)
        return self


@torch.no_grad()
def fit_detection(
    student: Student, photos: Path, mixture: Mixture, detection: Detection, seed: int, seen: Callable[[int], None]
) -> None:
    """Fit the logits of `detection.leaves` again on pictures of `photos` under `mixture`; `seen` is told how many there are.

    Mild ones count as much as severe ones: a light darkness that is missed costs as much as a deep one. Leaves that a
    picture made small has lost are fitted on tiles alone. Leaves in `detection.as_high` keep the height of their gates, which
    their experts have learnt with. Raises InputError where a leaf is on none or all of the pictures, or not believed where it
    is to stay as high.
    """
    head, device = student.encoder.head, next(student.parameters()).device
    scenes = DegradedPatches(list_pictures(photos), mixture, detection.tile, detection.pictures, seed)
    seen_of: list[Tensor] = []  # of every scene what hidden units say of the look at it, and of a tile
    severities: list[Tensor] = []
    for number in range(detection.pictures):
        scene = scenes.scene(number)
        tile = scene.degraded[scene.cut(detection.tile, np.random.default_rng([seed, number, 2]))]
        features = [
            student.encode(picture[None].to(device)).features
            for picture in (torch.from_numpy(scene.look), to_tensor(tile))
        ]
        seen_of.append(torch.cat([torch.relu(head.hidden(head.pooled(*f))).cpu() for f in features]))
        severities.append(torch.from_numpy(scene.severities))
        seen(number + 1)
    hidden, severity = torch.stack(seen_of), torch.stack(severities)
    for leaf in detection.leaves:
        column = student.config.leaves.index(leaf)
        # A picture made small has lost its noise and its blur: of these, tiles alone tell.
        told = hidden if leaf in STAYING else hidden[:, 1:]
        inputs, present = told.flatten(0, 1), (severity[:, column] > 0).repeat_interleave(told.shape[1])
        if present.all() or not present.any():
            raise InputError(
                f"{leaf} is on {int(present.sum())} of {len(present)} pictures; expected some with and some without: "
                "draw more `pictures`, or give it a share in `mixture`"
            )
        weight, bias = logistic_regression(inputs, present.float())
        if leaf in detection.as_high:
            row = head.output.weight[2 + column].cpu(), head.output.bias[2 + column].cpu()
            before, after = ((inputs[present] @ w + b).mean() for w, b in (row, (weight, bias)))
            if min(before, after) <= 0:
                raise InputError(
                    f"{leaf} has logits of {before:.1f} before and {after:.1f} after on the mean where it is present; expected "
                    "both above 0 of a leaf that stays as high: leave it out of `as_high`"
                )
            weight, bias = weight * before / after, bias * before / after
        head.output.weight[2 + column] = weight.to(device)
        head.output.bias[2 + column] = bias.to(device)
