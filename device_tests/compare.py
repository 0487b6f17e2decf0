"""Two bundles side by side: what got better, what got worse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .chain import label
from .contents import Contents
from .markdown import rows
from .numerics import ALL
from .perf import DevicePerf, ProgramPerf

# What passes for the same: dB, and shares of a time or of a size.
SAME_DB, SAME_TIME, SAME_SIZE = 0.05, 0.05, 0.02
WORSE, BETTER = "worse", "better"


class Difference(NamedTuple):
    """One figure of both; `change` as shown, `verdict`: worse, better, or nothing."""

    measure: str
    where: str
    before: float
    after: float
    change: str
    verdict: str


class Comparison(NamedTuple):
    """All figures that both have, and why others are missing."""

    before: str
    after: str
    differences: tuple[Difference, ...]
    missing: tuple[str, ...]

    @property
    def regressed(self) -> bool:
        """Whether anything is worse."""
        return any(row.verdict == WORSE for row in self.differences)


def compare(before: Contents, after: Contents) -> Comparison:
    """What changed from one to the other; only what was measured of both, and alike."""
    missing = [*_unlike(before, after)]
    found = [*_accuracy(before, after)] if not missing else []
    found += _times(before, after)
    found += _sizes(before, after)
    if before.perf is None or after.perf is None:
        missing.append("latency was not measured of both; run `burnish profile`")
    return Comparison(before.name, after.name, tuple(found), tuple(missing))


def describe(comparison: Comparison) -> str:
    """The comparison as Markdown, with what is worse in bold."""
    names = comparison.before, comparison.after
    if names[0] == names[1]:
        names = f"{names[0]} (before)", f"{names[1]} (after)"
    body = [
        (
            row.measure,
            row.where,
            f"{row.before:.2f}",
            f"{row.after:.2f}",
            row.change,
            f"**{row.verdict}**" if row.verdict == WORSE else row.verdict,
        )
        for row in comparison.differences
    ]
    worse = sum(row.verdict == WORSE for row in comparison.differences)
    better = sum(row.verdict == BETTER for row in comparison.differences)
    lines = rows(("measure", "where", *names, "change", ""), body, words=2) if body else []
    lines += [f"- not compared: {reason}" for reason in comparison.missing]
    lines.append(f"{len(body)} figures: {worse} worse, {better} better.")
    return "\n".join(lines)


def _unlike(before: Contents, after: Contents) -> Iterator[str]:
    one, other = before.numerics, after.numerics
    if one is None or other is None:
        yield "accuracy was not measured of both; run `burnish validate`"
        return
    for name in ("protocol_sha256", "picture_set", "iterations"):
        values = getattr(one, name), getattr(other, name)
        if values[0] != values[1]:
            yield f"accuracy: {name} is {values[0]} before and {values[1]} after; validate both alike"


def _accuracy(before: Contents, after: Contents) -> Iterator[Difference]:
    one, other = before.numerics, after.numerics
    assert one is not None
    assert other is not None
    for row in one.rows:
        new = other.row(row.condition, row.key, row.iteration)
        # The input is the same; of pictures that are nearly clean nobody sees a difference.
        if new is None or not row.iteration or row.pictures != new.pictures:
            continue
        where = f"{row.condition}, {label(row.key)}, iteration {row.iteration}"
        change = min(40.0, new.truth.psnr) - min(40.0, row.truth.psnr)
        yield _difference("PSNR, dB", where, row.truth.psnr, new.truth.psnr, f"{change:+.2f}", change, SAME_DB)
        if row.student is not None and new.student is not None and row.condition == ALL:
            one_de, other_de = row.student.delta_e, new.student.delta_e
            yield _difference(
                "ΔE2000 to the student",
                where,
                one_de,
                other_de,
                f"{other_de - one_de:+.2f}",
                one_de - other_de,
                SAME_DB,
            )


def _times(before: Contents, after: Contents) -> Iterator[Difference]:
    if before.perf is None or after.perf is None:
        return
    new = {_place(device, row): row for device, row in after.perf.measured}
    for device, row in before.perf.measured:
        other = new.get(_place(device, row))
        if other is None:
            continue
        where = f"{device.device}, {row.program}, {row.threads} threads"
        for measure, ours, theirs, same in (
            ("iteration p50, ms", row.iteration.p50_ms, other.iteration.p50_ms, SAME_TIME),
            ("iteration p99, ms", row.iteration.p99_ms, other.iteration.p99_ms, 2 * SAME_TIME),
            ("load cold, ms", row.load_cold_ms, other.load_cold_ms, 4 * SAME_TIME),
            ("memory, MiB", row.program_bytes / 2**20, other.program_bytes / 2**20, SAME_TIME),
        ):
            yield _ratio(measure, where, ours, theirs, same)


def _place(device: DevicePerf, row: ProgramPerf) -> tuple[str, str, int]:
    """Times of another kind of device are not compared, whatever it is called."""
    assert device.identity is not None
    return f"{device.device} {device.identity.device_class}", row.program, row.threads


def _sizes(before: Contents, after: Contents) -> Iterator[Difference]:
    if before.manifest is None or after.manifest is None:
        return
    new = {program.name: sum(file.bytes for file in program.files) for program in after.manifest.programs}
    for program in before.manifest.programs:
        if program.name in new:
            size = sum(file.bytes for file in program.files)
            yield _ratio("program, MiB", program.name, size / 2**20, new[program.name] / 2**20, SAME_SIZE)


def _ratio(measure: str, where: str, before: float, after: float, same: float) -> Difference:
    share = after / before - 1 if before else 0.0
    return _difference(measure, where, before, after, f"{share:+.1%}", -share, same)


def _difference(
    measure: str, where: str, before: float, after: float, change: str, gain: float, same: float
) -> Difference:
    verdict = WORSE if gain < -same else BETTER if gain > same else ""
    return Difference(measure, where, before, after, change, verdict)
