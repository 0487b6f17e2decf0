"""`burnish profile`: a bundle measured on devices, one row of progress each."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from ..runtime.bundle import Bundle, is_embedded
from ..runtime.errors import InputError

if TYPE_CHECKING:
    from ..device_tests.profile import Plan, Progress


def parse_threads(text: str) -> tuple[int, ...]:
    """`1,2,4` as numbers. Raises InputError."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = (-1,)
    if min(counts) < 0 or len(set(counts)) < len(counts):
        raise InputError(f"--threads {text!r} is not understood; expected different numbers such as 1,2,4, or 0")
    return counts


def profile_command(
    bundle: Path | None, devices: Sequence[str], plan: Plan, report: Path, seed: bool, by_app: bool, console: Console
) -> tuple[dict[str, Any], bool]:
    """Measure, write perf.json, put what was measured into the bundle; whether every device answered.

    An embedded bundle, which belongs to the installation, is left as it is. Raises InputError for a device of no known kind.
    """
    from ..device_tests.contents import read_contents
    from ..device_tests.devices import kind_of
    from ..device_tests.latency import table
    from ..device_tests.perf import PERF
    from ..device_tests.profile import profile, seed_profiles
    from ..device_tests.report import PAGE, write_report

    for spec in devices:
        kind_of(spec)
    opened = Bundle.open(bundle)
    with _rows(devices, console) as show:
        perf = profile(opened, devices, plan, report, show, by_app=by_app)
    failed = [row for row in perf.devices if row.failure is not None and row.device in devices]
    for row in failed:
        console.print(f"error: {row.failure}", markup=False, highlight=False, soft_wrap=True)
    lines = [table(perf), f"report: {report / PERF}, {report / PAGE}"]
    if seed and is_embedded(opened.path):
        lines.append(f"no profiles put into {opened.path}, which belongs to the installation")
    elif seed and perf.measured:
        seeded = seed_profiles(opened, perf)
        lines.append(f"profiles put into {opened.path}: {len(seeded)}")
        opened = Bundle.open(opened.path)
    write_report(read_contents(report, opened), report)
    return perf.model_dump(mode="json") | {"summary": "\n".join(lines)}, not failed


@contextmanager
def _rows(devices: Sequence[str], console: Console) -> Generator[Progress]:
    """A bar a device; without a terminal a line a step."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    lock = Lock()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {device: bars.add_task(escape(device), total=None) for device in devices}

        def show(device: str, what: str, done: int, total: int) -> None:
            with lock:
                bars.update(tasks[device], description=escape(f"{device}  {what}"), completed=done, total=total)
                if not console.is_terminal:
                    console.print(f"{device}: {done}/{total} {what}", markup=False, highlight=False, soft_wrap=True)

        yield show
