"""One thread that runs a session's calls in the order they come, so that any number of threads can share the session.

Whoever asked waits no longer than it wants: a call that is late is left to end by itself and its result is dropped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from .errors import BackendError

T = TypeVar("T")
# How fast a slow awakening is forgotten: half of it after 14 calls.
FORGET = 0.95


class Late(Exception):
    """The answer did not come in time."""


class Worker:
    """Runs one call at a time."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="burnish")
        # Milliseconds from the end of a call, or of the wait for it, to its caller's next step: the longest of late.
        self._wake_ms = 0.0

    def call(self, work: Callable[[], T], timeout_s: float | None, took: Callable[[float], None]) -> T:
        """The result of `work`; `took` is told its milliseconds without the wait, also of work that is late.

        `timeout_s` is when the caller wants to go on: the wait ends before it, by as much as waking up may take here. Raises
        Late then, BackendError in a fork of the process, where the thread is not, and whatever `work` raises.
        """
        if os.getpid() != self._process:
            raise BackendError(
                "this Restorer was loaded before the process forked; load it in each process, after the fork"
            )

        def timed() -> tuple[T, float]:
            began = time.perf_counter()
            result = work()
            ended = time.perf_counter()
            took((ended - began) * 1e3)
            return result, ended

        future: Future[tuple[T, float]] = self._executor.submit(timed)
        wait_s = None if timeout_s is None else max(0.0, timeout_s - self._wake_ms / 1e3)
        until = time.perf_counter() + (wait_s or 0.0)
        try:
            result, ended = future.result(wait_s)
        except FutureTimeout:
            self._woke(until)
            if future.done():  # just now, or the work itself raised a time-out
                return future.result()[0]
            future.cancel()
            raise Late from None
        self._woke(ended)
        return result

    def _woke(self, since: float) -> None:
        self._wake_ms = max((time.perf_counter() - since) * 1e3, FORGET * self._wake_ms)
