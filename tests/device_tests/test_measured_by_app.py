"""An Android phone measured by the demo app: a folder of this machine stands in for the phone, a function for the app."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from burnish.device_tests.android_app import APP, measure_by_app
from burnish.device_tests.devices import Identity
from burnish.device_tests.devices.host import HostDevice
from burnish.device_tests.devices.result import Result
from burnish.device_tests.perf import DevicePerf, Perf, ProgramPerf, Temperature, program_digest, timing
from burnish.runtime.bundle import EMBEDDED, Bundle
from burnish.runtime.errors import DeviceError

PROGRAM = "executorch-xnnpack-int8"
App = Callable[[Path, list[str]], None]


class Phone(HostDevice):
    """Starts `app` where a phone would start the app; everything else is a real file of `folder`."""

    def __init__(self, folder: Path, app: App | None) -> None:
        super().__init__()
        self.spec, self.folder, self.app = "adb:A1", folder, app
        self.asked: list[list[str]] = []

    def run(self, arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
        if arguments[0] == "pm":
            return Result(0 if self.app else 1, "", "")
        if arguments[0] == "am":
            self.asked.append(list(arguments))
            if arguments[1] == "start":
                assert self.app is not None
                self.app(self.folder, list(arguments))
            return Result(0, "", "")
        return super().run(arguments, timeout_s)


def measuring(folder: Path, arguments: list[str], sha256: str | None = None) -> None:
    """Reads the bundle that was pushed, and writes a report of it."""
    (place,) = (folder / "bundles").iterdir()
    bundle = Bundle.open(place)
    rows = []
    for program in bundle.manifest.programs:
        bundle.program_folder(program)
        times = timing([1.0, 2.0])
        rows.append(
            ProgramPerf(
                program=program.name,
                sha256=sha256 or program_digest(program),
                runner="demo app",
                threads=int(arguments[arguments.index("threads") + 1]) if "threads" in arguments else 4,
                encode=times,
                refine=times,
                iteration=times,
                drift=1.0,
                throttled=False,
                load_cold_ms=1,
                load_warm_ms=1,
                first_run_ms=1,
                program_bytes=1,
                process_bytes=2,
                temperature=Temperature(),
                digest="0" * 16,
            )
        )
    device = DevicePerf(
        device=arguments[arguments.index("device") + 1],
        identity=Identity(platform="android-arm64", model="a phone"),
        programs=tuple(rows),
    )
    perf = Perf(bundle=place.name, student="small", made="2026-01-01T00:00:00+00:00", versions={}, devices=(device,))
    (folder / "perf.json").write_text(perf.model_dump_json())


def measure(phone: Phone, limit_s: float = 5.0, threads: tuple[int, ...] = (0,)) -> DevicePerf:
    bundle = Bundle.open(EMBEDDED)
    return measure_by_app(phone, bundle, [], threads, 7, limit_s, lambda _: None, str(phone.folder))


def test_rows_of_every_number_of_threads(tmp_path: Path) -> None:
    phone = Phone(tmp_path, measuring)
    perf = measure(phone, threads=(0, 2))
    assert [(row.program, row.threads) for row in perf.programs] == [(PROGRAM, 4), (PROGRAM, 2)]
    assert perf.device == "adb:A1"
    starts = [asked for asked in phone.asked if asked[1] == "start"]
    assert starts[1][starts[1].index("runs") + 1] == "7"
    assert f"{APP}/.MainActivity" in starts[0]


def test_the_bundle_is_removed_again(tmp_path: Path) -> None:
    measure(Phone(tmp_path, measuring))
    assert not list((tmp_path / "bundles").iterdir())


def failing(folder: Path, arguments: list[str]) -> None:
    (folder / "perf.failure").write_text("student.pte is damaged\n\x1b[2J")


def silent(folder: Path, arguments: list[str]) -> None: ...


def garbled(folder: Path, arguments: list[str]) -> None:
    (folder / "perf.json").write_text(json.dumps({"format": 1}))


def another(folder: Path, arguments: list[str]) -> None:
    measuring(folder, arguments, sha256="0" * 64)


@pytest.mark.parametrize(
    ("app", "says"),
    [
        (None, "not installed"),
        (failing, "student.pte is damaged"),
        (silent, "unlock the phone"),
        (garbled, "not understood"),
        (another, "another bundle"),
    ],
)
def test_what_goes_wrong_is_one_line(tmp_path: Path, app: App | None, says: str) -> None:
    with pytest.raises(DeviceError, match=says) as caught:
        measure(Phone(tmp_path, app), limit_s=0.0)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert not list(tmp_path.glob("bundles/*"))
