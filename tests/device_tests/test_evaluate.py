"""A candidate that is in no bundle, judged on a few tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burnish.device_tests.eager import EagerSession
from burnish.device_tests.evaluate import Evaluator, Trial
from burnish.device_tests.summary import SAME_STOP
from burnish.device_tests.trajectory import run_restorer, run_session
from burnish.distill.student import Student
from burnish.distill.weights import Trained
from burnish.runtime import Bundle, InputError, Restorer, backends
from numpy.typing import NDArray

PHOTOS = Path(__file__).parents[2] / "recipes" / "photos"
TRIAL = Trial(photos=PHOTOS / "dev", pictures=2, conditions=("noise-25", "haze-heavy"), iterations=3)


class Darkening(EagerSession):
    """The student, but for two levels of brightness lost in every iteration: what int8 is known to do."""

    def refine(self, *asked: Any) -> tuple[NDArray, float]:
        restored, quality = super().refine(*asked)
        return restored - np.float32(2 / 255), quality


@pytest.fixture(scope="module")
def evaluate(student: Student) -> Evaluator:
    return Evaluator(Trained(student), 64, TRIAL)


def test_the_student_loses_nothing_to_itself(evaluate: Evaluator, student: Student) -> None:
    measured = evaluate(EagerSession(student), "executorch-xnnpack-int8")
    assert measured.passed
    drops = measured.drops("executorch-xnnpack-int8")
    assert set(drops) == {(c, i) for c in TRIAL.conditions for i in (1, 2, 3)}
    assert set(drops.values()) == {0.0}


def test_a_program_that_darkens_is_caught(evaluate: Evaluator, student: Student) -> None:
    measured = evaluate(Darkening(student), "executorch-xnnpack-int8")
    assert "brightness bias, 1/255" in {f.metric for f in measured.failures}
    row = measured.row("noise-25", ("executorch-xnnpack-int8", None), 1)
    assert row is not None
    assert row.student is not None
    assert row.student.bias == pytest.approx(-2.0, abs=0.5)  # black stays black
    drift = next(d for d in measured.drifts if d.condition == "noise-25")
    # The mirror image's result is as dark as the first one, and so is the mean; from there on it adds up: this student,
    # untrained, sees haze everywhere and keeps tiles upright.
    assert drift.rms[1] == pytest.approx(drift.rms[0], rel=0.05)
    assert drift.rms[2] > 1.5 * drift.rms[1]


def test_one_tile_goes_the_way_it_goes_in_the_runtime(bundle_path: Path, photo: NDArray) -> None:
    bundle = Bundle.open(bundle_path)
    backend, program = backends.choose(bundle, "auto", "onnx-fp32")
    session = backends.load(bundle, backend, program)
    side = bundle.manifest.tile
    tile = np.round(photo[100 : 100 + side, 180 : 180 + side] * 255).astype(np.float32) / 255
    runtime = run_restorer(Restorer(bundle, program, backend, session), tile, 3)
    alone = run_session(session, bundle.manifest.routing, bundle.manifest.student.rank, tile, 3)
    (mine,), (theirs,) = alone.qualities, runtime.qualities
    np.testing.assert_allclose(mine[:3], theirs[:3], atol=1e-6)
    assert mine.prospect == pytest.approx(theirs.prospect, abs=1e-6)
    ours, theirs = ([list(gates.values()) for gates in run.gates] for run in (alone, runtime))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_array_equal(alone.pictures, runtime.pictures)


def test_an_unknown_condition_is_named(student: Student) -> None:
    with pytest.raises(InputError, match="hail"):
        Evaluator(Trained(student), 64, TRIAL.model_copy(update={"conditions": ("hail",)}))


@pytest.mark.parametrize(("qualities", "stop"), [((0.99, 0.995, 0.999), 2), ((0.0, 0.0, 0.0), 1)])
def test_stopping_is_decided_by_the_candidates_own_predictions(
    evaluate: Evaluator, student: Student, qualities: tuple[float, ...], stop: int
) -> None:
    class Opinionated(EagerSession):
        calls = 0

        def refine(self, *asked: Any) -> tuple[NDArray, float]:
            self.calls += 1
            return super().refine(*asked)[0], qualities[(self.calls - 1) % 3]

    measured = evaluate(Opinionated(student), "executorch-xnnpack-int8")
    pooled = next(d for d in measured.decisions if d.condition == "all")
    assert pooled.mean_stop[0] == stop
    agree = pooled.mean_stop[1] == stop
    assert {f.metric for f in measured.failures} == (set() if agree else {SAME_STOP})
