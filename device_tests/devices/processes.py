"""Local processes: started without a shell, in a group of their own, ended as a whole when their time is up."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from ...runtime.errors import DeviceError
from .result import Result


def run_local(
    what: str, arguments: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> Result:
    """Run a command and wait. Raises DeviceError when it cannot be started, was killed, or takes longer."""
    try:
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=None if environment is None else {**os.environ, **environment},
        )
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else str(error)
        return Result(127, "", f"{arguments[0]} cannot be started: {detail}")
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"{what}: {arguments[0]} took longer than {timeout_s:.0f} s; raise --limit-s or see why it hangs"
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
