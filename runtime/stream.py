"""A restoration that is watched while it runs: iterate over its updates, plainly or with `async for`."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .restoration import Restoration, Update
from .run import Run

T = TypeVar("T")


class Stream(Iterator[Update], AsyncIterator[Update]):
    """Updates of one restoration, one a refine. Steps run while the next update is waited for; the budget runs on.

    `cancelled`: set by `cancel`, and what `run` asks.
    """

    def __init__(self, run: Run, cancelled: threading.Event) -> None:
        self._run, self._cancelled = run, cancelled
        self._updates = run.updates()
        # A step that nobody waits for any more still runs: who comes next, or asks for the result, waits for its end.
        self._turn = threading.Lock()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Update:
        with self._turn:
            return next(self._updates)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Update:
        import asyncio  # a tenth of the time that the runtime takes to import

        try:
            update = await in_thread(lambda: next(self, None))
        except asyncio.CancelledError:
            self.cancel()
            raise
        if update is None:
            raise StopAsyncIteration
        return update

    def cancel(self) -> None:
        """End after the step that is running; may be called from any thread."""
        self._cancelled.set()

    @property
    def result(self) -> Restoration:
        """The restoration as far as it got, whole once the updates have ended; waits for the step that is running."""
        with self._turn:
            return self._run.result()


async def in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, in a thread of its own: the event loop's are few, and calls that wait for others would take all."""
    import asyncio

    executor = ThreadPoolExecutor(1, "burnish-async")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, work)
    finally:
        executor.shutdown(wait=False)
