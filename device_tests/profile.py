"""Latency, load time, memory, heat, kernels and determinism of a bundle's programs on devices; several devices at once."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..runtime.bundle import MANIFEST, Bundle, Profile, Program
from ..runtime.errors import BurnishError, DeviceError, InputError
from ..runtime.files import replace
from .agreement import agreement, restored_tiles, student_tiles
from .android_app import measure_by_app
from .bench import Bench, Outcome
from .devices import Device, State, open_device
from .inputs import comparison_samples
from .job import Job, JobResult, Measure, Samples
from .operations import Kernels, Operation, declared_float, kernels, read_operations
from .perf import EMULATED, PERF, Agreement, DevicePerf, Perf, ProgramPerf, Temperature, program_digest, timing
from .records import Record, read_record
from .runners import NATIVE_TARGETS, runner_for
from .unfinished import Unfinished

# Device, what it does now, steps done, steps in all.
Progress = Callable[[str, str, int, int], None]
Open = Callable[[str], Device]
LIBRARIES = ("burnish", "executorch", "onnxruntime", "torch")
# A device may be this much warmer than it was at the start before a block of runs begins.
WARMER_C = 5.0
POLL_S = 2.0
# The rail that feeds a whole Jetson board, by module.
BOARD_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")


class Plan(Record):
    """What to measure. Blocks are processes of their own; programs take turns, so that slow phases hit all alike."""

    programs: tuple[str, ...] = ()
    threads: tuple[int, ...] = Field(default=(0,), description="0: the library's own choice")
    warm_up: int = Field(default=3, ge=0)
    runs: int = Field(default=50, ge=1, description="timed runs of each program, over all blocks")
    blocks: int = Field(default=5, ge=1)
    max_temperature_c: float | None = Field(default=None, description="wait below it; null: near where it started")
    max_wait_s: float = Field(default=60.0, ge=0, description="of all waits of a device")
    max_drift: float = Field(default=1.1, gt=0, description="above, the program counts as throttled")
    limit_s: int = Field(default=300, ge=1, description="of one block of runs")

    def on(self, emulated: bool) -> Plan:
        """What of it makes sense on a device: an emulator's time says nothing, so it runs as little as proves the rest."""
        return self.model_copy(update={"warm_up": 0, "runs": 1, "blocks": 1}) if emulated else self


def profile(
    bundle: Bundle,
    devices: Sequence[str],
    plan: Plan,
    folder: Path,
    progress: Progress,
    opener: Open = open_device,
    *,
    by_app: bool = False,
) -> Perf:
    """Measure on all devices at once and write `folder`/perf.json.

    A device that fails does so alone, with its reason in its row. What was finished is kept beside the report until all
    devices are done: started again, a profile goes on. Rows of other devices that perf.json holds already stay. `by_app`: the
    demo app measures on Android phones. Raises BundleError for an unknown program, InputError for a device given twice.
    """
    for name in plan.programs:
        bundle.program(name)
    if len(set(devices)) < len(devices):
        raise InputError(f"a device is given twice: {', '.join(devices)}; expected each once")
    manifest = bundle.manifest.model_dump(mode="json", exclude={"profiles", "provenance"})
    unfinished = Unfinished(folder, [manifest, plan.model_dump(mode="json"), version("burnish")])

    def one(spec: str) -> DevicePerf:
        try:
            if by_app and spec.startswith("adb:"):
                return _by_app(bundle, spec, plan, progress, opener)
            return _DeviceRun(bundle, spec, plan, unfinished, progress, opener).measure()
        except BurnishError as error:
            return DevicePerf(device=spec, failure=str(error))

    with ThreadPoolExecutor(len(devices)) as pool:
        rows = tuple(pool.map(one, devices))
    perf = Perf(
        bundle=bundle.path.resolve().name,
        student=bundle.manifest.student.size,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=_versions(),
        devices=(*(row for row in _earlier(folder, bundle) if row.device not in devices), *rows),
    )
    write_perf(perf, folder)
    if all(row.failure is None for row in rows):
        unfinished.clear()
    return perf


def _by_app(bundle: Bundle, spec: str, plan: Plan, progress: Progress, opener: Open) -> DevicePerf:
    device = opener(spec)

    def say(what: str) -> None:
        progress(spec, what, 0, 1)

    try:
        return measure_by_app(device, bundle, plan.programs, plan.threads, plan.runs, plan.limit_s, say)
    finally:
        device.close()


def write_perf(perf: Perf, folder: Path) -> None:
    """Write `folder`/perf.json. Raises InputError."""
    folder.mkdir(parents=True, exist_ok=True)
    text = perf.model_dump_json(indent=1) + "\n"
    replace(folder / PERF, lambda beside: beside.write_text(text))


def read_perf(path: Path) -> Perf:
    """Read perf.json. Raises InputError."""
    return read_record(path, Perf, "burnish profile")


def seed_profiles(bundle: Bundle, perf: Perf) -> list[Profile]:
    """Put what was measured into the bundle's manifest, for the cost model; what was put there.

    Of several thread counts the fastest counts; what an emulator ran does not. Raises InputError.
    """
    best: dict[tuple[str, str], Profile] = {}
    for device, row in sorted(perf.measured, key=lambda pair: -pair[1].iteration.p50_ms):
        assert device.identity is not None
        kind = device.identity.device_class
        best[kind, row.program] = Profile(
            device=kind,
            program=row.program,
            encode_ms=(row.encode.mean_ms, row.encode.deviation_ms),
            refine_ms=(row.refine.mean_ms, row.refine.deviation_ms),
        )
    kept = [p for p in bundle.manifest.profiles if (p.device, p.program) not in best]
    manifest = bundle.manifest.model_copy(update={"profiles": (*kept, *best.values())})
    text = json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n"
    replace(bundle.path / MANIFEST, lambda beside: beside.write_text(text))
    return list(best.values())


class _DeviceRun:
    """The profile of one device."""

    def __init__(
        self, bundle: Bundle, spec: str, plan: Plan, unfinished: Unfinished, progress: Progress, opener: Open
    ) -> None:
        self._bundle, self._spec, self._plan = bundle, spec, plan
        self._unfinished, self._progress, self._open = unfinished, progress, opener
        self._done, self._total, self._waited_s = 0, 1, 0.0
        self._samples = comparison_samples(bundle)

    def measure(self) -> DevicePerf:
        self._say("connect", 0)
        device = self._open(self._spec)
        try:
            bench = Bench(device, self._bundle)
            programs = self._programs(bench)
            emulated = bool(bench.identity.emulated)
            plan = self._plan.on(emulated)
            self._total = plan.blocks * len(plan.threads) * len(programs) + len(programs)
            start = device.state()
            with bench:
                rows: list[ProgramPerf] = []
                for threads in plan.threads:
                    blocks: dict[str, list[JobResult]] = {program.name: [] for program in programs}
                    for block in range(plan.blocks):
                        for program in programs:
                            if not emulated:
                                self._cool_down(device, start)
                            blocks[program.name].append(self._block(bench, program, plan, threads, block))
                    end = device.state()
                    rows += [self._row(bench, p, plan, blocks[p.name], start, end) for p in programs]
                    self._waited_s = 0.0
                examined = {program.name: self._examined(bench, program) for program in programs}
                rows = [row.model_copy(update=dict(examined[row.program])) for row in rows]
            return DevicePerf(device=self._spec, identity=bench.identity, programs=tuple(rows))
        finally:
            device.close()

    def _say(self, what: str, steps: int = 1) -> None:
        self._done += steps
        self._progress(self._spec, what, self._done, self._total)

    def _programs(self, bench: Bench) -> list[Program]:
        """The programs asked for, or all that the device runs. Raises DeviceError."""
        found: list[Program] = []
        for program in self._bundle.manifest.programs:
            if self._plan.programs and program.name not in self._plan.programs:
                continue
            try:
                runner_for(bench.device, bench.identity, program)
                found.append(program)
            except DeviceError:
                # Asked for by name, it must run; otherwise it is left to other devices.
                if self._plan.programs:
                    raise
        if not found:
            raise DeviceError(f"{self._spec}: nothing there runs a program of {self._bundle.path}; export one for it")
        return found

    def _cool_down(self, device: Device, start: State) -> None:
        limit = self._plan.max_temperature_c
        if limit is None and start.temperature_c is not None:
            limit = start.temperature_c + WARMER_C
        while limit is not None and self._waited_s < self._plan.max_wait_s:
            now = device.state().temperature_c
            if now is None or now <= limit:
                return
            self._say(f"{now:.0f} °C, waiting for {limit:.0f} °C", 0)
            time.sleep(POLL_S)
            self._waited_s += POLL_S

    def _block(self, bench: Bench, program: Program, plan: Plan, threads: int, block: int) -> JobResult:
        self._say(program.name)
        key = f"{self._spec} {bench.identity.model_dump_json()} {program.name} {threads} {block}"
        known = self._unfinished.read(key, JobResult)
        if known is not None:
            return known
        runs = plan.runs // plan.blocks + (block < plan.runs % plan.blocks)
        job = Job(
            program="",
            threads=threads,
            limit_s=plan.limit_s,
            measure=Measure(warm_up=plan.warm_up, runs=max(1, runs)),
        )
        result = bench.run(program, job, self._samples).result
        self._unfinished.write(key, result)
        return result

    def _row(
        self, bench: Bench, program: Program, plan: Plan, blocks: Sequence[JobResult], start: State, end: State
    ) -> ProgramPerf:
        measured = [block.measure for block in blocks if block.measure is not None]
        digests = {m.digest for m in measured}
        if len(digests) > 1 or any(m.distinct_outputs > 1 for m in measured):
            raise DeviceError(
                f"{self._spec}: {program.name} gave different outputs for the same input; its results cannot be trusted"
            )
        iterations = [[e + r for e, r in zip(m.encode_ms, m.refine_ms, strict=True)] for m in measured]
        drift = statistics.median(iterations[-1]) / statistics.median(iterations[0])
        loads = [block.load for block in blocks if block.load is not None]
        uses = [block.memory for block in blocks if block.memory is not None]
        rails = _mean([m.rails_mw for m in measured])
        iteration = timing([ms for block in iterations for ms in block])
        board = next((rails[name] for name in BOARD_RAILS if name in rails), None)
        return ProgramPerf(
            program=program.name,
            sha256=program_digest(program),
            runner=blocks[0].runner,
            threads=blocks[0].threads,
            note=EMULATED if bench.identity.emulated else "",
            encode=timing([ms for m in measured for ms in m.encode_ms]),
            refine=timing([ms for m in measured for ms in m.refine_ms]),
            iteration=iteration,
            drift=round(drift, 4),
            throttled=drift > plan.max_drift and not bench.identity.emulated,
            load_cold_ms=round(statistics.median(load.cold_ms for load in loads), 3),
            load_warm_ms=round(statistics.median(load.warm_ms for load in loads), 3),
            first_run_ms=round(statistics.median(load.first_run_ms for load in loads), 3),
            program_bytes=max(use.program_bytes for use in uses),
            process_bytes=max(use.process_bytes for use in uses),
            temperature=Temperature(
                before_c=start.temperature_c, after_c=end.temperature_c, waited_s=round(self._waited_s, 1)
            ),
            governor=end.governor,
            free_bytes=end.free_bytes,
            rails_mw={name: round(power, 1) for name, power in rails.items()},
            energy_mj=None if board is None else round(board * iteration.mean_ms / 1e3, 3),
            digest=measured[0].digest,
        )

    def _examined(self, bench: Bench, program: Program) -> _Examination:
        """Operations, kernels and accuracy of a program; they do not depend on the number of threads."""
        self._say(f"{program.name}: outputs and kernels")
        key = f"{self._spec} {bench.identity.model_dump_json()} {program.name} examined"
        found = self._unfinished.read(key, _Examination)
        if found is None:
            found = self._examine(bench, program)
            self._unfinished.write(key, found)
        return found

    def _examine(self, bench: Bench, program: Program) -> _Examination:
        native = program.target in NATIVE_TARGETS
        job = Job(program="", limit_s=self._plan.limit_s, samples=Samples(), etdump_runs=1 if native else None)
        outcome = bench.run(program, job, self._samples)
        operations: tuple[Operation, ...] = ()
        counted: Kernels | None = None
        if native:
            operations = read_operations(outcome.etdump, bool(bench.identity.emulated))
            counted = kernels(operations, declared_float(self._bundle.manifest.student))
        tiles = restored_tiles(outcome.samples)
        return _Examination(
            operations=operations,
            kernels=counted,
            against_host=None if self._spec == "host" else agreement(tiles, self._host_tiles(program, job)),
            against_student=agreement(tiles, student_tiles(self._bundle, self._samples)),
        )

    def _host_tiles(self, program: Program, job: Job) -> list[NDArray[np.float32]]:
        with _HOST, Bench(open_device("host"), self._bundle) as host:
            outcome: Outcome = host.run(program, job.model_copy(update={"etdump_runs": None}), self._samples)
        return restored_tiles(outcome.samples)


# Devices take turns on the host, which is being measured itself perhaps.
_HOST = threading.Lock()


class _Examination(Record):
    operations: tuple[Operation, ...]
    kernels: Kernels | None
    against_host: Agreement | None
    against_student: Agreement


def _earlier(folder: Path, bundle: Bundle) -> tuple[DevicePerf, ...]:
    """Rows of the same programs that perf.json holds; none where it is of another bundle or cannot be read."""
    if not (folder / PERF).is_file():
        return ()
    try:
        perf = read_perf(folder / PERF)
    except InputError:
        return ()
    now = {program.name: program_digest(program) for program in bundle.manifest.programs}
    return tuple(d for d in perf.devices if d.programs and all(now.get(p.program) == p.sha256 for p in d.programs))


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = rows[0] if rows else {}
    return {name: statistics.fmean(row[name] for row in rows if name in row) for name in names}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
