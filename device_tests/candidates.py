"""Loaded candidates on one picture: every program beside the full-precision student, and the teacher where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..distill.teachers.protocol import Teacher
from ..distill.weights import load_student, load_teacher
from ..runtime import backends
from ..runtime.bundle import Bundle, Program
from ..runtime.errors import BackendError, BundleError
from ..runtime.restorer import Restorer
from .eager import EagerSession
from .numerics import Run
from .on_device import DevicePrograms
from .pairs import Pair
from .protocol import Condition
from .samples import Sample, detail, whole
from .scores import Scorer
from .trajectory import run_restorer, run_teacher


class Result(NamedTuple):
    """One picture: a run a candidate, a detail a program, and the whole picture where it was asked for."""

    runs: tuple[Run, ...]
    details: tuple[Sample, ...]
    whole: Sample | None


class Candidates:
    """Everything that is compared, loaded."""

    def __init__(
        self,
        student: Restorer,
        programs: Mapping[str, Restorer],
        teacher: Teacher | None,
        device: DevicePrograms | None = None,
    ) -> None:
        self._student, self._programs, self._teacher, self._device = student, programs, teacher, device
        self._there = [] if device is None else device.runnable(list(programs))

    @classmethod
    def load(
        cls, bundle: Bundle, programs: Sequence[str], teacher: Path | None, threads: int, device: str | None = None
    ) -> Candidates:
        """Load the student, the named programs, here and on a device, and a teacher.

        Raises BackendError, BundleError, DeviceError, InputError.
        """
        session = EagerSession(load_student(bundle.file(bundle.manifest.weights)))
        student = Restorer(bundle, Program(target="student", precision="fp32", files=()), "eager", session)
        loaded: dict[str, Restorer] = {}
        for name in programs:
            backend, program = backends.choose(bundle, "auto", name)
            loaded[name] = Restorer(bundle, program, backend, backends.load(bundle, backend, program, threads))
        there = None if device is None else DevicePrograms(bundle, device)
        return cls(student, loaded, None if teacher is None else load_teacher(teacher), there)

    def close(self) -> None:
        """Let go of the device."""
        if self._device is not None:
            self._device.close()

    def measure(self, condition: Condition, pair: Pair, iterations: int, show: bool) -> Result:
        """Run and score all of them; `show`: keep the whole picture, of the first int8 program."""
        baseline = run_restorer(self._student, pair.degraded, iterations)
        scorer = Scorer(condition, pair, baseline)
        runs: list[Run] = []
        if self._teacher is not None:
            runs.append(scorer.score_teacher(run_teacher(self._teacher, pair.degraded, iterations)))
        runs.append(scorer.student)
        details: list[Sample] = []
        shown: Sample | None = None
        wanted = next((name for name in self._programs if name.endswith("int8")), next(iter(self._programs), None))
        for name, restorer in self._programs.items():
            trajectory = run_restorer(restorer, pair.degraded, iterations)
            run = scorer.score(trajectory, name)
            runs.append(run)
            details.append(detail(scorer, run, trajectory, baseline))
            if show and name == wanted:
                shown = whole(scorer, run, trajectory, baseline)
        if self._device is not None:
            for name in self._there:
                runs.append(scorer.score(self._device.run(name, pair.degraded, iterations), name, self._device.spec))
        return Result(tuple(runs), tuple(details), shown)


def runnable(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """The named programs, or without names those of the bundle that a backend here runs, evaluators of other platforms'
    programs aside. Raises BackendError, BundleError."""
    if not bundle.manifest.programs:
        raise BundleError(f"{bundle.path} has no programs; export some first")
    found: list[str] = []
    for name in names or [program.name for program in bundle.manifest.programs]:
        try:
            backend, _ = backends.choose(bundle, "auto", name)
            if names or backend not in backends.REFERENCES:
                found.append(name)
        except (BackendError, BundleError):
            # Asked for by name, it must run; otherwise what no backend here executes is left to other machines.
            if names:
                raise
    if not found:
        raise BackendError(f"no backend here runs a program of {bundle.path}; pip install 'burnish[export]'")
    return found
