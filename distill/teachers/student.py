"""A larger student as the teacher of smaller ones: SIPL's dictionary and iterations on the students' own network.

Its dictionary attends to the last restoration and its refiner to the result (SIPL, equations 3 and 4), the degraded picture
staying fixed (equation 5). Dense convolutions learn on a CPU where a Transformer's blocks do not, and a trained smaller
student is a start (`distill.widen`): docs/decisions.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import Field
from torch import Tensor

from ...runtime.routing import Routing
from ..recipe import Frozen
from ..student import SIZES, Student
from .checkpoints import fill, unwrap
from .protocol import Round, Size, Teacher, Trajectory

if TYPE_CHECKING:
    from ..distillation import DistillationObjective


class Settings(Frozen):
    """How a student is used."""

    routing: Routing = Field(default=Routing(), description="tree and constants by which it opens its experts' gates")


class StudentTeacher(Teacher):
    """A student whose iterations are a teacher's rounds."""

    def __init__(self, student: Student, routing: Routing) -> None:
        super().__init__()
        self.student = student
        self.settings = Settings(routing=routing)
        self.feature_width = student.config.token_width

    @property
    def routing(self) -> Routing:
        """The tree and constants that travel with the student."""
        return cast(Settings, self.settings).routing

    def rounds(self, image: Tensor, count: int) -> Trajectory:
        """Pictures are means of what becomes of the picture and of its mirror image (self-ensemble; Lim et al., "Enhanced Deep
        Residual Networks", CVPR workshops 2017); all else is said of the picture itself.
        """
        from ..distillation import iterate  # which knows teachers

        side, own = math.isqrt(self.student.config.tokens), slice(len(image))
        trajectory: Trajectory = []
        for step in iterate(self.student, self.routing, torch.cat([image, image.flip(3)]), count):
            straight, mirrored = step.restored.float().clamp(0, 1).chunk(2)
            trajectory.append(
                Round(
                    (straight + mirrored.flip(3)) / 2,
                    quality=step.quality[own, 0].float(),
                    degradation=step.estimate.assessment[own, 2:].float().sigmoid(),
                    features=step.estimate.tokens[own].transpose(1, 2).unflatten(2, (side, side)),
                )
            )
        return trajectory

    def passes(self, image: Tensor) -> dict[str, Callable[[], Any]]:
        encoded = self.student.encode(image)
        gates = image.new_ones(len(image), len(self.student.config.experts) * self.student.config.rank, 1, 1)
        return {
            "encode": lambda: self.student.encode(image),
            "refine": lambda: self.student.refine(image, encoded, encoded, gates),
        }

    def objective(self) -> DistillationObjective:
        from ..distillation import DistillationObjective, Weights

        return DistillationObjective(self.student, Weights(), self.routing)

    def load_published(self, content: Mapping[str, Any]) -> None:
        fill(self.student, unwrap(content), "this checkpoint")


def build(size: Size) -> StudentTeacher:
    """The size `base`; `nano` for tests."""
    return StudentTeacher(Student(SIZES["nano" if size == "tiny" else "base"]), Routing())
