"""reports/perf.json: what was measured, on which device, with what. docs/devices.md explains every field."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence

from pydantic import Field

from ..runtime.bundle import Program
from .devices.facts import Identity
from .operations import Kernels, Operation
from .records import Record

FORMAT = 1
PERF = "perf.json"
EMULATED = "emulated, not a measurement"


class Timing(Record):
    """Milliseconds over all timed runs."""

    runs: int
    mean_ms: float
    deviation_ms: float = Field(description="standard deviation")
    p50_ms: float
    p90_ms: float
    p99_ms: float
    least_ms: float


class Temperature(Record):
    """°C of the hottest processor; null where the device does not say."""

    before_c: float | None = None
    after_c: float | None = None
    waited_s: float = Field(default=0.0, description="for it to cool down between blocks of runs")


class Agreement(Record):
    """Restored test tiles of the device against another computation of the same tiles; worst of all of them."""

    max_difference: float = Field(description="of pixels in [0, 1]")
    within_one_level: float = Field(description="share of values within 1/255")
    psnr_db: float = Field(description="of the worst tile; 100 where equal")


class ProgramPerf(Record):
    """One program on one device with so many threads."""

    program: str
    sha256: str = Field(description="of its files, so that another export is told apart")
    runner: str = Field(description="what ran it, with its version")
    threads: int
    note: str = Field(default="", description=f"{EMULATED!r} where the times mean nothing")
    encode: Timing
    refine: Timing
    iteration: Timing = Field(description="one encode and one refine, run by run")
    drift: float = Field(description="median of the last block of runs by that of the first")
    throttled: bool = Field(description="the drift is above the plan's limit")
    load_cold_ms: float = Field(description="median over blocks: a new process, the file out of the page cache")
    load_warm_ms: float
    first_run_ms: float
    program_bytes: int = Field(description="resident at most, above the process without a program")
    process_bytes: int
    temperature: Temperature
    governor: str | None = None
    free_bytes: int | None = None
    rails_mw: dict[str, float] = Field(default_factory=dict, description="mean power of each rail while it ran")
    energy_mj: float | None = Field(default=None, description="millijoules an iteration, of the whole board's rail")
    operations: tuple[Operation, ...] = ()
    kernels: Kernels | None = None
    digest: str = Field(description="of all outputs of sample 0; equal over all runs, or the profile fails")
    against_host: Agreement | None = Field(default=None, description="the same program run by the host")
    against_student: Agreement | None = Field(default=None, description="the full-precision student")


class DevicePerf(Record):
    """Everything of one device. `failure`: why there is nothing more."""

    device: str
    identity: Identity | None = None
    programs: tuple[ProgramPerf, ...] = ()
    failure: str | None = None


class Perf(Record):
    """The whole profile of a bundle."""

    format: int = FORMAT
    bundle: str
    student: str
    made: str = Field(description="UTC, ISO 8601")
    versions: dict[str, str] = Field(description="of burnish and the libraries on the host")
    devices: tuple[DevicePerf, ...]

    @property
    def measured(self) -> list[tuple[DevicePerf, ProgramPerf]]:
        """What tables may show: everything but what an emulator ran."""
        return [(d, p) for d in self.devices for p in d.programs if not p.note]


def program_digest(program: Program) -> str:
    """SHA-256 of the hashes of a program's files: another export is another program."""
    return hashlib.sha256("".join(file.sha256 for file in program.files).encode()).hexdigest()


def timing(values: Sequence[float]) -> Timing:
    """Statistics of milliseconds. Percentiles are measured values (nearest rank), never interpolated."""
    ordered = sorted(values)

    def percentile(share: float) -> float:
        return ordered[max(0, -(-int(share * len(ordered)) // 100) - 1)]

    return Timing(
        runs=len(ordered),
        mean_ms=round(statistics.fmean(ordered), 4),
        deviation_ms=round(statistics.pstdev(ordered), 4),
        p50_ms=round(statistics.median(ordered), 4),
        p90_ms=round(percentile(90), 4),
        p99_ms=round(percentile(99), 4),
        least_ms=round(ordered[0], 4),
    )
