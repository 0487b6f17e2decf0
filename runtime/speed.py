"""Whether a quantised program earns its place: its time against the float program of the same target on the same device."""

from __future__ import annotations

from typing import NamedTuple

from .bundle import Manifest, Profile

FLOAT = ("fp32", "fp16")
UNMEASURED = "unmeasured"


class Speed(NamedTuple):
    """One quantised program on one device; `ratio`: the float program's time by its own, above 1 where it is faster."""

    program: str
    rival: str
    device: str
    ratio: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} times as fast as {self.rival} on {self.device}"


def speeds(manifest: Manifest) -> list[Speed]:
    """Every quantised program on every device where a float program of its target was measured too, by one iteration.

    Of several float programs the fastest counts.
    """
    kinds = {program.name: program for program in manifest.programs}
    found: list[Speed] = []
    for profile in manifest.profiles:
        program = kinds.get(profile.program)
        if program is None or program.precision in FLOAT:
            continue
        rivals = [
            other
            for other in manifest.profiles
            if other.device == profile.device
            and other.program in kinds
            and kinds[other.program].target == program.target
            and kinds[other.program].precision in FLOAT
        ]
        if rivals:
            rival = min(rivals, key=iteration_ms)
            ratio = iteration_ms(rival) / iteration_ms(profile)
            found.append(Speed(program.name, rival.program, profile.device, ratio))
    return found


def not_faster(manifest: Manifest) -> list[Speed]:
    """The quantised programs to refuse: no faster than float on a device where both were measured."""
    return [speed for speed in speeds(manifest) if speed.ratio <= 1]


def describe_speed(manifest: Manifest, program: str) -> str:
    """What is known of a program's speed against float, in words; `unmeasured` where nothing was compared."""
    return "; ".join(str(s) for s in speeds(manifest) if s.program == program) or UNMEASURED


def iteration_ms(profile: Profile) -> float:
    """Mean milliseconds of one encode and one refine."""
    return profile.encode_ms[0] + profile.refine_ms[0]
