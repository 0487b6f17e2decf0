"""What the gate says of a program: every measure where it is worst, beside its limit."""

from __future__ import annotations

from typing import NamedTuple

from .numerics import ALL, Key, Numerics
from .summary import LIMITS, SAME_STOP, SPEED


class Verdict(NamedTuple):
    """One measure of one program; an empty `limit`: it is not judged. `failed`: under how many conditions."""

    measure: str
    value: str
    where: str
    limit: str = ""
    failed: int = 0


def verdicts(numerics: Numerics, key: Key) -> list[Verdict]:
    """Judged measures, decisions, drift and speed."""
    program, device = key
    failures = [f for f in numerics.failures if f.candidate == program]
    rows = [(row, row.student) for row in numerics.rows if row.key == key and row.student is not None]
    found: list[Verdict] = []
    for measure, (setting, name) in LIMITS.items():
        limit = numerics.gate.drop_limit(program) if measure == "drop_db" else getattr(numerics.gate, setting)
        row, student = max(rows, key=lambda pair, m=measure: getattr(pair[1], m))
        failed = {f.condition for f in failures if f.device == device and f.metric == name} - {ALL}
        where = f"{row.condition}, iteration {row.iteration}"
        found.append(Verdict(name, _number(getattr(student, measure)), where, _limit(limit, "g"), len(failed)))

    decision = next(d for d in numerics.decisions if d.condition == ALL and (d.candidate, d.device) == key)
    limit = numerics.gate.min_same_stop
    stops = "{:.2f} iterations run, student {:.2f}".format(*decision.mean_stop)
    missed = limit is not None and decision.same_stop < limit
    found.append(Verdict(SAME_STOP, f"{decision.same_stop:.1%}", stops, _limit(limit, ".0%"), int(missed)))
    gates = " / ".join(f"{share:.0%}" for share in decision.same_gates)
    found.append(Verdict("same experts open, by iteration", gates, "share of pictures that agree"))
    lost = _number(decision.returned_drop_db)
    found.append(Verdict("loss of what is returned, dB", lost, "each by its own decisions"))

    own = [d for d in numerics.decisions if (d.candidate, d.device) == key and d.condition != ALL]
    dearest = max(own, key=lambda d: d.stop_cost_db[0])
    where = f"{dearest.condition}; student {dearest.stop_cost_db[1]:.3f}"
    found.append(Verdict("PSNR its own stops cost, dB", _number(dearest.stop_cost_db[0]), where))

    drifts = [d for d in numerics.drifts if (d.candidate, d.device) == key]
    steepest = max(drifts, key=lambda d: d.growth_db)
    alarms = [d.condition for d in drifts if d.alarm and d.condition != ALL]
    more = f" and {len(alarms) - 3} more" if len(alarms) > 3 else ""
    where = f"ALARM: {', '.join(alarms[:3])}{more}" if alarms else f"no alarm; steepest: {steepest.condition}"
    found.append(Verdict("drift, dB an iteration", _number(steepest.growth_db), where))
    slow = sum(f.metric == SPEED for f in failures)
    found.append(Verdict("speed", "", numerics.speed.get(program, ""), failed=slow))
    return found


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # never -0.000


def _limit(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
