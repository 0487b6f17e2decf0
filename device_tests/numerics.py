"""reports/numerics.json: what was measured, and what the gate says of it. docs/validation.md explains every field."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from ..distill.recipe import Frozen
from ..runtime.controller import Stop
from ..runtime.routing import Gates
from .gate import Gate
from .metrics import Comparison

FORMAT = 2
# Candidates that are no programs.
INPUT = "input"
TEACHER = "teacher"
BASELINE = "student-fp32"
# The condition of what is pooled over conditions.
ALL = "all"
# Who was measured, and on which device (None: the machine that judged).
Key = tuple[str, str | None]


class Outcome(Frozen):
    """What the controller decides for one tile, fed with the recorded qualities."""

    stop: int = Field(description="iterations run")
    kept: int = Field(description="the iteration that is returned, 0 for the input")
    reason: Stop


class Run(Frozen):
    """One candidate on one picture, over iterations."""

    condition: str
    group: str
    picture: str
    candidate: str
    device: str | None = Field(default=None, description="null for the machine that judged")
    truth: tuple[Comparison, ...] = Field(description="the input, then every iteration, against ground truth")
    student: tuple[Comparison, ...] = Field(
        default=(), description="of a program: every iteration against the student's"
    )
    gates: tuple[Gates, ...] = Field(default=(), description="of every iteration; means over tiles")
    outcomes: tuple[Outcome, ...] = Field(default=(), description="of every tile, under the default policy")
    returned_psnr: float = Field(default=0.0, description="of the picture those outcomes return, to the truth")

    @property
    def key(self) -> Key:
        """Candidate and device."""
        return self.candidate, self.device


class Against(Frozen):
    """A program against the full-precision student. `worst`: mean of the worst 5 % of pictures, at least one."""

    drop_db: float = Field(description="PSNR to the truth that was lost; what is above 40 dB counts as 40")
    worst_drop_db: float
    ssim_drop: float
    worst_ssim_drop: float
    psnr: float = Field(description="to the student's picture, dB")
    ssim: float
    delta_e: float = Field(description="to the student's picture")
    worst_delta_e: float
    bias: float = Field(description="mean luma less the student's, 1/255: negative is darker")
    abs_bias: float = Field(description="the same, mean of the pictures' absolute values")
    worst_abs_bias: float


class Row(Frozen):
    """Means over the pictures of a condition, of one candidate after one iteration."""

    condition: str = Field(description="'all': every picture under every condition but clean")
    group: str = Field(description="clean, single, double, triple, pairs or all")
    candidate: str
    device: str | None = None
    iteration: int = Field(ge=0, description="0 is the input")
    pictures: int
    truth: Comparison
    student: Against | None = None

    @property
    def key(self) -> Key:
        """Candidate and device."""
        return self.candidate, self.device


class Decision(Frozen):
    """Do a program's predictions lead where the student's lead? A picture of one tile is one tile."""

    condition: str
    candidate: str
    device: str | None = None
    pictures: int
    tiles: int
    same_stop: float = Field(description="share of tiles that stop after the same iteration")
    same_kept: float = Field(description="share of tiles that return the same iteration")
    same_gates: tuple[float, ...] = Field(
        description="by iteration: share of pictures that open the same experts (mean gate over tiles of at least 0.1)"
    )
    gate_difference: tuple[float, ...] = Field(description="by iteration: mean of a picture's largest difference")
    mean_stop: tuple[float, float] = Field(description="mean iterations run: program, student")
    returned_drop_db: float = Field(description="mean loss of the picture returned, each by its own decisions")
    stop_cost_db: tuple[float, float] = Field(
        description="program, student: mean PSNR of each picture's best iteration (the input is one) less the returned one's"
    )


class Drift(Frozen):
    """The difference from the student over iterations, each on its own trajectory."""

    condition: str
    candidate: str
    device: str | None = None
    drop_db: tuple[float, ...] = Field(description="mean loss of PSNR by iteration")
    rms: tuple[float, ...] = Field(description="mean root-mean-square difference by iteration, 1/255")
    growth_db: float = Field(description="mean growth of the loss in one iteration")
    alarm: bool = Field(description="the loss grows in every iteration, and by more than the gate's max_growth_db")


class Failure(Frozen):
    """One limit that was passed."""

    metric: str
    condition: str
    candidate: str
    device: str | None = None
    iteration: int | None = Field(default=None, description="null for what is judged over all iterations")
    value: float
    limit: float

    def __str__(self) -> str:
        where = f"{self.condition}, iteration {self.iteration}" if self.iteration else self.condition
        device = f" on {self.device}" if self.device else ""
        return f"{self.candidate}{device}: {self.metric} {self.value:.3f}, limit {self.limit:g} ({where})"


class Worst(Frozen):
    """A picture that lost much."""

    condition: str
    picture: str
    candidate: str
    device: str | None = None
    iteration: int
    drop_db: float


class Measurement(Frozen):
    """What was measured of some candidates, and the gate's verdict."""

    gate: Gate
    iterations: int
    rows: tuple[Row, ...]
    decisions: tuple[Decision, ...]
    drifts: tuple[Drift, ...]
    failures: tuple[Failure, ...]

    @property
    def passed(self) -> bool:
        """Whether no limit was passed."""
        return not self.failures

    @property
    def conditions(self) -> list[str]:
        """Conditions in the order measured, without what pools them."""
        return list(dict.fromkeys(row.condition for row in self.rows if row.condition != ALL))

    @property
    def candidates(self) -> list[Key]:
        """Who was measured, and on which device: input, teacher, student, then programs."""
        return list(dict.fromkeys(row.key for row in self.rows))

    @property
    def programs(self) -> list[Key]:
        """The candidates that are programs."""
        return [key for key in self.candidates if key[0] not in (INPUT, TEACHER, BASELINE)]

    def row(self, condition: str, key: Key, iteration: int) -> Row | None:
        """The row of a condition, candidate and iteration; of the input, whatever the iteration."""
        return self._index.get((condition, key, 0 if key[0] == INPUT else iteration))

    @cached_property
    def _index(self) -> dict[tuple[str, Key, int], Row]:
        return {(row.condition, row.key, row.iteration): row for row in self.rows}

    def drops(self, program: str, device: str | None = None) -> dict[tuple[str, int], float]:
        """Mean loss of PSNR against the student in dB, by condition and iteration."""
        return {
            (row.condition, row.iteration): row.student.drop_db
            for row in self.rows
            if row.key == (program, device) and row.student is not None and row.condition != ALL
        }

    def mean(self, key: Key, iteration: int, group: str | None = None) -> float | None:
        """Mean PSNR over the conditions of a group (of all that degrade), None where nothing was measured."""
        rows = [self.row(condition, key, iteration) for condition in self.conditions]
        values = [
            row.truth.psnr
            for row in rows
            if row is not None and (row.group == group if group else row.group != "clean")
        ]
        return sum(values) / len(values) if values else None


class Numerics(Measurement):
    """The whole validation of a bundle."""

    format: int = FORMAT
    bundle: str
    student: str
    protocol_sha256: str
    picture_set: str
    speed: dict[str, str] = Field(description="program → its speed against float, or 'unmeasured'")
    worst: tuple[Worst, ...]
