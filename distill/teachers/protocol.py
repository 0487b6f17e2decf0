"""What every teacher offers: a trajectory for a picture, a card that says whose work it is, published weights, training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError
from torch import Tensor, nn

from ...runtime.bundle import Teacher as Origin
from ...runtime.errors import InputError
from ..recipe import Frozen

if TYPE_CHECKING:
    from ..training import Objective


Size = Literal["published", "tiny"]


class Figures(Frozen):
    """What was published of a teacher's size."""

    parameters: float | None = Field(default=None, description="in millions")
    macs: dict[str, float] = Field(default={}, description="pass → billions of multiply-adds at 256²")
    note: str | None = Field(default=None, description="why ours differ")


class Card(Frozen):
    """Whose method a teacher is and what its weights may be used for."""

    title: str
    paper: str
    licence: str = Field(description="licence of the authors' code and weights")
    commercial_use: bool = Field(description="whether that licence lets distilled weights ship in a product")
    published_rounds: int | None = Field(
        default=None, description="rounds of the published method; later ones are our extension; None: any number"
    )
    base: str | None = Field(default=None, description="the pretrained model that the authors' checkpoints build on")
    figures: Figures = Figures()


def origin(name: str, card: Card) -> Origin:
    """What weights and bundles that learned from a teacher say of it."""
    return Origin(name=name, licence=card.licence, commercial_use=card.commercial_use)


class Round(NamedTuple):
    """One round of a teacher over a batch. Estimates are of the picture the round started from."""

    picture: Tensor  # (B, 3, H, W) in [0, 1]
    quality: Tensor | None = None  # (B,) predicted quality of `picture`, in [0, 1]
    degradation: Tensor | None = None  # (B, leaves of the degradation tree), in [0, 1]
    features: Tensor | None = None  # (B, C, h, w): what a student's tokens learn from


Trajectory = list[Round]


class Teacher(nn.Module, ABC):
    """A full-size restorer; the registry gives it its name and card."""

    name: str
    card: Card
    settings: Frozen = Frozen()  # how it works beyond its weights, by names of its own; saved beside them
    multiple: int = 8  # picture sides that `rounds` accepts
    feature_width: int | None = None  # channels of `Round.features`; None when there are none

    def configure(self, chosen: Mapping[str, Any]) -> None:
        """Choose some settings, the others stay. Raises InputError."""
        try:
            self.settings = type(self.settings).model_validate(self.settings.model_dump() | dict(chosen))
        except ValidationError as error:
            first = error.errors()[0]
            name, known = ".".join(map(str, first["loc"])), ", ".join(type(self.settings).model_fields) or "none"
            raise InputError(f"{type(self).__name__}: setting {name}: {first['msg']}; its settings: {known}") from None

    @abstractmethod
    def rounds(self, image: Tensor, count: int) -> Trajectory:
        """`count` rounds on (B, 3, H, W) in [0, 1] whose sides are multiples of `multiple`."""

    @abstractmethod
    def passes(self, image: Tensor) -> dict[str, Callable[[], Any]]:
        """What `burnish teacher info` counts multiply-adds of: pass name → call."""

    @abstractmethod
    def objective(self) -> Objective[Any]:
        """How this teacher is trained (`distill.training`)."""

    def load_base(self, folder: Path) -> None:
        """Take over the pretrained model that the method builds on, from a local folder. Raises InputError."""
        raise InputError(f"{self.name} builds on no pretrained model; leave out the folder {folder}")

    @abstractmethod
    def load_published(self, content: Mapping[str, Any]) -> None:
        """Take over the authors' checkpoint, as `torch.load(weights_only=True)` gave it. Raises InputError."""

    @torch.no_grad()
    def restore(self, image: Tensor, rounds: int) -> Trajectory:
        """Restore (B, 3, H, W) in [0, 1] of any size: mirrored up to `multiple`, and cropped again."""
        height, width = image.shape[-2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        # Mirroring needs more pixels than it adds; a picture smaller than that repeats its border.
        mode = "reflect" if bottom < height and right < width else "replicate"
        padded = F.pad(image, (0, right, 0, bottom), mode=mode)
        return [
            step._replace(picture=step.picture[..., :height, :width].float().clamp(0, 1))
            for step in self.rounds(padded, rounds)
        ]
