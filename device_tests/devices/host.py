"""This machine as a device."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...runtime.errors import DeviceError
from .base import Device
from .processes import run_local
from .result import Result


class HostDevice(Device):
    """Files are copied, commands are processes."""

    python = sys.executable

    def __init__(self, spec: str = "host", scratch: Path | None = None) -> None:
        self.spec = spec
        self.scratch = str(scratch or tempfile.gettempdir())

    @property
    def has_python(self) -> bool:
        return True

    def push(self, local: Path, remote: str) -> None:
        self._copy(local, Path(remote))

    def pull(self, remote: str, local: Path) -> None:
        self._copy(Path(remote), local)

    def _copy(self, source: Path, target: Path) -> None:
        try:
            shutil.copy(source, target)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise DeviceError(f"{self.spec}: cannot copy {source.name} to {target}: {reason}") from None

    def run(self, arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
        return run_local(self.spec, arguments, timeout_s)


def open_host(address: str) -> HostDevice:
    """`host`. Raises DeviceError for an address after it."""
    if address:
        raise DeviceError(f"host takes no address, got {address!r}; expected --device host")
    return HostDevice()


def connected() -> list[str]:
    """This machine."""
    return ["host"]
