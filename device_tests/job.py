"""A job: what a runner does on a device with one program, as a folder of files; the C++ and the Python runner take the same.

In: job.json, the program's files, samples.safetensors, pictures.safetensors. Out: samples.safetensors,
restored.safetensors, etdump.etdp, and result.json, which is written last. docs/devices.md has the schema.
"""

from __future__ import annotations

from pydantic import Field

from ..runtime.bundle import Bundle, Calibration, Program
from ..runtime.controller import Policy
from ..runtime.methods import ENCODE_OUTPUTS, REFINE_OUTPUTS
from ..runtime.routing import Prospect, Routing
from .records import Record

FORMAT = 1
JOB, RESULT = "job.json", "result.json"
SAMPLES, PICTURES, RESTORED, ETDUMP = (
    "samples.safetensors",
    "pictures.safetensors",
    "restored.safetensors",
    "etdump.etdp",
)
# Everything both methods give.
OUTPUTS = (*ENCODE_OUTPUTS, *REFINE_OUTPUTS)


class Measure(Record):
    """Timed runs of both methods on sample 0, after a warm-up."""

    warm_up: int = Field(default=3, ge=0)
    runs: int = Field(default=20, ge=1)


class Samples(Record):
    """Run both methods on every sample (`0.image`, `0.gates`, optionally `0.current`, …) and keep these outputs."""

    outputs: tuple[str, ...] = ("restored", "quality", "assessment")


class Restore(Record):
    """Run the whole loop on every picture (uint8 H×W×3); `keep_steps`: give every round's picture as `NAME.ROUND` too."""

    tile: int
    rank: int
    keep: int = Field(default=1_000_000, ge=1, description="of how many pictures features are kept")
    routing: Routing
    calibration: Calibration = Calibration()
    policy: Policy = Policy()
    keep_steps: bool = False

    @classmethod
    def by(cls, bundle: Bundle, program: Program, policy: Policy, *, keep_steps: bool = False) -> Restore:
        """With a program of a bundle, as the runtime would."""
        manifest = bundle.manifest
        return cls(
            tile=manifest.tile,
            rank=manifest.student.rank,
            routing=manifest.routing,
            calibration=program.calibration,
            policy=policy,
            keep_steps=keep_steps,
        )


class Job(Record):
    """job.json. `limit_s`: seconds after which the runner ends itself, since nobody may be watching."""

    format: int = FORMAT
    program: str = Field(description="a file (C++ runner), or a folder and its backend (Python runner)")
    backend: str = ""
    threads: int = Field(default=0, ge=0, description="0: the library's own choice")
    limit_s: int = Field(default=300, ge=1)
    measure: Measure | None = None
    samples: Samples | None = None
    etdump_runs: int | None = Field(default=None, ge=1)
    restore: Restore | None = None


class Measured(Record):
    """Milliseconds of every timed run; how many different outputs the runs gave, and a digest of the first."""

    encode_ms: tuple[float, ...]
    refine_ms: tuple[float, ...]
    distinct_outputs: int
    digest: str
    rails_mw: dict[str, float] = Field(default_factory=dict, description="mean power of each rail while it ran")


class Load(Record):
    """Milliseconds: loading with the file out of the page cache, the first run of both methods, loading again."""

    cold_ms: float
    first_run_ms: float
    warm_ms: float


class MemoryUse(Record):
    """Resident bytes at most: above what the process had before loading, and in all."""

    program_bytes: int
    process_bytes: int


class Event(Record):
    """One call of the program; fields as in `burnish.runtime.restoration.Event`, `broken` where its quality is NaN there."""

    ran: str
    tile: int
    iteration: int
    cost_ms: float
    elapsed_ms: float
    quality: float | None = None
    broken: bool = False
    prospect: Prospect | None = None
    difference: float = 0.0


class Round(Record):
    """The whole picture after a round of iterations; round 0 is the picture as it came."""

    iteration: int
    quality: float
    cost_ms: float
    elapsed_ms: float
    gates: dict[str, float]
    degradations: dict[str, float]


class Restored(Record):
    """How one picture's restoration went; fields as in `burnish.runtime.Restoration`."""

    name: str
    iteration: int
    quality: float
    reason: str
    elapsed_ms: float
    tiles: int
    steps: tuple[Round, ...]
    trace: tuple[Event, ...]


class JobResult(Record):
    """result.json."""

    format: int
    runner: str
    threads: int
    measure: Measured | None = None
    load: Load | None = None
    memory: MemoryUse | None = None
    restorations: tuple[Restored, ...] = ()
