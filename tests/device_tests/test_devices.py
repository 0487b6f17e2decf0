"""What every device must do alike: this machine, a phone behind a real adbd, a machine behind a real sshd."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from burnish.device_tests.devices import Device, connected, open_device
from burnish.device_tests.devices.facts import clean, read_identity, read_state
from burnish.device_tests.devices.result import Result
from burnish.device_tests.devices.workspace import Workspace
from burnish.runtime.errors import DeviceError, InputError

# Names that would do harm where a shell read them.
NAMES = [
    "a b",
    "$(touch owned)",
    "`touch owned`",
    "; touch owned;",
    "'\"\\",
    "a\nb",
    "*",
    "-rf",
    "é ✓",
    "&& touch owned",
    "~",
]


@pytest.fixture(params=["host", "adb", "ssh"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param == "host":
        opened = open_device("host")
    elif request.param == "adb":
        opened = open_device(f"adb:{request.getfixturevalue('phone').serial}")
    else:
        opened = open_device(f"ssh:{request.getfixturevalue('sshd').address}")
    yield opened
    opened.close()


def names(device: Device) -> list[str]:
    said = device.check(["sh", "-c", 'cd "$1" && for name in burnish-*; do echo "$name"; done', "sh", device.scratch])
    return [name for name in said.split() if name != "burnish-*" and f"-{os.getpid()}-" in name]


def test_files_survive_the_way_there_and_back(device: Device, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "local").write_bytes(content)
    with Workspace(device) as space:
        space.push(tmp_path / "local", "remote")
        space.pull(tmp_path / "back", "remote")
    assert (tmp_path / "back").read_bytes() == content
    assert not names(device)


def test_a_pushed_program_may_be_run(device: Device, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text('#!/bin/sh\necho "ran with $1"\n')
    (tmp_path / "tool").chmod(0o755)
    with Workspace(device) as space:
        space.push(tmp_path / "tool", "tool")
        assert space.run([space.path("tool"), "this"], 30).stdout == "ran with this\n"


def test_status_output_and_complaint_are_kept_apart(device: Device) -> None:
    result = device.run(["sh", "-c", "echo out; echo complaint >&2; exit 7"])
    assert (result.status, result.stdout.strip(), result.stderr.strip()) == (7, "out", "complaint")
    assert result.reason == "complaint"
    with pytest.raises(DeviceError, match="complaint"):
        device.check(["sh", "-c", "echo complaint >&2; exit 7"])


@pytest.mark.parametrize("name", NAMES)
def test_arguments_stay_what_they_are(device: Device, name: str) -> None:
    assert device.check(["printf", "%s|", name, "end"]) == f"{name}|end|"


def test_hostile_names_of_files_are_names(device: Device, tmp_path: Path) -> None:
    with Workspace(device) as space:
        for number, name in enumerate(NAMES):
            if "\n" in name or name == "-rf":
                continue
            (tmp_path / "local").write_text(str(number))
            device.push(tmp_path / "local", space.path(name))
            device.pull(space.path(name), tmp_path / "back")
            assert (tmp_path / "back").read_text() == str(number)
        assert "owned" not in device.check(["ls", "-a", space.path()]).splitlines()
        assert not names(device) or len(names(device)) == 1
    assert not names(device)


def test_a_command_that_hangs_is_ended_there_too(device: Device) -> None:
    with Workspace(device) as space:
        began = time.monotonic()
        with pytest.raises(DeviceError, match="longer than 2 s"):
            # The name of the workspace in its arguments is what tells the process from others.
            space.run(["sh", "-c", "sleep 600; : $0", space.path("x")], 2)
        assert time.monotonic() - began < 200
        process = device.check(["cat", space.path("process")]).strip()
        # Killed over there; how soon its parent takes note is the device's own business: until then it has no command line.
        waited = time.monotonic()
        while device.run(["grep", "-qa", ".", f"/proc/{process}/cmdline"]).status == 0:
            assert time.monotonic() - waited < 200, "the command is still running"
    assert not names(device)


def test_what_is_missing_is_one_line(device: Device, tmp_path: Path) -> None:
    with Workspace(device) as space:
        with pytest.raises(DeviceError) as caught:
            device.pull(space.path("nothing"), tmp_path / "back")
        assert "\n" not in str(caught.value)
        assert "nothing" in str(caught.value)
        with pytest.raises(DeviceError):
            device.push(tmp_path / "none", space.path("x"))
        assert device.run(["burnish-no-such-command"]).status != 0


def test_facts_are_plausible(device: Device) -> None:
    identity, state = device.identity(), device.state()
    assert identity.platform in ("linux-x86_64", "linux-aarch64")
    assert identity.model
    assert identity.cores >= 1
    assert identity.memory_bytes > 2**28
    assert state.free_bytes is not None
    assert 0 < state.free_bytes <= identity.memory_bytes


def test_what_a_failure_leaves_is_removed_next_time(device: Device) -> None:
    space = Workspace(device)
    device.check(["mkdir", space.folder])
    with Workspace(device):
        assert space.folder.rpartition("/")[2] not in names(device)


def test_the_phone_is_known_to_be_emulated_and_its_properties_are_data(phone: object) -> None:
    device = open_device("adb:127.0.0.1:5555")
    identity = device.identity()
    assert identity.emulated
    assert identity.platform == "linux-aarch64"
    assert "$(touch" in identity.model  # said, not done
    assert "\x1b" not in identity.model
    assert device.run(["test", "-e", "/data/local/tmp/owned"]).status != 0
    assert "adb:127.0.0.1:5555" in connected()[0]


@pytest.mark.parametrize(
    "spec",
    ["", "nothing", "adb:; reboot", "ssh:a b@c", "ssh:-oProxyCommand=x@y", "ssh:user@", "host:x", "ios:1", "arm:"],
)
def test_specifications_that_are_none_are_refused(spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/no.sock")
    with pytest.raises((DeviceError, InputError)):
        open_device(spec)


def test_facts_of_a_jetson_and_of_a_phone() -> None:
    jetson = (
        "machine=aarch64\ncores=6\nmemory=MemTotal: 7800000 kB\nmodel=NVIDIA Jetson Orin Nano Developer Kit\n"
        "cpu=\ntegra=# R36 (release), REVISION: 4.3\npower_mode=NV Power Mode: 15W\nprocessor=cpu:type:aarch64:feature:,0000\n"
    )
    identity = read_identity(lambda _: Result(0, jetson, ""))
    assert identity.platform == "linux-aarch64"
    assert identity.emulated == ""
    assert "15W" in identity.device_class
    pixel = (
        "machine=aarch64\nandroid=1\ncores=9\nmemory=MemTotal: 12000000 kB\nro.product.manufacturer=Google\n"
        "ro.product.model=Pixel 8\nro.soc.model=Tensor G3\nro.build.version.release=15\nro.kernel.qemu=\n"
    )
    identity = read_identity(lambda _: Result(0, pixel, ""))
    assert identity.platform == "android-arm64"
    assert identity.device_class == "Google Pixel 8, Tensor G3, 9 cores"
    assert read_identity(lambda _: Result(0, pixel.replace("qemu=", "qemu=1"), "")).emulated == "Android emulator"


def test_facts_of_a_mac() -> None:
    mac = (
        "machine=arm64\nsystem=Darwin\nkernel=Darwin 24.5.0\ncores=8\nmemory=\ncpu=\nos=\nmemory=16777216 kB\nmodel=Mac14,2\n"
        "cpu=: Apple M2\nos==macOS 15.5\n"
    )
    identity = read_identity(lambda _: Result(0, mac, ""))
    assert (identity.platform, identity.os, identity.cpu) == ("macos-arm64", "macOS 15.5", "Apple M2")
    assert (identity.model, identity.memory_bytes) == ("Mac14,2", 2**34)


def test_state_takes_processors_and_ignores_nonsense() -> None:
    zones = "zone=45200 cpu-0-0\nzone=61000 battery\nzone=-274000 x\nzone=garbage\nzone= y\n"
    said = f"free=MemAvailable: 1000 kB\n{zones}governor=schedutil\n"
    state = read_state(lambda _: Result(0, said, ""))
    assert state.temperature_c == 45.2
    assert state.governor == "schedutil"
    assert state.free_bytes == 1_024_000
    assert read_state(lambda _: Result(0, "", "")).temperature_c is None


def test_what_devices_say_is_printable_and_short() -> None:
    assert clean("a\x1b[31mb\x00\n" + "c" * 999) == "a[31mb" + "c" * 194
