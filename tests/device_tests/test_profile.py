"""`burnish profile`: the host, the emulated phone over adb and the ssh device end to end, and what is made of the figures."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from burnish.cli.main import app
from burnish.device_tests.latency import table
from burnish.device_tests.perf import EMULATED, PERF, Perf, timing
from burnish.device_tests.profile import Plan, profile, read_perf, seed_profiles
from burnish.runtime.bundle import Bundle
from burnish.runtime.errors import InputError
from emulation import Phone, Sshd
from typer.testing import CliRunner

INT8, ONNX = "executorch-xnnpack-int8", "onnx-fp32"
QUICK = Plan(runs=4, blocks=2, warm_up=1, threads=(1,))


def quiet(*_: object) -> None:
    """No progress."""


def test_the_emulated_phone_end_to_end(
    phone: Phone, arm_runner: Path, native_runner: Path, embedded: Bundle, tmp_path: Path
) -> None:
    spec = f"adb:{phone.serial}"
    began = time.monotonic()
    perf = profile(embedded, [spec], QUICK.model_copy(update={"programs": (INT8,)}), tmp_path, quiet)
    print(f"emulated phone, end to end: {time.monotonic() - began:.1f} s")
    (device,) = perf.devices
    assert device.failure is None
    (row,) = device.programs
    assert device.identity is not None
    assert device.identity.emulated
    assert row.note == EMULATED
    assert row.kernels is not None
    assert row.kernels.int8 > 30
    assert row.kernels.int8_share >= 0.95
    assert all(operation.ms is None for operation in row.operations)
    assert any("QC8" in operation.name for operation in row.operations)
    assert row.against_host is not None
    assert row.against_host.within_one_level >= 0.999
    assert row.against_student is not None
    assert row.against_student.psnr_db > 30
    # No latency of it anywhere.
    assert not perf.measured
    assert f"{row.encode.p50_ms:.2f}" not in table(perf)
    assert EMULATED in table(perf)
    copy = Path(shutil.copytree(embedded.path, tmp_path / "copy.bundle"))
    assert seed_profiles(Bundle.open(copy), perf) == []
    assert not phone.leftovers()


def test_the_ssh_device_end_to_end(sshd: Sshd, native_runner: Path, embedded: Bundle, tmp_path: Path) -> None:
    spec = f"ssh:{sshd.address}"
    perf = profile(embedded, [spec], QUICK.model_copy(update={"programs": (ONNX, INT8)}), tmp_path, quiet)
    (device,) = perf.devices
    assert device.failure is None
    assert {row.program for row in device.programs} == {ONNX, INT8}
    for row in device.programs:
        assert row.note == ""
        assert row.against_host is not None
        assert row.against_host.max_difference <= 1e-5
        assert row.iteration.p50_ms > 0
        assert (row.kernels is not None) == (row.program == INT8)
    assert read_perf(tmp_path / PERF) == perf


def test_the_host_and_what_its_figures_become(native_runner: Path, embedded: Bundle, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    plan = QUICK.model_copy(update={"programs": (INT8,), "threads": (1, 2)})
    perf = profile(
        embedded, ["host"], plan, tmp_path, lambda device, what, done, total: steps.append((device, done, total))
    )
    (device,) = perf.devices
    assert device.failure is None
    assert [row.threads for row in device.programs] == [1, 2]
    for row in device.programs:
        assert row.encode.runs == row.refine.runs == row.iteration.runs == 4
        assert row.encode.least_ms <= row.encode.p50_ms <= row.encode.p90_ms <= row.encode.p99_ms
        assert 0.9 * (row.encode.mean_ms + row.refine.mean_ms) < row.iteration.mean_ms * 1.001
        assert row.program_bytes > 2**20
        assert row.operations
        assert row.kernels is not None
        assert row.kernels.int8_share >= 0.95
        assert sum(operation.ms or 0 for operation in row.operations) > 0
    assert steps[-1][1] == steps[-1][2] == 5
    assert json.loads((tmp_path / PERF).read_text())["format"] == 1
    assert not list(tmp_path.glob(".unfinished*"))
    head, row = table(perf).splitlines()[:2]
    assert head.split()[:3] == ["device", "program", "threads"]
    assert row.split()[:3] == ["host", INT8, "1"]
    copy = Path(shutil.copytree(embedded.path, tmp_path / "copy.bundle"))
    seeded = seed_profiles(Bundle.open(copy), perf)
    assert [p.program for p in seeded] == [INT8]
    again = Bundle.open(copy)
    assert again.manifest.profiles[-1].encode_ms[0] in [row.encode.mean_ms for row in device.programs]
    assert device.identity is not None
    assert again.manifest.profiles[-1].device == device.identity.device_class
    # Measured again, the profile of the same device and program is replaced.
    assert len(Bundle.open(copy).manifest.profiles) == len(
        [*seed_profiles(again, perf), *(p for p in embedded.manifest.profiles)]
    )


def test_percentiles_are_measured_values() -> None:
    values = timing([float(v) for v in range(1, 101)])
    assert (values.p50_ms, values.p90_ms, values.p99_ms, values.least_ms) == (50.5, 90, 99, 1)
    assert timing([5.0]).p99_ms == 5.0
    assert timing([1.0, 2.0]).p99_ms == 2.0
    assert timing([2.0] * 7).deviation_ms == 0


def test_unknown_programs_and_devices_given_twice_are_refused(embedded: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="twice"):
        profile(embedded, ["host", "host"], QUICK, tmp_path, quiet)
    assert not (tmp_path / PERF).exists()
    for options in (["--device", "host", "--threads", "two"], ["--device", "hots"]):
        result = CliRunner().invoke(app, ["profile", *options, "--report", str(tmp_path)])
        assert isinstance(result.exception, InputError)


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / PERF).write_text("{}")
    with pytest.raises(InputError, match=r"perf\.json"):
        read_perf(tmp_path / PERF)


def test_json_of_the_command_is_the_schema(native_runner: Path, tmp_path: Path) -> None:
    options = [
        "--device",
        "host",
        "--runs",
        "1",
        "--warm-up",
        "0",
        "--program",
        INT8,
        "--report",
        str(tmp_path),
        "--json",
    ]
    result = CliRunner().invoke(app, ["profile", *options])
    assert result.exit_code == 0, result.output
    assert Perf.model_validate_json(result.stdout).devices[0].programs[0].iteration.runs == 1
