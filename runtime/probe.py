"""Which backend is fastest here: measured once for a bundle's programs on this machine, and remembered.

Each candidate is loaded and run in a process of its own, so that one that crashes, or brings in libraries nobody will need, is
only a row of the table. What counts is the time of `STEPS` steps with loading: a backend that takes seconds to load has to
earn them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from . import backends, files
from .bundle import Bundle, Program
from .cores import usable_cores
from .errors import BackendError, BundleError, BurnishError
from .routing import gate_tensor, given_gates

STEPS = 100
REPETITIONS = 5
# TensorRT builds its engines at the first load.
LIMIT_S = 600
# What failed may have failed for want of memory or a driver: it is measured again after a day.
RETRY_S = 86_400


class Choice(NamedTuple):
    """A backend, the program it runs, and why these."""

    backend: str
    program: Program
    reason: str


class Row(BaseModel):
    """One candidate; `failed` says why it does not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    program: str
    load_ms: float = 0.0
    encode_ms: float = 0.0
    refine_ms: float = 0.0
    failed: str = ""

    @property
    def total_ms(self) -> float:
        """Milliseconds of `STEPS` steps with loading."""
        return self.load_ms + STEPS * (self.encode_ms + self.refine_ms)

    def __str__(self) -> str:
        if self.failed:
            return f"{self.program} on {self.backend}: {self.failed}"
        step = self.encode_ms + self.refine_ms
        return f"{self.program} on {self.backend}: {step:.1f} ms a step, loaded in {self.load_ms / 1e3:.1f} s"


class Table(BaseModel):
    """What was measured of a bundle on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[Row, ...]


def pick(bundle: Bundle, backend: str = "auto", program: str | None = None, threads: int | None = None) -> Choice:
    """The backend and program to use; with "auto" and several candidates the fastest. Raises BackendError, BundleError."""
    name, first = backends.choose(bundle, backend, program)
    if backend != "auto":
        return Choice(name, first, f"{name} was asked for")
    candidates = _candidates(bundle, program)
    if len(candidates) < 2:
        return Choice(name, first, f"{name} is the only backend here that runs {program or 'a program of the bundle'}")
    rows = _measured(bundle, candidates, threads)
    working = sorted((row for row in rows if not row.failed), key=lambda row: row.total_ms)
    if not working:
        return Choice(name, first, "; ".join(["no candidate could be measured, so the first", *map(str, rows)]))
    losers = [row for row in rows if row is not working[0]]
    reason = "; ".join([f"fastest here over {STEPS} steps with loading: {working[0]}", *map(str, losers)])
    return Choice(working[0].backend, bundle.program(working[0].program), reason)


def cache_folder() -> Path:
    """Where measurements are remembered: $XDG_CACHE_HOME/burnish."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "burnish"


def _candidates(bundle: Bundle, program: str | None) -> list[tuple[str, Program]]:
    """Every backend that is installed here, but for references, with the best program it has."""
    found: list[tuple[str, Program]] = []
    for name in backends.BACKENDS:
        if name not in backends.REFERENCES and backends.available(name):
            try:
                found.append(backends.choose(bundle, name, program))
            except BundleError:
                continue
    return found


def _measured(bundle: Bundle, candidates: list[tuple[str, Program]], threads: int | None) -> tuple[Row, ...]:
    file = cache_folder() / f"probe-{_key(candidates, threads)}.json"
    if remembered := _remembered(file):
        return remembered
    table = Table(rows=tuple(_measure_apart(bundle, name, program.name, threads) for name, program in candidates))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace(file, lambda beside: beside.write_text(table.model_dump_json(indent=1) + "\n"))
    except (OSError, BurnishError):
        pass  # measured again next time
    return table.rows


def _remembered(file: Path) -> tuple[Row, ...]:
    """What was measured before; nothing where it cannot be read, or failed in part and is old."""
    try:
        rows = Table.model_validate_json(file.read_bytes()).rows
        old = time.time() - file.stat().st_mtime > RETRY_S
    except (OSError, ValidationError):
        return ()
    return () if old and any(row.failed for row in rows) else rows


def _key(candidates: list[tuple[str, Program]], threads: int | None) -> str:
    """Changes with the programs, the machine, and the libraries."""
    facts: list[object] = [threads, usable_cores(), platform.machine(), platform.processor(), _processor()]
    for name, program in candidates:
        facts += [name, program.name, *(entry.sha256 for entry in program.files)]
        for package in backends.packages(name):
            try:
                facts.append((package, version(package)))
            except PackageNotFoundError:
                facts.append(package)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("model name", "Model"))), "")


def _measure_apart(bundle: Bundle, backend: str, program: str, threads: int | None) -> Row:
    """`measure` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "burnish.runtime.probe",
        str(bundle.path.resolve()),
        backend,
        program,
        str(threads or 0),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
        return Row.model_validate_json(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        failed = f"not ready after {LIMIT_S} s"
    except (OSError, IndexError, ValidationError):
        failed = "crashed"
    return Row(backend=backend, program=program, failed=failed)


def measure(path: Path, backend: str, program: str, threads: int | None) -> Row:
    """Load a program and time both methods: medians in milliseconds, after a first run that allocates."""
    began = time.perf_counter()
    try:
        bundle = Bundle.open(path)
        session = backends.load(bundle, backend, bundle.program(program), threads)
        manifest = bundle.manifest
        picture = np.full((1, 3, manifest.tile, manifest.tile), 0.5, np.float32)
        gates = gate_tensor(manifest.routing, given_gates(manifest.routing, {}), manifest.student.rank)
        session.refine(picture, encoded := session.encode(picture), encoded, gates)
    except (BackendError, BundleError) as error:
        return Row(backend=backend, program=program, failed=str(error))
    loaded = time.perf_counter()
    times: dict[str, list[float]] = {"encode": [], "refine": []}
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        encoded = session.encode(picture)
        between = time.perf_counter()
        session.refine(picture, encoded, encoded, gates)
        times["encode"].append((between - start) * 1e3)
        times["refine"].append((time.perf_counter() - between) * 1e3)
    encode, refine = (statistics.median(values) for values in times.values())
    return Row(backend=backend, program=program, load_ms=(loaded - began) * 1e3, encode_ms=encode, refine_ms=refine)


if __name__ == "__main__":
    _, folder, asked_backend, asked_program, asked_threads = sys.argv
    row = measure(Path(folder), asked_backend, asked_program, int(asked_threads) or None)
    sys.stdout.write(row.model_dump_json() + "\n")
