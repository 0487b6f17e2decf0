"""The report as Markdown, short enough for a README: latency, the chain of losses, the gate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .chain import Cell, chain, label, links
from .contents import Contents
from .latency import MIB, emulated
from .numerics import Numerics
from .perf import Perf


def markdown(contents: Contents) -> str:
    """All of it; emulated times are nowhere."""
    lines = [f"# {contents.name}", ""]
    if contents.perf is not None:
        lines += _latency(contents.perf)
    if contents.numerics is not None:
        lines += _accuracy(contents.numerics)
    if contents.manifest is not None:
        teachers = ", ".join(teacher.name for teacher in contents.manifest.provenance.teachers) or "none"
        lines += [f"Weights: {contents.manifest.licence}. Teachers: {teachers}.", ""]
    return "\n".join(lines)


def rows(head: Sequence[str], body: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """A table; all but the first `words` columns are set right."""
    rule = ["---" if index < words else "---:" for index in range(len(head))]
    return [_row(head), _row(rule), *map(_row, body), ""]


def _row(cells: Sequence[str]) -> str:
    # What a device says of itself may hold what Markdown would read as its own.
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _latency(perf: Perf) -> Iterator[str]:
    measured = perf.measured
    if measured:
        yield f"Milliseconds of one encode and one refine of a tile, {perf.made[:10]}:"
        yield ""
        head = ("device", "program", "threads", "p50", "p90", "p99", "load, cold", "memory, MiB")
        yield from rows(
            head,
            (
                (
                    device.device,
                    row.program,
                    str(row.threads),
                    *(f"{ms:.1f}" for ms in (row.iteration.p50_ms, row.iteration.p90_ms, row.iteration.p99_ms)),
                    f"{row.load_cold_ms:.0f}",
                    f"{row.program_bytes / MIB:.0f}",
                )
                for device, row in measured
            ),
            words=2,
        )
    for device, row in emulated(perf):
        yield f"- {device.device}: {row.program}: {row.note}"
    for device in perf.devices:
        if device.failure is not None:
            yield f"- {device.device}: {device.failure}".replace("<", "&lt;")
        elif device.identity is not None:
            what = device.identity
            yield f"- {device.device}: {what.model}, {what.cpu}, {what.cores} cores, {what.os}".replace("<", "&lt;")
    yield ""


def _accuracy(numerics: Numerics) -> Iterator[str]:
    keys = links(numerics)
    yield (
        f"PSNR in dB after iteration {numerics.iterations} on {numerics.picture_set}, "
        "in brackets the change from the link before; **bold**: the gate fails there."
    )
    yield ""
    body = [(line.name, *map(_cell, line.cells)) for line in chain(numerics)]
    yield from rows(("condition", *map(label, keys)), body)
    if numerics.passed:
        yield "Gate: passed."
    else:
        yield f"Gate: **failed** by {', '.join(sorted({failure.candidate for failure in numerics.failures}))}."
    yield ""


def _cell(cell: Cell) -> str:
    if cell.psnr is None:
        return "–"
    change = "" if cell.change is None else f" ({round(cell.change, 2) + 0.0:+.2f})"
    text = f"{cell.psnr:.2f}{change}"
    return f"**{text}**" if cell.failed else text
