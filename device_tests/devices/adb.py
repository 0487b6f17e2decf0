"""Android devices through adb; `adbutils` brings the client."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ...runtime.errors import DeviceError
from .base import Device
from .processes import run_local
from .result import Result

SCRATCH = "/data/local/tmp"
TRANSFER_S = 300.0
_GONE = re.compile(
    r"device .* not found|device offline|no devices|unauthorized|closed|cannot connect|connection reset", re.I
)
# What adb itself fails with, as opposed to a command on the device.
_ADB_FAILED = ("error: ", "adb: ")


class AdbDevice(Device):
    """One device of the adb server; always addressed by its serial."""

    def __init__(self, serial: str) -> None:
        self.spec = f"adb:{serial}"
        self.scratch = SCRATCH
        self._command = (adb_path(), "-s", serial)

    def push(self, local: Path, remote: str) -> None:
        self._transfer("push", str(local), remote)

    def pull(self, remote: str, local: Path) -> None:
        self._transfer("pull", remote, str(local))

    def _transfer(self, verb: str, source: str, target: str) -> None:
        result = run_local(self.spec, [*self._command, verb, "--", source, target], TRANSFER_S)
        if result.status:
            lines = f"{result.stderr}\n{result.stdout}".splitlines()
            # adb goes on after a failure to count the files; what matters is said before.
            reason = next((line.strip() for line in lines if line.startswith(_ADB_FAILED)), result.reason)
            raise DeviceError(f"{self.spec}: cannot {verb} {Path(source).name}: {reason}")

    def run(self, arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
        # adb joins its arguments to one line of shell: each is quoted, so that names stay names.
        result = run_local(self.spec, [*self._command, "shell", "-n", "-T", shlex.join(arguments)], timeout_s)
        if result.status and result.stderr.startswith(_ADB_FAILED) and _GONE.search(result.stderr):
            raise DeviceError(f"{self.spec}: {result.reason}; plug it in and allow debugging")
        return result


def adb_path() -> str:
    """The adb client. Raises DeviceError."""
    try:
        from adbutils import adb_path as find
    except ImportError:
        raise DeviceError("adb needs adbutils; pip install 'burnish[devices]'") from None
    return str(find())


def open_adb(address: str) -> AdbDevice:
    """`adb:SERIAL`. Raises DeviceError when there is no such device or it is not ready."""
    there = _devices()
    if address not in there:
        raise DeviceError(f"adb has no device {address!r}; connected: {', '.join(there) or 'none'}")
    if there[address] != "device":
        raise DeviceError(f"adb:{address} is {there[address]}; unlock it and allow debugging")
    return AdbDevice(address)


def connected() -> list[str]:
    """Serials of the adb server's devices that are ready."""
    return [f"adb:{serial}" for serial, state in _devices().items() if state == "device"]


def _devices() -> dict[str, str]:
    """State of every device by serial."""
    result = run_local("adb", [adb_path(), "devices"], 20.0)
    if result.status:
        raise DeviceError(f"adb devices failed: {result.reason}")
    rows = (line.split("\t") for line in result.stdout.splitlines() if "\t" in line)
    return {row[0]: row[1].strip() for row in rows}
