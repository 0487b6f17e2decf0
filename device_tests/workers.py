"""Measuring pictures in this process, or in several of one thread each: more throughput than threads within a picture."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import NamedTuple

from ..distill.recipe import Frozen
from ..runtime.bundle import Bundle
from ..runtime.cores import usable_cores
from ..runtime.errors import BackendError
from .candidates import Candidates, Result
from .pairs import PairSet


class Load(Frozen):
    """What every worker loads, and for how many iterations it runs."""

    bundle: Path
    programs: tuple[str, ...]
    teacher: Path | None
    iterations: int
    device: str | None = None


class Task(NamedTuple):
    """Pair `at` of a set; `show`: keep the whole picture for the report."""

    pairs: PairSet
    at: int
    show: bool


@contextmanager
def measuring(load: Load, processes: int) -> Generator[Callable[[Sequence[Task]], Iterable[Result]]]:
    """Yields what measures tasks, in their order, in this process or in `processes` others. Raises BackendError."""
    if processes == 1:
        worker = _Worker(load, threads=usable_cores())
        try:
            yield lambda tasks: map(worker.measure, tasks)
        finally:
            worker.close()
        return
    # Not forked: the libraries' thread pools do not survive that.
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (load,)) as pool:
        try:
            yield lambda tasks: pool.map(_measure, tasks)
        except BrokenProcessPool:
            raise BackendError(
                f"one of {processes} workers was ended, as where memory runs out; use fewer jobs"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Worker:
    """Candidates, loaded when the first picture comes: what fails then reaches the caller."""

    def __init__(self, load: Load, threads: int) -> None:
        self._load, self._threads = load, threads
        self._candidates: Candidates | None = None

    def measure(self, task: Task) -> Result:
        load = self._load
        if self._candidates is None:
            self._candidates = Candidates.load(
                Bundle.open(load.bundle), load.programs, load.teacher, self._threads, load.device
            )
        pair = task.pairs.read(task.at)
        return self._candidates.measure(task.pairs.condition, pair, load.iterations, task.show)

    def close(self) -> None:
        """Let go of what was loaded."""
        if self._candidates is not None:
            self._candidates.close()


# Where a pool's initialiser leaves what its tasks need; one a process.
_worker: _Worker | None = None


def _start(load: Load) -> None:
    global _worker
    import torch

    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _worker = _Worker(load, threads=1)


def _leave_with_parent() -> None:
    """A killed parent does not end its workers: they would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measure(task: Task) -> Result:
    assert _worker is not None
    return _worker.measure(task)
