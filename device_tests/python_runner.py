"""The Python runner: does a job on the machine it is started on, with burnish's own runtime.

    python -m burnish.device_tests.python_runner JOB OUT

It takes what the C++ runner takes and writes the same. Needs what `burnish.runtime` needs, no torch.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ..runtime import restoration as runtime
from ..runtime.backends import load_session
from ..runtime.backends.base import Array, Encoded, Session
from ..runtime.cores import usable_cores
from ..runtime.errors import BurnishError
from ..runtime.pictures import from_array
from ..runtime.run import Engine, Run
from .job import (
    FORMAT,
    JOB,
    OUTPUTS,
    PICTURES,
    RESTORED,
    RESULT,
    SAMPLES,
    Event,
    Job,
    JobResult,
    Load,
    Measure,
    Measured,
    MemoryUse,
    Restore,
    Restored,
    Round,
)
from .rails import Rails

Tensors = dict[str, NDArray[Any]]
# Backends that are not called as the module that knows their version.
_VERSIONED = {"executorch": "executorch.version", "coreml": "coremltools", "coreml-reference": "coremltools"}


def run_job(folder: Path, out: Path) -> None:
    """Do the job in `folder` and write what it gave into `out`, result.json last. Raises BurnishError, OSError."""
    job = Job.model_validate_json((folder / JOB).read_bytes())
    # A step that hangs must not outlive the job on a device nobody watches.
    signal.alarm(job.limit_s)
    program = (folder / job.program).resolve()
    samples: Tensors = load_file(folder / SAMPLES) if (folder / SAMPLES).is_file() else {}
    for file in filter(Path.is_file, program.rglob("*")):
        _drop_from_cache(file)
    before, began = _resident(), time.perf_counter()
    session = load_session(job.backend, program, job.threads or None)
    loaded = time.perf_counter()
    result: dict[str, Any] = {
        "format": FORMAT,
        "runner": _runner(job.backend),
        "threads": job.threads or usable_cores(),
    }
    if job.measure is not None:
        _run(session, samples, 0)
        first = time.perf_counter()
        peak = _peak()
        result["memory"] = MemoryUse(program_bytes=max(0, peak - before), process_bytes=peak)
        result["measure"] = _measure(session, samples, job.measure)
        reload = time.perf_counter()
        load_session(job.backend, program, job.threads or None)
        result["load"] = Load(
            cold_ms=(loaded - began) * 1e3,
            first_run_ms=(first - loaded) * 1e3,
            warm_ms=(time.perf_counter() - reload) * 1e3,
        )
    if job.samples is not None:
        count = sum(1 for name in samples if name.endswith(".image"))
        kept = {f"{i}.{name}": array for i in range(count) for name, array in _run(session, samples, i).items()}
        _save(
            {key: array for key, array in kept.items() if key.partition(".")[2] in job.samples.outputs}, out / SAMPLES
        )
    if job.restore is not None:
        restored, pictures = _restore(session, job, job.restore, load_file(folder / PICTURES))
        result["restorations"] = restored
        _save(pictures, out / RESTORED)
    text = JobResult.model_validate(result).model_dump_json(indent=1, exclude_none=True)
    beside = out / f"{RESULT}.part"
    beside.write_text(text + "\n")
    beside.replace(out / RESULT)


def _run(session: Session, samples: Tensors, index: int) -> Tensors:
    """All outputs of both methods for a sample."""
    image, gates = samples[f"{index}.image"], samples[f"{index}.gates"]
    current = samples.get(f"{index}.current")
    original = session.encode(image)
    estimate = original if current is None else session.encode(current)
    restored, quality = session.refine(image if current is None else current, original, estimate, gates)
    values = (*(np.asarray(f) for f in original.features), original.tokens, _assessment(original))
    return dict(zip(OUTPUTS, (*values, restored, np.array([quality], np.float32)), strict=True))


def _assessment(encoded: Encoded) -> Array:
    return np.array([encoded.quality, encoded.granularity, *encoded.logits], np.float32)


def _measure(session: Session, samples: Tensors, plan: Measure) -> Measured:
    image, gates = samples["0.image"], samples["0.gates"]
    current = samples.get("0.current", image)
    encode_ms: list[float] = []
    refine_ms: list[float] = []
    digests: list[str] = []
    rails = Rails()
    for run in range(plan.warm_up + plan.runs):
        if run == plan.warm_up:
            rails.start()
        began = time.perf_counter()
        encoded = session.encode(image)
        between = time.perf_counter()
        restored, quality = session.refine(current, encoded, encoded, gates)
        ended = time.perf_counter()
        if run >= plan.warm_up:
            encode_ms.append((between - began) * 1e3)
            refine_ms.append((ended - between) * 1e3)
        digest = hashlib.sha256(restored.tobytes())
        for array in (*encoded.features, encoded.tokens, _assessment(encoded), np.float32(quality)):
            digest.update(np.asarray(array).tobytes())
        digests.append(digest.hexdigest()[:16])
    return Measured(
        encode_ms=tuple(encode_ms),
        refine_ms=tuple(refine_ms),
        distinct_outputs=len(set(digests)),
        digest=digests[0],
        rails_mw=rails.stop(),
    )


def _restore(session: Session, job: Job, task: Restore, pictures: Tensors) -> tuple[list[Restored], Tensors]:
    engine = Engine(
        session=session,
        program=job.program,
        backend=job.backend,
        tile=task.tile,
        rank=task.rank,
        routing=task.routing,
        calibration=task.calibration,
        keep=task.keep,
    )
    rows: list[Restored] = []
    found: Tensors = {}
    for name, pixels in sorted(pictures.items()):
        picture = from_array(pixels)
        run = Run(engine, picture, task.policy, None, task.keep_steps, lambda: False, time.perf_counter())
        for _ in run.updates():
            pass
        result = run.result()
        found[name] = result.picture.pixels
        found |= {f"{name}.{i}": picture.with_rgb(rgb).pixels for i, rgb in enumerate(result.steps_rgb)}
        rows.append(
            Restored(
                name=name,
                iteration=result.iteration,
                quality=result.quality,
                reason=result.reason.value,
                elapsed_ms=result.elapsed_ms,
                tiles=result.tiles,
                steps=tuple(Round(**vars(step)) for step in result.steps),
                trace=tuple(_event(event) for event in result.trace),
            )
        )
    return rows, found


def _event(event: runtime.Event) -> Event:
    broken = event.quality is not None and event.quality != event.quality
    values: dict[str, Any] = vars(event) | ({"quality": None} if broken else {})
    return Event(**values, broken=broken)


def _save(tensors: Tensors, path: Path) -> None:
    beside = path.with_suffix(".part")
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, beside)
    beside.replace(path)


def _runner(backend: str) -> str:
    module = import_module(_VERSIONED.get(backend, backend))
    return f"python, {backend} {getattr(module, '__version__', '')}".strip()


def _drop_from_cache(path: Path) -> None:
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are still to be written cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _resident() -> int:
    return _status("VmRSS:")


def _peak() -> int:
    return _status("VmHWM:")


def _status(name: str) -> int:
    """Bytes by /proc/self/status; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def main() -> int:
    """Entry point; errors are one line."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python -m burnish.device_tests.python_runner JOB OUT\n")
        return 2
    try:
        run_job(Path(sys.argv[1]), Path(sys.argv[2]))
    except (BurnishError, OSError, KeyError, ValueError) as error:
        sys.stderr.write("error: " + " ".join(str(error).split()) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
