"""What every device offers: files pushed and pulled, commands run, and what it says of itself.

Commands are lists of arguments, never shell text; where a transport knows only text (adb, ssh), the device quotes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from ...runtime.errors import DeviceError
from .facts import Identity, State, read_identity, read_state
from .result import Result
from .workspace import Workspace


class Device(ABC):
    """A machine that programs run on. Used by one thread at a time."""

    spec: str
    """How the command line names it, such as `adb:SERIAL`."""
    scratch: str
    """An existing folder on the device where work may be left for a while."""
    launcher: tuple[str, ...] = ()
    """What executes a pushed binary where the device's own kernel does not, such as qemu."""
    python: str = "python3"
    """The interpreter that runs the Python worker there."""

    @abstractmethod
    def push(self, local: Path, remote: str) -> None:
        """Copy a file onto the device, its execute permission kept. Raises DeviceError."""

    @abstractmethod
    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device. Raises DeviceError."""

    @abstractmethod
    def run(self, arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
        """Run a command and wait. A status other than 0 is the caller's to judge; raises DeviceError when the device is
        gone or the time is up."""

    @property
    def has_python(self) -> bool:
        """Whether the Python runner can do jobs there."""
        return False

    def workspace(self) -> Workspace:
        """A folder of our own there, made on entering and removed on leaving."""
        return Workspace(self)

    def close(self) -> None:  # noqa: B027  (most devices hold nothing open)
        """Let go of the connection."""

    def identity(self) -> Identity:
        """What the device is."""
        return read_identity(self.run)

    def state(self) -> State:
        """How the device is just now."""
        return read_state(self.run)

    def check(self, arguments: Sequence[str], timeout_s: float = 30.0) -> str:
        """The output of a command that must succeed. Raises DeviceError."""
        result = self.run(arguments, timeout_s)
        if result.status:
            raise DeviceError(f"{self.spec}: {arguments[0]} failed: {result.reason}")
        return result.stdout
