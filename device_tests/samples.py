"""Pictures for the report: whole ones a person wants to see first, and details where a program errs most."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

from ..distill.recipe import Frozen
from .decisions import returned
from .losses import capped_db, loss_db
from .metrics import to_pixels
from .numerics import Run
from .protocol import Array
from .scores import Scorer
from .trajectory import Trajectory

DETAIL = 192
LARGEST_SIDE = 768


class Sample(Frozen):
    """Versions of one picture as JPEG data URIs (degraded, student, program, clean), with their PSNR to the truth in dB."""

    condition: str
    picture: str
    candidate: str
    iteration: int
    images: dict[str, str]
    psnr: dict[str, float]
    drop_db: float


def whole(scorer: Scorer, run: Run, program: Trajectory, student: Trajectory) -> Sample:
    """What a caller gets, at most 768 pixels a side; `iteration` is the highest that a tile keeps."""
    degraded = scorer.pair.degraded
    versions = {
        "degraded": degraded,
        "student": returned(student, degraded, scorer.student.outcomes),
        "program": returned(program, degraded, run.outcomes),
        "clean": scorer.pair.clean,
    }
    iteration = max(outcome.kept for outcome in run.outcomes)
    return _sample(run, versions, iteration, scorer.student.returned_psnr, run.returned_psnr)


def detail(scorer: Scorer, run: Run, program: Trajectory, student: Trajectory) -> Sample:
    """192² pixels after the iteration that lost most, where program and student differ most."""
    losses = [loss_db(theirs, ours) for theirs, ours in zip(scorer.student.truth, run.truth, strict=True)]
    iteration = int(np.argmax(losses[1:])) + 1
    versions = {
        "degraded": scorer.pair.degraded,
        "student": student.pictures[iteration - 1],
        "program": program.pictures[iteration - 1],
        "clean": scorer.pair.clean,
    }
    error = np.square(versions["program"] - versions["student"]).mean(axis=2)
    height, width = (min(side, DETAIL) for side in error.shape)
    window: Any = (height, width)
    spread = uniform_filter(error, window, mode="constant")
    # A window's centre, so that the window lies inside.
    inner = spread[height // 2 : error.shape[0] - (height - 1) // 2, width // 2 : error.shape[1] - (width - 1) // 2]
    top, left = (int(at) for at in np.unravel_index(int(np.argmax(inner)), inner.shape))
    cut = {name: picture[top : top + height, left : left + width] for name, picture in versions.items()}
    return _sample(run, cut, iteration, scorer.student.truth[iteration].psnr, run.truth[iteration].psnr)


def _sample(run: Run, versions: Mapping[str, Array], iteration: int, student: float, program: float) -> Sample:
    return Sample(
        condition=run.condition,
        picture=run.picture,
        candidate=run.candidate,
        iteration=iteration,
        images={name: _data_uri(picture) for name, picture in versions.items()},
        psnr={"degraded": round(run.truth[0].psnr, 2), "student": round(student, 2), "program": round(program, 2)},
        drop_db=round(capped_db(student) - capped_db(program), 3),
    )


def _data_uri(picture: Array) -> str:
    stream = io.BytesIO()
    image = Image.fromarray(to_pixels(picture))
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    image.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
