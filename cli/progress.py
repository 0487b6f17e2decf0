"""How far a long count is: a bar for people, a line a minute for logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console

# Seconds between lines of progress where there is no terminal to draw a bar on.
QUIET_SECONDS = 60.0

# Done, in all, what is being done.
Show = Callable[[int, int, str], None]


@contextmanager
def counting(verb: str, console: Console) -> Generator[Show]:
    """Yields what is to be called after every unit of work; work done before the first call does not count for the ETA."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[eta]}"))
    began = printed = time.monotonic()
    first: int | None = None
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(verb, total=None, eta="")

        def show(done: int, total: int, what: str) -> None:
            nonlocal began, first, printed
            now = time.monotonic()
            if first is None:
                first, began = done, now
            eta = f"eta {(now - began) / (done - first) * (total - done) / 60:.1f} min" if done > first else ""
            bar.update(task, completed=done, total=total, description=f"{verb}: {what}", eta=eta)
            if not console.is_terminal and now - printed >= QUIET_SECONDS:
                console.print(f"{verb}: {done}/{total}  {eta}  {what}", highlight=False, soft_wrap=True)
                printed = now

        yield show
