"""From pictures to figures: means, the worst 5 % of pictures, and drift over iterations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from .gate import Gate
from .metrics import Comparison
from .numerics import Against, Drift, Run

# Errors beyond this are invisible: a clean picture that comes out at 50 dB instead of 60 has lost nothing.
INVISIBLE_DB = 40.0
WORST_SHARE = 0.05


class Compared(NamedTuple):
    """A program's run and the student's on the same picture."""

    run: Run
    student: Run


def loss_db(student: Comparison, program: Comparison) -> float:
    """PSNR to the truth that a program lost against the student; what is above 40 dB counts as 40."""
    return capped_db(student.psnr) - capped_db(program.psnr)


def capped_db(psnr: float) -> float:
    """A PSNR as far as it can be seen."""
    return min(psnr, INVISIBLE_DB)


def worst(values: Sequence[float]) -> float:
    """Mean of the largest 5 % of values, rounded up, so of one at least."""
    count = math.ceil(WORST_SHARE * len(values))
    return mean(sorted(values)[-count:])


def mean(values: Iterable[float]) -> float:
    """Rounded to what is written."""
    numbers = list(values)
    return round(sum(numbers) / len(numbers), 5)


def average(comparisons: Sequence[Comparison]) -> Comparison:
    """The mean of every measure."""
    names = Comparison.model_fields
    return Comparison(**{name: mean(getattr(c, name) for c in comparisons) for name in names})


def against(runs: Sequence[Compared], iteration: int) -> Against:
    """A program against the student after an iteration."""
    truths = [(run.truth[iteration], student.truth[iteration]) for run, student in runs]
    drops = [loss_db(student, program) for program, student in truths]
    ssim_drops = [student.ssim - program.ssim for program, student in truths]
    near = [run.student[iteration - 1] for run, _ in runs]
    biases = [abs(c.bias) for c in near]
    differences = average(near)
    return Against(
        drop_db=mean(drops),
        worst_drop_db=worst(drops),
        ssim_drop=mean(ssim_drops),
        worst_ssim_drop=worst(ssim_drops),
        psnr=differences.psnr,
        ssim=differences.ssim,
        delta_e=differences.delta_e,
        worst_delta_e=worst([c.delta_e for c in near]),
        bias=differences.bias,
        abs_bias=mean(biases),
        worst_abs_bias=worst(biases),
    )


def drift(condition: str, runs: Sequence[Compared], gate: Gate) -> Drift:
    """A program's distance from the student over iterations."""
    iterations = range(1, len(runs[0].run.truth))
    drops = [mean(loss_db(student.truth[t], run.truth[t]) for run, student in runs) for t in iterations]
    rms = [mean(255 * 10 ** (-run.student[t - 1].psnr / 20) for run, _ in runs) for t in iterations]
    growth = (drops[-1] - drops[0]) / (len(drops) - 1) if len(drops) > 1 else 0.0
    grows = all(after > before for before, after in pairwise(drops))
    return Drift(
        condition=condition,
        candidate=runs[0].run.candidate,
        device=runs[0].run.device,
        drop_db=tuple(drops),
        rms=tuple(rms),
        growth_db=round(growth, 5),
        alarm=grows and growth > gate.max_growth_db,
    )
