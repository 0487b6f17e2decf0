"""A folder of our own on a device, and the processes in it: both are gone afterwards, also after a failure."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ...runtime.errors import DeviceError
from .result import Result

if TYPE_CHECKING:
    from .base import Device

_NUMBERS = itertools.count()
# Of this process; what else carries its number was left behind.
_IN_USE: set[str] = set()
_NAME = re.compile(r"burnish-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-\d+")
# Constant; names come as arguments. The process that replaces the shell keeps its number.
_RUN = 'echo $$ > "$1"; shift; exec "$@"'
# Numbers are used again: only a process that was started from the folder is ended.
_KILL = 'read -r process < "$1/process" && grep -qaF "$2" "/proc/$process/cmdline" && kill -9 "$process"'
_LIST = 'cd "$1" && for name in burnish-*; do echo "$name"; done'


class Workspace:
    """Made on entering, removed on leaving. What an earlier process of this machine left behind is removed as well."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._name = f"burnish-{_host()}-{os.getpid()}-{next(_NUMBERS)}"
        self.folder = f"{device.scratch}/{self._name}"

    def __enter__(self) -> Workspace:
        _IN_USE.add(self._name)
        self._remove_leftovers()
        self.device.check(["mkdir", self.folder])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.device.check(["rm", "-rf", self.folder])
        except DeviceError:
            # A device that went away is cleaned when it is back; the first failure is the one to tell.
            if error is None:
                raise
        finally:
            _IN_USE.discard(self._name)

    def path(self, *parts: str) -> str:
        """A path below the folder."""
        return "/".join((self.folder, *parts))

    def make_folder(self, *parts: str) -> None:
        """Make a folder below."""
        self.device.check(["mkdir", self.path(*parts)])

    def remove(self, *parts: str) -> None:
        """Remove a folder below."""
        self.device.check(["rm", "-rf", self.path(*parts)])

    def push(self, local: Path, *parts: str) -> None:
        """Copy a file in, and see that all of it arrived."""
        remote = self.path(*parts)
        self.device.push(local, remote)
        arrived, size = self._size(remote), local.stat().st_size
        if arrived != size:
            raise DeviceError(
                f"{self.device.spec}: {local.name} arrived with {arrived} of {size} bytes; is its disk full?"
            )

    def pull(self, local: Path, *parts: str) -> None:
        """Copy a file out, and see that all of it arrived."""
        remote = self.path(*parts)
        size = self._size(remote)
        self.device.pull(remote, local)
        arrived = local.stat().st_size
        if arrived != size:
            raise DeviceError(
                f"{self.device.spec}: {parts[-1]} arrived with {arrived} of {size} bytes; check the cable and run again"
            )

    def run(self, arguments: Sequence[str], timeout_s: float) -> Result:
        """Run a command; it is ended on the device too when its time is up. Raises DeviceError."""
        process = self.path("process")
        try:
            return self.device.run(["sh", "-c", _RUN, "sh", process, *arguments], timeout_s)
        except DeviceError:
            self.end_process()
            raise

    def end_process(self) -> None:
        """End the last command on the device, where it can still be reached."""
        with contextlib.suppress(DeviceError):  # gone with the device; the runner ends itself at its time limit
            _end_process(self.device, self.folder)

    def _size(self, remote: str) -> int:
        said = self.device.check(["wc", "-c", remote]).split()
        if not said or not said[0].isdigit():
            raise DeviceError(f"{self.device.spec}: wc -c answered {' '.join(said)[:80]!r}; expected a number")
        return int(said[0])

    def _remove_leftovers(self) -> None:
        for name in self.device.run(["sh", "-c", _LIST, "sh", self.device.scratch]).stdout.split():
            found = _NAME.fullmatch(name)
            if found and found["host"] == _host() and name not in _IN_USE and not _alive(int(found["process"])):
                _end_process(self.device, f"{self.device.scratch}/{name}")
                self.device.run(["rm", "-rf", f"{self.device.scratch}/{name}"])


def _end_process(device: Device, folder: str) -> None:
    device.run(["sh", "-c", _KILL, "sh", folder, folder.rpartition("/")[2]])


def _host() -> str:
    """Tells this machine and user from others that use the same device."""
    return hashlib.sha256(f"{socket.gethostname()}/{os.getuid()}".encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    """Whether another process of this machine may still use what carries its number."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
