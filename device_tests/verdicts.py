"""What the gate says of a program: every measure where it is worst, beside its limit."""

from __future__ import annotations

from typing import NamedTuple

from .numerics import ALL, Key, Numerics
from .summary import LIMITS, SAME_STOP


class Verdict(NamedTuple):
    """One measure of one program; `limit` None: it is not judged. `failed`: under how many conditions."""

    measure: str
    value: str
    limit: float | None
    where: str
    failed: int


def verdicts(numerics: Numerics, key: Key) -> list[Verdict]:
    """Judged measures, decisions, drift and speed."""
    rows = [(row, row.student) for row in numerics.rows if row.key == key and row.student is not None]
    found: list[Verdict] = []
    for measure, (setting, name) in LIMITS.items():
        limit = numerics.gate.drop_limit(key[0]) if measure == "drop_db" else getattr(numerics.gate, setting)
        row, student = max(rows, key=lambda pair, m=measure: getattr(pair[1], m))
        failed = {f.condition for f in numerics.failures if (f.candidate, f.device) == key and f.metric == name}
        where = f"{row.condition}, iteration {row.iteration}"
        found.append(Verdict(name, f"{getattr(student, measure):.3f}", limit, where, len(failed - {ALL})))
    decision = next(d for d in numerics.decisions if d.condition == ALL and (d.candidate, d.device) == key)
    limit = numerics.gate.min_same_stop
    missed = limit is not None and decision.same_stop < limit
    stops = "{:.2f} iterations run, student {:.2f}".format(*decision.mean_stop)
    found.append(Verdict(SAME_STOP, f"{decision.same_stop:.1%}", limit, stops, int(missed)))
    gates = " / ".join(f"{share:.0%}" for share in decision.same_gates)
    found.append(Verdict("same experts open, by iteration", gates, None, "share of pictures that agree", 0))
    found.append(
        Verdict(
            "loss of what is returned, dB",
            f"{round(decision.returned_drop_db, 3) + 0.0:.3f}",
            None,
            "each by its own decisions",
            0,
        )
    )
    drifts = [d for d in numerics.drifts if (d.candidate, d.device) == key]
    steepest = max(drifts, key=lambda d: d.growth_db)
    alarms = [d.condition for d in drifts if d.alarm and d.condition != ALL]
    more = f" and {len(alarms) - 3} more" if len(alarms) > 3 else ""
    where = f"ALARM: {', '.join(alarms[:3])}{more}" if alarms else f"no alarm; steepest: {steepest.condition}"
    found.append(Verdict("drift, dB an iteration", f"{round(steepest.growth_db, 3) + 0.0:+.3f}", None, where, 0))
    found.append(Verdict("speed", numerics.speed.get(key[0], ""), None, "", 0))
    return found
