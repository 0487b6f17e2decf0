"""A device set up to do jobs: a workspace with the runners and programs that were needed so far, and results checked."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..runtime.bundle import Bundle, Program
from ..runtime.errors import DeviceError
from .devices import Device, Identity
from .job import ETDUMP, JOB, PICTURES, RESTORED, RESULT, SAMPLES, Job, JobResult
from .runners import Runner, runner_for

Tensors = Mapping[str, NDArray[Any]]
# On top of a job's own limit, for starting and for slow links.
GRACE_S = 30.0


class Outcome(NamedTuple):
    """What a job gave. `etdump`: the file's bytes."""

    result: JobResult
    samples: dict[str, NDArray[Any]]
    pictures: dict[str, NDArray[Any]]
    etdump: bytes


class Bench:
    """Jobs of one bundle on one device; nothing of them stays there."""

    def __init__(self, device: Device, bundle: Bundle) -> None:
        self.device, self.bundle = device, bundle
        self.identity: Identity = device.identity()
        self._space = device.workspace()
        self._commands: dict[str, list[str]] = {}
        self._programs: dict[str, str] = {}
        self._jobs = 0

    def __enter__(self) -> Bench:
        self._space.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._space.__exit__(kind, error, trace)

    def run(
        self, program: Program, job: Job, samples: Tensors | None = None, pictures: Tensors | None = None
    ) -> Outcome:
        """Do a job with a program of the bundle; its `program` and `backend` are filled in here. Raises DeviceError.

        `samples`: float32 `0.image`, `0.gates`, …; `pictures`: uint8 H×W×3 by name.
        """
        runner = runner_for(self.device, self.identity, program)
        command = self._install(runner)
        place = self._push_program(program, runner)
        name = f"job{self._jobs}"
        self._jobs += 1
        self._space.make_folder(name)
        self._space.make_folder(name, "out")
        job = job.model_copy(update={"program": f"../{place}", "backend": runner.backend})
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch)
            (local / JOB).write_text(job.model_dump_json(indent=1, exclude_none=True) + "\n")
            for file, tensors in ((SAMPLES, samples), (PICTURES, pictures)):
                if tensors:
                    save_file(dict(tensors), local / file)
            for file in sorted(local.iterdir()):
                self._space.push(file, name, file.name)
            arguments = [*command, self._space.path(name), self._space.path(name, "out")]
            done = self._space.run(arguments, job.limit_s + GRACE_S)
            if done.status:
                raise DeviceError(f"{self.device.spec}: {program.name}: the runner failed: {done.reason}")
            outcome = self._collect(job, name, local)
        self._space.remove(name)
        return outcome

    def _install(self, runner: Runner) -> list[str]:
        """Push a runner once; the command that starts it."""
        if runner.name not in self._commands:
            with runner.files() as files:
                self._space.make_folder(runner.name)
                for file in files:
                    self._space.push(file, runner.name, file.name)
            self._commands[runner.name] = runner.command(self._space)
        return self._commands[runner.name]

    def _push_program(self, program: Program, runner: Runner) -> str:
        """Push a program's checked files once; what a job calls it."""
        if program.name not in self._programs:
            folder = self.bundle.program_folder(program)
            place = f"program{len(self._programs)}"
            self._space.make_folder(place)
            files = [(self.bundle.path / file.path).relative_to(folder) for file in program.files]
            # A Core ML package is a folder of folders; the outer ones come first.
            for inside in sorted({parent for file in files for parent in file.parents if parent.name}):
                self._space.make_folder(place, *inside.parts)
            for file in files:
                self._space.push(folder / file, place, *file.parts)
            self._programs[program.name] = f"{place}/{runner.file}".rstrip("/")
        return self._programs[program.name]

    def _collect(self, job: Job, name: str, local: Path) -> Outcome:
        results = local / "out"
        results.mkdir()

        def pull(file: str) -> Path:
            self._space.pull(results / file, name, "out", file)
            return results / file

        try:
            return Outcome(
                JobResult.model_validate(json.loads(pull(RESULT).read_bytes())),
                load_file(pull(SAMPLES)) if job.samples else {},
                load_file(pull(RESTORED)) if job.restore else {},
                pull(ETDUMP).read_bytes() if job.etdump_runs else b"",
            )
        except (ValueError, SafetensorError) as error:
            detail = " ".join(str(error).split())[:200]
            raise DeviceError(
                f"{self.device.spec}: what the runner wrote cannot be read ({detail}); run again"
            ) from None
