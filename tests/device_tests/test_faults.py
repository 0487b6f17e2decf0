"""Devices that fail: each alone, in one line, with nothing left on it; what was finished is not done again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from burnish.device_tests import bench
from burnish.device_tests.devices import Device, Identity, open_device
from burnish.device_tests.devices.adb import AdbDevice
from burnish.device_tests.devices.host import HostDevice
from burnish.device_tests.devices.result import Result
from burnish.device_tests.perf import DevicePerf, Perf
from burnish.device_tests.profile import Plan, profile
from burnish.runtime.bundle import Bundle
from emulation import Phone, Sshd

INT8 = "executorch-xnnpack-int8"
QUICK = Plan(runs=2, blocks=2, warm_up=0, threads=(1,), programs=(INT8,), limit_s=60)


def quiet(*_: object) -> None:
    """No progress."""


def starts_runner(arguments: Sequence[str]) -> bool:
    """Whether a command runs a job, and not something else with the runner's file."""
    return arguments[0] == "sh" and any(argument.endswith("burnish-runner") for argument in arguments)


class Faulty(HostDevice):
    """This machine under another name, with something wrong about it."""

    def __init__(self, spec: str, scratch: Path) -> None:
        scratch.mkdir(exist_ok=True)
        super().__init__(spec, scratch)


class WrongArchitecture(Faulty):
    """Says that it is what it is not, so that it is given another machine's runner."""

    def identity(self) -> Identity:
        return super().identity().model_copy(update={"platform": "linux-aarch64"})


class Hangs(Faulty):
    launcher = ("sh", "-c", "sleep 600; :", "hanging")


class Fails(Faulty):
    launcher = ("sh", "-c", "echo first >&2; echo it went wrong >&2; exit 7", "failing")


class Truncates(Faulty):
    def pull(self, remote: str, local: Path) -> None:
        super().pull(remote, local)
        local.write_bytes(local.read_bytes()[:-5])


class ReturnsGarbage(Faulty):
    def pull(self, remote: str, local: Path) -> None:
        super().pull(remote, local)
        local.write_bytes(os.urandom(local.stat().st_size))


class GoneInPush(Faulty):
    """Its folder vanishes, as that of a card that is pulled."""

    def push(self, local: Path, remote: str) -> None:
        super().push(local, remote)
        if local.name.endswith(".so"):
            for file in Path(remote).parent.iterdir():
                file.unlink()
            Path(remote).parent.rmdir()


FAULTS: list[tuple[type[Faulty], str]] = [
    (WrongArchitecture, "Exec format error"),
    (Hangs, "longer than"),
    (Fails, "it went wrong"),
    (Truncates, "bytes"),
    (ReturnsGarbage, "cannot be read"),
    (GoneInPush, "No such file"),
]


def only(perf: Perf) -> DevicePerf:
    (row,) = perf.devices
    return row


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_is_one_line_and_leaves_nothing(
    native_runner: Path,
    request: pytest.FixtureRequest,
    embedded: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: type[Faulty],
    words: str,
) -> None:
    if fault is WrongArchitecture:
        request.getfixturevalue("arm_runner")
    monkeypatch.setattr(bench, "GRACE_S", 1.0)
    plan = QUICK.model_copy(update={"limit_s": 1 if fault is Hangs else 60})
    scratch = tmp_path / "device"
    row = only(profile(embedded, ["faulty"], plan, tmp_path / "out", quiet, lambda spec: fault(spec, scratch)))
    assert row.failure is not None
    assert words in row.failure
    assert row.failure.startswith("faulty: ")
    assert "\n" not in row.failure
    assert not row.programs
    assert list(scratch.iterdir()) == []


def test_one_of_three_fails_and_the_second_run_does_what_is_missing(
    native_runner: Path, embedded: Bundle, tmp_path: Path
) -> None:
    jobs: list[str] = []
    broken = True

    class Counted(Faulty):
        def run(self, arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
            if starts_runner(arguments):
                jobs.append(self.spec)
                if broken and self.spec == "two" and jobs.count("two") == 2:
                    return Result(9, "", "it fell on the floor")
            return super().run(arguments, timeout_s)

    def opener(spec: str) -> Device:
        return Counted(spec, tmp_path / spec)

    names = ["one", "two", "three"]
    first = profile(embedded, names, QUICK, tmp_path / "out", quiet, opener)
    failures = {row.device: row.failure for row in first.devices}
    assert failures["one"] is None
    assert failures["three"] is None
    assert "it fell on the floor" in (failures["two"] or "")
    assert jobs.count("one") == jobs.count("three") == 3  # two blocks, one look at the outputs
    broken = False
    jobs.clear()
    second = profile(embedded, names, QUICK, tmp_path / "out", quiet, opener)
    assert all(row.failure is None for row in second.devices)
    # One and three were finished; of two the second block and the look at its outputs were missing.
    assert jobs == ["two", "two"]
    kept = [[row.programs[0].iteration for row in run.devices if row.device == "one"] for run in (first, second)]
    assert kept[0] == kept[1]
    assert not any(list((tmp_path / name).iterdir()) for name in names)
    assert not list((tmp_path / "out").glob(".unfinished*"))


class Unplugged(AdbDevice):
    """A phone whose cable is pulled when `when` says so."""

    def __init__(self, serial: str, phone: Phone, when: Callable[[str], bool]) -> None:
        super().__init__(serial)
        self._phone, self._when = phone, when

    def push(self, local: Path, remote: str) -> None:
        if self._when(f"push {local.name}"):
            self._phone.unplug()
        super().push(local, remote)

    def run(self, arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
        if starts_runner(arguments) and self._when("run"):
            self._phone.unplug()
        return super().run(arguments, timeout_s)


@pytest.mark.parametrize("moment", ["push student.pte", "run"])
def test_a_phone_that_is_unplugged(
    phone: Phone, arm_runner: Path, native_runner: Path, embedded: Bundle, tmp_path: Path, moment: str
) -> None:
    pulled: list[str] = []

    def when(what: str) -> bool:
        if what == moment and not pulled:
            pulled.append(what)
            return True
        return False

    spec = f"adb:{phone.serial}"
    row = only(profile(embedded, [spec], QUICK, tmp_path, quiet, lambda _: Unplugged(phone.serial, phone, when)))
    assert pulled
    assert row.failure is not None
    assert row.failure.startswith(spec)
    assert "\n" not in row.failure
    phone.plug()
    row = only(profile(embedded, [spec], QUICK, tmp_path, quiet))
    assert row.failure is None
    assert row.programs[0].kernels is not None
    assert not phone.leftovers()


def test_a_phone_whose_disk_is_full(phone: Phone, arm_runner: Path, embedded: Bundle, tmp_path: Path) -> None:
    phone.shell("dd if=/dev/zero of=/data/local/tmp/photos bs=1M count=999")
    try:
        row = only(profile(embedded, [f"adb:{phone.serial}"], QUICK, tmp_path, quiet))
    finally:
        phone.shell("rm /data/local/tmp/photos")
    assert row.failure is not None
    assert "\n" not in row.failure
    assert "space" in row.failure or "full" in row.failure
    assert not phone.leftovers()


def test_an_ssh_machine_that_goes_away(native_runner: Path, embedded: Bundle, tmp_path: Path) -> None:
    from emulation import running_sshd

    folder = tmp_path / "sshd"
    folder.mkdir()
    with running_sshd(folder) as daemon:
        device = open_device(f"ssh:{daemon.address}")
        calls = 0

        def opener(_: str) -> Device:
            run = device.run

            def interrupted(arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
                nonlocal calls
                if starts_runner(arguments):
                    calls += 1
                    Sshd.unplug(daemon)
                return run(arguments, timeout_s)

            device.run = interrupted  # type: ignore[method-assign]
            return device

        row = only(profile(embedded, ["ssh:gone"], QUICK, tmp_path / "out", quiet, opener))
    assert calls == 1
    assert row.failure is not None
    assert "\n" not in row.failure
