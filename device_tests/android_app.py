"""An Android phone measured by the demo app instead of a runner: an app gets other cores, and its own library.

The app's folder is the only place that both it and adb reach. It writes perf.json itself, or says in perf.failure why not.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..runtime.bundle import MANIFEST, Bundle, Program
from ..runtime.errors import DeviceError
from .devices import Device, clean
from .perf import DevicePerf, Perf, ProgramPerf, program_digest
from .runners import NATIVE_TARGETS

APP = "dev.burnish.demo"
FOLDER = f"/sdcard/Android/data/{APP}/files"
POLL_S = 1.0


def measure_by_app(
    device: Device,
    bundle: Bundle,
    names: Sequence[str],
    threads: Sequence[int],
    runs: int,
    limit_s: float,
    say: Callable[[str], None],
    folder: str = FOLDER,
) -> DevicePerf:
    """What the demo app on `device` measures: every program named (none: all it can run), with each number of threads.

    The bundle is pushed for it and removed again. `runs`: of each program; `limit_s`: seconds for each number of threads.
    Raises DeviceError.
    """
    manifest = bundle.manifest
    programs = [p for p in manifest.programs if p.target in NATIVE_TARGETS and (not names or p.name in names)]
    if not programs:
        raise DeviceError(f"{device.spec}: the app runs no program of {bundle.path}; export executorch-xnnpack-int8")
    if device.run(["pm", "path", APP]).status:
        raise DeviceError(f"{device.spec}: the demo app {APP} is not installed; see android_demo/README.md")
    place = f"{folder}/bundles/{bundle.path.name}"
    try:
        say("push the bundle")
        _push(device, bundle, programs, place)
        rows: list[ProgramPerf] = []
        identity = None
        for count in threads:
            say("the app measures")
            found = _ask(device, folder, count, runs, limit_s)
            rows += found.programs
            identity = found.identity
    finally:
        device.run(["am", "force-stop", APP])
        device.run(["rm", "-rf", place])
    expected = {program.name: program_digest(program) for program in programs}
    if any(expected.get(row.program) != row.sha256 for row in rows):
        raise DeviceError(f"{device.spec}: the app measured another bundle; remove those in {folder}/bundles")
    return DevicePerf(device=device.spec, identity=identity, programs=tuple(rows))


def _push(device: Device, bundle: Bundle, programs: Sequence[Program], place: str) -> None:
    """The programs' checked files, and a manifest that has no others."""
    device.check(["rm", "-rf", place])
    folders = {f"{place}/{Path(file.path).parent.as_posix()}" for program in programs for file in program.files}
    device.check(["mkdir", "-p", place, *sorted(folders)])
    for program in programs:
        for file in program.files:
            device.push(bundle.file(file), f"{place}/{file.path}")
    content = bundle.manifest.model_copy(update={"programs": tuple(programs)}).model_dump(mode="json")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / MANIFEST
        file.write_text(json.dumps(content))
        device.push(file, f"{place}/{MANIFEST}")


def _ask(device: Device, folder: str, threads: int, runs: int, limit_s: float) -> DevicePerf:
    """One measurement by a fresh process of the app."""
    perf, failure = f"{folder}/perf.json", f"{folder}/perf.failure"
    device.check(["rm", "-f", perf, failure])
    device.check(["am", "force-stop", APP])
    asked = ["--ez", "benchmark", "true", "--es", "device", device.spec, "--ei", "runs", str(runs)]
    if threads:
        asked += ["--ei", "threads", str(threads)]
    device.check(["am", "start", "-n", f"{APP}/.MainActivity", *asked])
    deadline = time.monotonic() + limit_s
    while device.run(["ls", perf]).status:
        if device.run(["ls", failure]).status == 0:
            raise DeviceError(f"{device.spec}: the app cannot measure: {clean(device.check(['cat', failure]))}")
        if time.monotonic() > deadline:
            raise DeviceError(f"{device.spec}: no {perf} after {limit_s:.0f} s; unlock the phone, or raise --limit-s")
        time.sleep(POLL_S)
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / "perf.json"
        device.pull(perf, local)
        try:
            return Perf.model_validate_json(local.read_bytes()).devices[0]
        except (ValueError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise DeviceError(
                f"{device.spec}: the app's perf.json is not understood ({reason}); build it again"
            ) from None
