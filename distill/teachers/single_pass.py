"""Single-pass restorers as teachers: what SIPL is compared with, and what it extends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field
from torch import Tensor

from ..recipe import Frozen
from .backbone import Backbone
from .backbones import PROMPTIR, backbone
from .checkpoints import fill, strip_prefix, unwrap
from .promptir import PublishedPromptIR
from .protocol import Round, Size, Teacher, Trajectory

if TYPE_CHECKING:
    from ..training import Objective


class Settings(Frozen):
    """Of its training."""

    privilege_steps: int = Field(
        default=0,
        ge=0,
        description="steps over which ever less of the truth is mixed into the input (SIPL, equation 1)",
    )


class SinglePass(Teacher):
    """A backbone on its own; rounds after the first restore its own output again."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.settings = Settings()
        self.backbone = backbone
        self.multiple, self.feature_width = backbone.multiple, backbone.sites[0]

    def forward(self, x: Tensor) -> Tensor:
        """Restore (B, 3, H, W), unclipped."""
        return self.backbone(x)

    def rounds(self, image: Tensor, count: int) -> Trajectory:
        trajectory: Trajectory = []
        for _ in range(count):
            features = self.backbone.encode(image)
            image = self(image).float().clamp(0, 1)
            trajectory.append(Round(image, features=features[3]))
        return trajectory

    def passes(self, image: Tensor) -> dict[str, Callable[[], Any]]:
        return {"plain": lambda: self(image), "encoder features": lambda: self.backbone.encode(image)}

    def objective(self) -> Objective[SinglePass]:
        from .training import FidelityObjective, PrivilegeObjective

        steps = cast(Settings, self.settings).privilege_steps
        return PrivilegeObjective(self, steps) if steps else FidelityObjective(self)

    def load_published(self, content: Mapping[str, Any]) -> None:
        tensors = unwrap(content)
        fill(self.backbone, strip_prefix(tensors, "net.") or tensors, "this checkpoint")


def build(size: Size, kind: str) -> SinglePass:
    """The backbone `kind` on its own."""
    return SinglePass(PublishedPromptIR(PROMPTIR[size]) if kind == "promptir" else backbone(kind, size))
