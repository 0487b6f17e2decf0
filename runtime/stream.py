"""A restoration that is watched while it runs: iterate over its updates, plainly or with `async for`."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

from .restoration import Restoration, Update
from .run import Run


class Stream(Iterator[Update], AsyncIterator[Update]):
    """Updates of one restoration, one a refine. Steps run while the next update is waited for; the budget runs on."""

    def __init__(self, run: Run, cancelled: threading.Event) -> None:
        self._run, self._cancelled = run, cancelled
        self._updates = run.updates()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Update:
        return next(self._updates)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Update:
        import asyncio  # a tenth of the time that the runtime takes to import

        try:
            update = await asyncio.to_thread(next, self._updates, None)
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
        """The restoration as far as it got; whole once the updates have ended."""
        return self._run.result()
