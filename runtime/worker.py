"""One thread that runs a session's calls in the order they come, so that any number of threads can share the session.

Whoever asked waits no longer than it wants: a call that is late is left to end by itself and its result is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

T = TypeVar("T")


class Late(Exception):
    """The answer did not come in time."""


class Worker:
    """Runs one call at a time."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="burnish")

    def call(self, work: Callable[[], T], timeout_s: float | None, took: Callable[[float], None]) -> tuple[T, float]:
        """The result of `work` and its milliseconds without the wait; `took` is told them, also of work that is late.

        Raises Late after `timeout_s`, and whatever `work` raises.
        """

        def timed() -> tuple[T, float]:
            began = time.perf_counter()
            result = work()
            ms = (time.perf_counter() - began) * 1e3
            took(ms)
            return result, ms

        future: Future[tuple[T, float]] = self._executor.submit(timed)
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            if future.done():  # just now, or the work itself raised a time-out
                return future.result()
            future.cancel()
            raise Late from None
