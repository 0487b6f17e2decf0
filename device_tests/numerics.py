"""reports/numerics.json: what was measured, by picture set, condition, candidate and iteration."""

from __future__ import annotations

from pydantic import Field

from ..distill.recipe import Frozen

BASELINE = "student-fp32"
TEACHER = "teacher"


class Row(Frozen):
    """Means over the pictures of a set; `worst` is the smallest difference from the baseline of any picture in dB."""

    condition: str
    group: str
    candidate: str
    iteration: int = Field(ge=0, description="0 is the input")
    psnr: float
    ssim: float
    worst_drop_db: float = Field(description="largest loss of a picture against the full-precision student, in dB")
    pictures: int


class Sample(Frozen):
    """One picture to look at: JPEG data URIs of the degraded and the restored version."""

    condition: str
    name: str
    degraded: str
    restored: str
    psnr: tuple[float, float]


class Failure(Frozen):
    """A condition where a program lost more than allowed."""

    condition: str
    candidate: str
    iteration: int
    drop_db: float


class Numerics(Frozen):
    """The whole measurement and its verdict."""

    format: int = 1
    bundle: str
    student: str
    protocol_sha256: str
    picture_set: str
    candidates: tuple[str, ...]
    iterations: int
    max_drop_db: float
    rows: tuple[Row, ...]
    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...]

    @property
    def passed(self) -> bool:
        """Whether no program lost more than allowed under any condition."""
        return not self.failures

    def mean(self, candidate: str, iteration: int, group: str | None = None) -> float | None:
        """Mean PSNR over degraded conditions (of one group), None where nothing was measured."""
        values = [
            row.psnr
            for row in self.rows
            if row.candidate == candidate
            and row.iteration == iteration
            and (row.group == group if group else row.group != "clean")
        ]
        return sum(values) / len(values) if values else None

    def row(self, condition: str, candidate: str, iteration: int) -> Row | None:
        """The row of a condition, candidate and iteration."""
        for row in self.rows:
            if (row.condition, row.candidate, row.iteration) == (condition, candidate, iteration):
                return row
        return None

    @property
    def conditions(self) -> list[str]:
        """Conditions in the order measured."""
        return list(dict.fromkeys(row.condition for row in self.rows))

    def table(self) -> str:
        """A plain-text table: input, every iteration of the baseline, the last of every other candidate."""
        others = [c for c in self.candidates if c != BASELINE]
        steps = range(1, self.iterations + 1)
        head = f"{'PSNR in dB':<38}{'input':>8}" + "".join(f"{f'it. {i}':>8}" for i in steps)
        lines = [head + "".join(f"{c[-22:]:>24}" for c in others)]
        for condition in self.conditions:
            cells = [self.row(condition, BASELINE, i) for i in range(self.iterations + 1)]
            line = f"{condition:<38}" + "".join(f"{c.psnr if c else float('nan'):>8.2f}" for c in cells)
            for other in others:
                last = self.row(condition, other, self.iterations)
                line += f"{last.psnr if last else float('nan'):>24.2f}"
            lines.append(line)
        verdict = "passed" if self.passed else f"FAILED under {len({f.condition for f in self.failures})} conditions"
        lines.append(
            f"gate (at most {self.max_drop_db} dB lost on the mean of each condition and iteration): {verdict}"
        )
        return "\n".join(lines)
