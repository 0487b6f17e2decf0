"""The measurement as plain text: the chain in dB, what the gate says of every program, the verdict."""

from __future__ import annotations

import io

from rich import box
from rich.console import Console
from rich.table import Table

from .chain import Cell, chain, label, links
from .numerics import Numerics
from .verdicts import verdicts

# Wide enough for every program; a terminal that is narrower wraps, a file does not.
WIDTH = 240


def table(numerics: Numerics) -> str:
    """Changes from the link before are in brackets; `!` marks a program that fails the gate there."""
    keys = links(numerics)
    overview = _table(f"PSNR in dB, iteration {numerics.iterations}")
    for key in keys:
        overview.add_column(label(key).replace(" on ", "\non ").replace("-", "-\n"), justify="right", vertical="bottom")
    lines = chain(numerics)
    for index, line in enumerate(lines):
        last = index + 1 < len(lines) and lines[index + 1].mean and not line.mean
        overview.add_row(line.name, *map(_cell, line.cells), end_section=last)
    parts: list[Table | str] = [overview]
    for key in numerics.programs:
        judged = _table(label(key))
        for head in ("worst", "limit", "", "where"):
            judged.add_column(head, justify="left" if head == "where" else "right")
        for verdict in verdicts(numerics, key):
            failed = f"FAILED ({verdict.failed})" if verdict.failed else ""
            judged.add_row(verdict.measure, verdict.value, verdict.limit, failed, verdict.where)
        parts.append(judged)
    # Programs that nothing here runs are refused by their profiles alone.
    run = {name for name, _ in numerics.programs}
    parts += [str(failure) for failure in numerics.failures if failure.candidate not in run]
    failed = sorted({failure.candidate for failure in numerics.failures})
    parts.append("gate: passed" if numerics.passed else f"gate: FAILED by {', '.join(failed)}")
    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)
    return "\n".join(text.rstrip() for text in stream.getvalue().splitlines())


def _table(title: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column(title, no_wrap=True)
    return grid


def _cell(cell: Cell) -> str:
    if cell.psnr is None:
        return "-"
    change = "" if cell.change is None else f" ({round(cell.change, 2) + 0.0:+.2f})"
    return f"{cell.psnr:.2f}{change}{'!' if cell.failed else ' ' if change else ''}"
