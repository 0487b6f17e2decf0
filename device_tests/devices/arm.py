"""An Arm machine in qemu on this host: right about numbers, never about time."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ...runtime.errors import DeviceError
from .facts import Identity
from .host import HostDevice
from .processes import run_local

# Debian's libc6-arm64-cross and libstdc++6-arm64-cross.
SYSROOT = "/usr/aarch64-linux-gnu"
ROOT_VARIABLE = "BURNISH_ARM_ROOT"
# Without and with the dot-product instructions: XNNPACK takes other int8 kernels.
CORES = ("cortex-a53", "cortex-a76")
# 7.2 computes int8 wrongly with some processors and crashes ONNX Runtime.
LEAST_QEMU = 10
INSTALL = "apt install -t bookworm-backports qemu-user, and g++-aarch64-linux-gnu for its libraries"


class ArmDevice(HostDevice):
    """`launcher` runs pushed binaries on the emulated core; commands such as rm are the host's own."""

    def __init__(self, core: str, scratch: Path | None = None) -> None:
        super().__init__(f"arm:{core}", scratch)
        self.core = core
        # A whole arm64 root, with a Python perhaps, in place of the bare libraries.
        sysroot = os.environ.get(ROOT_VARIABLE, SYSROOT)
        self.launcher = ("qemu-aarch64", "-cpu", core, "-L", sysroot)
        self.python = f"{sysroot}/usr/bin/python3"

    @property
    def has_python(self) -> bool:
        return Path(self.python).is_file()

    def identity(self) -> Identity:
        return Identity(platform="linux-aarch64", model=self.core, emulated=f"qemu {qemu_version()}")


def qemu_version() -> str:
    """Version of qemu-aarch64. Raises DeviceError where it is missing or too old."""
    if shutil.which("qemu-aarch64") is None:
        raise DeviceError(f"qemu-aarch64 is not installed; {INSTALL}")
    said = run_local("arm", ["qemu-aarch64", "--version"], 10.0).stdout
    found = re.search(r"version (\d+)\.(\d+\.\d+)", said)
    if found is None or int(found[1]) < LEAST_QEMU:
        raise DeviceError(
            f"qemu-aarch64 is {found[0] if found else 'of no known version'}; expected {LEAST_QEMU} or later; {INSTALL}"
        )
    return f"{found[1]}.{found[2]}"


def open_arm(address: str) -> ArmDevice:
    """`arm:cortex-a76`. Raises DeviceError for a core that qemu does not know."""
    qemu_version()
    if not re.fullmatch(r"[a-z0-9-]+", address):
        raise DeviceError(f"{address!r} is no Arm core; expected arm:{CORES[0]} or arm:{CORES[1]}")
    known = run_local("arm", ["qemu-aarch64", "-cpu", "help"], 10.0).stdout.split()
    if address not in known:
        raise DeviceError(
            f"qemu-aarch64 knows no core {address!r}; expected arm:{CORES[0]}, arm:{CORES[1]} or another of -cpu help"
        )
    return ArmDevice(address)


def connected() -> list[str]:
    """The cores worth testing on, where qemu is there."""
    try:
        qemu_version()
    except DeviceError:
        return []
    return [f"arm:{core}" for core in CORES]
