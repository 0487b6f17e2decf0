"""What trajectories over one picture are worth, against the truth and against the student's."""

from __future__ import annotations

from ..runtime.controller import Policy
from .decisions import replay, returned
from .metrics import Comparison, View, compare, psnr
from .numerics import BASELINE, TEACHER, Run
from .pairs import Pair
from .protocol import Condition
from .trajectory import Trajectory


class Scorer:
    """One pair and the full-precision student's trajectory over it; comparing works out the references once."""

    def __init__(self, condition: Condition, pair: Pair, student: Trajectory) -> None:
        self.condition, self.pair = condition, pair
        self._truth = View(pair.clean)
        self._start: Comparison = compare(View.shown(pair.degraded), self._truth)
        self._student = tuple(View.shown(picture) for picture in student.pictures)
        self.student: Run = self._run(student, self._student, BASELINE, None, ())

    def score(self, trajectory: Trajectory, program: str, device: str | None = None) -> Run:
        """A program's trajectory of as many iterations; `device`: where it ran, None for this machine."""
        views = tuple(View.shown(picture) for picture in trajectory.pictures)
        near = tuple(compare(view, student) for view, student in zip(views, self._student, strict=True))
        return self._run(trajectory, views, program, device, near)

    def score_teacher(self, trajectory: Trajectory) -> Run:
        """A teacher's rounds, against the truth alone."""
        return self._run(trajectory, tuple(View.shown(p) for p in trajectory.pictures), TEACHER, None, ())

    def _run(
        self,
        trajectory: Trajectory,
        views: tuple[View, ...],
        candidate: str,
        device: str | None,
        near: tuple[Comparison, ...],
    ) -> Run:
        degraded = self.pair.degraded
        outcomes = replay(trajectory, Policy(max_iterations=len(views))) if trajectory.qualities else ()
        kept = returned(trajectory, degraded, outcomes) if outcomes else trajectory.pictures[-1]
        return Run(
            condition=self.condition.name,
            group=self.condition.group,
            picture=self.pair.name,
            candidate=candidate,
            device=device,
            truth=(self._start, *(compare(view, self._truth) for view in views)),
            student=near,
            gates=trajectory.gates,
            outcomes=outcomes,
            returned_psnr=psnr(kept, self._truth.rgb),
        )
