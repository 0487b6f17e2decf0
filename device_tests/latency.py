"""Latency in words: what `burnish profile` prints and what goes into a README. Emulated times are nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .perf import DevicePerf, Perf, ProgramPerf

MIB = 2**20
BARS = 14


def table(perf: Perf) -> str:
    """A plain-text table of what was measured, then what emulators proved, then what is to be known of single rows."""
    lines: list[str] = []
    measured = perf.measured
    if measured:
        width = max(len("device"), *(len(device.device) for device, _ in measured)) + 2
        head = (
            f"{'device':<{width}}{'program':<26}{'threads':>7}{'encode':>9}{'refine':>9}{'p50':>9}{'p90':>9}{'p99':>9}"
        )
        lines.append(f"{head}{'load':>9}{'MiB':>7}")
        for device, row in measured:
            times = (row.encode.p50_ms, row.refine.p50_ms, row.iteration.p50_ms, row.iteration.p90_ms)
            cells = "".join(f"{ms:>9.2f}" for ms in (*times, row.iteration.p99_ms, row.load_cold_ms))
            lines.append(
                f"{device.device:<{width}}{row.program:<26}{row.threads:>7}{cells}{row.program_bytes / MIB:>7.0f}"
            )
        lines.append("milliseconds; encode and refine: p50; p50 to p99: of one encode and one refine; load: cold")
    lines += [f"{device.device}: {row.program}: {row.note}" for device, row in emulated(perf)]
    lines += [f"{device.device}: {row.program}: {note}" for device, row in _all(perf) for note in notes(row)]
    return "\n".join(lines) or "nothing was measured"


def notes(row: ProgramPerf) -> Iterator[str]:
    """What should be known of a row: heat, kernels, accuracy."""
    if row.throttled:
        yield f"slowed down while it was measured ({row.drift:.2f} times): throttled or busy"
    if row.kernels is not None and row.program.endswith("int8"):
        counted = row.kernels
        yield (
            f"{counted.int8_share:.0%} of {counted.int8 + counted.float32 - counted.declared_float} convolutions "
            f"meant for int8 ran in int8"
        )
    if row.against_host is not None:
        same = row.against_host
        yield (
            "equal to the host's output"
            if same.max_difference == 0
            else f"{same.within_one_level:.2%} of values within 1/255 of the host's, at most {same.max_difference:.2g} away"
        )
    if row.against_student is not None:
        yield f"{row.against_student.psnr_db:.1f} dB from the full-precision student on the worst test tile"


class Bar(NamedTuple):
    """What all kernels of one name take in a run of one method; `share`: of the longest bar."""

    method: str
    name: str
    times: int
    ms: float
    share: float


def bars(row: ProgramPerf) -> list[Bar]:
    """The operations that take most, longest first; none where nothing was timed."""
    timed = sorted((o for o in row.operations if o.ms), key=lambda o: -(o.ms or 0.0))[:BARS]
    longest = (timed[0].ms or 1.0) if timed else 1.0
    return [Bar(o.method, o.name, o.count, o.ms or 0.0, (o.ms or 0.0) / longest) for o in timed]


def emulated(perf: Perf) -> list[tuple[DevicePerf, ProgramPerf]]:
    """What emulators ran: right about numbers, not about time."""
    return [(device, row) for device, row in _all(perf) if row.note]


def _all(perf: Perf) -> list[tuple[DevicePerf, ProgramPerf]]:
    return [(device, row) for device in perf.devices for row in device.programs]
