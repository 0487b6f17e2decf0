"""Linux machines such as a Jetson through ssh, by asyncssh: keys and known hosts as OpenSSH has them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...runtime.errors import DeviceError
from .base import Device
from .result import Result

CONNECT_S = 15.0
TRANSFER_S = 600.0
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9_][A-Za-z0-9_.:-]*?)(?::(?P<port>\d+))?"
)

T = TypeVar("T")


class SshDevice(Device):
    """One connection; its event loop runs in a thread of its own, so that keep-alives notice a machine that vanishes."""

    def __init__(self, spec: str, host: str, **options: Any) -> None:
        self.spec, self.scratch = spec, "/tmp"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=spec, daemon=True)
        self._thread.start()
        self._connection: Any = None
        self._sftp: Any = None
        try:
            self._wait(self._connect(host, options), CONNECT_S, "connect")
        except DeviceError:
            self.close()
            raise

    async def _connect(self, host: str, options: dict[str, Any]) -> None:
        import asyncssh

        self._connection = await asyncssh.connect(host, keepalive_interval=5, keepalive_count_max=3, **options)
        self._sftp = await self._connection.start_sftp_client()

    @property
    def has_python(self) -> bool:
        return True

    def push(self, local: Path, remote: str) -> None:
        self._wait(self._sftp.put(str(local), remote, preserve=True), TRANSFER_S, f"push {local.name}")

    def pull(self, remote: str, local: Path) -> None:
        self._wait(self._sftp.get(remote, str(local)), TRANSFER_S, f"pull {Path(remote).name}")

    def run(self, arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
        async def call() -> Result:
            done = await self._connection.run(shlex.join(arguments), stdin=-3, errors="replace")
            status = done.exit_status if done.exit_status is not None else 128
            text = done.exit_signal[0] if done.exit_signal else ""
            return Result(status, str(done.stdout), str(done.stderr) or (text and f"killed by signal {text}"))

        return self._wait(call(), timeout_s, arguments[0])

    def close(self) -> None:
        async def end() -> None:
            if self._connection is not None:
                self._connection.close()
                await self._connection.wait_closed()

        with contextlib.suppress(Exception):  # what is gone is closed
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)

    def _wait(self, work: Coroutine[Any, Any, T], timeout_s: float, what: str) -> T:
        import asyncssh

        async def limited() -> T:
            return await asyncio.wait_for(work, timeout_s)

        try:
            return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()
        except (asyncio.TimeoutError, TimeoutError):
            raise DeviceError(f"{self.spec}: {what} took longer than {timeout_s:.0f} s; see why it hangs") from None
        except asyncssh.SFTPError as error:
            raise DeviceError(f"{self.spec}: cannot {what}: {error.reason or type(error).__name__}") from None
        except (OSError, asyncssh.Error) as error:
            raise DeviceError(f"{self.spec}: cannot {what}: {str(error) or type(error).__name__}") from None


def open_ssh(address: str) -> SshDevice:
    """`ssh:USER@HOST[:PORT]`, with the keys, known hosts and configuration of OpenSSH. Raises DeviceError."""
    try:
        import asyncssh  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise DeviceError("ssh needs asyncssh; pip install 'burnish[devices]'") from None
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise DeviceError(f"{address!r} is no address; expected ssh:USER@HOST or ssh:USER@HOST:PORT")
    options: dict[str, Any] = {}
    if found["user"]:
        options["username"] = found["user"]
    if found["port"]:
        options["port"] = int(found["port"])
    return SshDevice(f"ssh:{address}", found["host"], **options)


def connected() -> list[str]:
    """None: ssh finds nobody by itself."""
    return []
