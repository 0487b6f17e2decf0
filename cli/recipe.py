"""A whole recipe: what `burnish run` reads. Paths are relative to the recipe's file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from ..device_tests.devices import kind_of
from ..device_tests.gate import Gate
from ..distill.data import Mixture
from ..distill.degradations import KINDS
from ..distill.detection import Detection
from ..distill.distillation import Weights
from ..distill.recipe import Frozen, Schedule
from ..distill.student import SIZES
from ..distill.teachers.registry import TEACHERS
from ..distill.weights import Stored
from ..quantize.config import QuantizeConfig
from ..runtime.errors import InputError
from ..runtime.routing import Routing

# Stands for the weights inside the package.
EMBEDDED_WEIGHTS = "embedded"


def _one_of(known: Iterable[str], what: str) -> Callable[[str], str]:
    """A check made when the recipe is read: hours of training may lie before the stage that uses the name."""
    names = tuple(known)

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"unknown {what} {name!r}; expected {', '.join(names)}")
        return name

    return check


def _refused_by(check: Callable[[str], object]) -> Callable[[str], str]:
    """What `check` raises InputError for."""

    def validate(name: str) -> str:
        try:
            check(name)
        except InputError as error:
            raise ValueError(str(error)) from None
        return name

    return validate


def _known_program(name: str) -> None:
    # Imported where a recipe names programs: who only trains need not have what exports.
    from ..export.targets import select

    select([name])


Programs = tuple[Annotated[str, AfterValidator(_refused_by(_known_program))], ...]
Kind = Annotated[str, AfterValidator(_one_of(KINDS, "degradation"))]


class DistillSection(Frozen):
    """Which model to train, from what, on what and how."""

    model: Annotated[str, AfterValidator(_one_of(("student", *TEACHERS), "model"))] = Field(
        default="student", description="'student', or the name of a teacher to train"
    )
    size: Annotated[str, AfterValidator(_one_of(SIZES, "size"))] = "small"
    settings: dict[str, Any] = Field(
        default={}, description="of the teacher to train, as `burnish teacher info` lists them"
    )
    photos: str
    start: tuple[str, ...] | str | None = Field(
        default=None,
        description="weights to continue from: a file (a smaller student is widened), or 'embedded' for a student; of several, "
        "the mean",
    )
    teacher: str | None = Field(
        default=None, description="a teacher's weights, or 'embedded'; null for ground truth alone"
    )
    cache: str | None = Field(default=None, description="trajectories of `burnish teacher cache`, instead of a teacher")
    licence: str | None = Field(
        default=None, description="of the trained weights; null for that of the weights the training starts from"
    )
    expert: str | None = Field(
        default=None,
        description="the one expert that learns, a leaf or a parent of the tree; all else of the student stays as it is",
    )
    frozen: tuple[Literal["encoder", "refiner"], ...] = Field(
        default=(), description="parts of the student that stay as they are"
    )
    mixture: Mixture = Mixture()
    schedule: Schedule = Schedule()
    weights: Weights = Weights()
    specialists: dict[str, str] = Field(
        default={},
        description="leaf → weights trained with this encoder, frozen, whose refiner restores what has that leaf alone; those "
        "of the weights in `start` are left out",
    )
    stored: Stored = Field(default="fp16", description="what the weights' file holds; int8: codes in large layers")
    detection: Detection | None = Field(
        default=None,
        description="leaves told by logits fitted again, or by units of their own, at the size of use, once it is trained",
    )

    @model_validator(mode="after")
    def _leaves_the_rest_alone(self) -> DistillSection:
        for name in ("expert", "frozen", "specialists", "detection"):
            if getattr(self, name) and self.model != "student":
                raise ValueError(f"`{name}` is of students; leave it out to train {self.model}")
        if isinstance(self.start, tuple) and (self.model != "student" or not self.start):
            raise ValueError("a list in `start` is of students, at least one; give one file to train from it alone")
        if self.stored == "int8" and (self.frozen or self.expert):
            raise ValueError(
                "`stored: int8` rounds all of the student; leave it out where parts of it stay as they are"
            )
        if self.specialists and self.schedule.steps and "encoder" not in self.frozen:
            raise ValueError("`specialists` read the encoder as it was: frozen: [encoder], or a schedule of no steps")
        if self.expert is not None and (self.schedule.muon or self.schedule.weight_decay):
            raise ValueError(
                "`expert` needs muon: false and weight_decay: 0 in `schedule`, which would move the other experts"
            )
        return self


class ExportSection(Frozen):
    """Tile and programs of the bundle; no programs means all."""

    tile: int = Field(default=272, ge=64, le=2048, multiple_of=16)
    programs: Programs = ()


class ValidateSection(Frozen):
    """What to measure, on which clean photographs."""

    photos: str
    pictures: int | None = Field(default=None, gt=0)
    conditions: tuple[str, ...] = ()
    programs: Programs = ()
    teacher: str | None = Field(default=None, description="a teacher's weights, or 'embedded', to show the whole chain")
    iterations: int = Field(default=4, gt=0)
    gate: Gate = Gate()
    keep_slow: bool = Field(default=False, description="let int8 pass that was measured not to be faster than float")


class ProfileSection(Frozen):
    """Where to measure the bundle's programs, and how often."""

    devices: tuple[Annotated[str, AfterValidator(_refused_by(kind_of))], ...] = Field(
        default=("host",), min_length=1, description="as `burnish profile --device`"
    )
    programs: Programs = ()
    threads: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    runs: int = Field(default=50, gt=0)


class RestoreSection(Frozen):
    """A photograph to degrade and restore at the end."""

    photo: str
    degradations: dict[Kind, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={}, description="kind → severity; none restores the photo as it is"
    )
    budget_ms: float | None = Field(default=None, ge=0)


class Recipe(Frozen):
    """All stages; one that is absent is not run."""

    version: Literal[1] = 1
    distill: DistillSection | None = None
    calibration: str | None = Field(default=None, description="photographs that quantisation is calibrated on")
    routing: Routing | None = Field(default=None, description="null for that of the weights training starts from")
    quantize: QuantizeConfig = QuantizeConfig()
    export: ExportSection = ExportSection()
    validate_on: ValidateSection | None = Field(default=None, alias="validate")
    profile: ProfileSection | None = None
    restore: RestoreSection | None = None

    @field_validator("routing")
    @classmethod
    def _specialists_come_with_weights(cls, routing: Routing | None) -> Routing | None:
        if routing is not None and routing.specialists:
            raise ValueError("`specialists` come with the weights; name these in `distill.specialists`")
        return routing


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises InputError naming the first wrong key."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a recipe such as recipes/demo.yaml")
    try:
        content: Any = yaml.safe_load(path.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark and f", line {error.problem_mark.line + 1},"
        raise InputError(f"{path}{where or ''} is not valid YAML: {error.problem}; see docs/recipes.md") from None
    except (yaml.YAMLError, ValueError) as error:  # no text, or a date that is none
        raise InputError(f"{path} is not valid YAML: {str(error).splitlines()[0]}; see docs/recipes.md") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} has no sections; expected a recipe such as recipes/demo.yaml")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{path}: {key}: {problem}; see docs/recipes.md") from None


def resolve(recipe: Path, path: str) -> Path:
    """A path in a recipe, relative to the recipe's folder."""
    return (recipe.parent / path).resolve()


def distill_section(recipe: Recipe, path: Path) -> DistillSection:
    """What a recipe trains. Raises InputError where it trains nothing."""
    if recipe.distill is None:
        raise InputError(f"{path} has no distill section; see recipes/student-small.yaml")
    return recipe.distill
