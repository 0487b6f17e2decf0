"""From runs to a judged measurement. Pure: the same runs give the same figures, whoever ran them, and wherever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .decisions import decide
from .gate import Gate
from .losses import Compared, against, average, drift, loss_db
from .numerics import ALL, BASELINE, INPUT, TEACHER, Decision, Drift, Failure, Key, Measurement, Row, Run, Worst

# Measure in `Against` → its limit in `Gate`, and what a failure calls it.
LIMITS = {
    "drop_db": ("max_drop_db", "mean PSNR drop, dB"),
    "worst_drop_db": ("max_worst_drop_db", "PSNR drop of the worst 5 %, dB"),
    "ssim_drop": ("max_ssim_drop", "mean SSIM drop"),
    "delta_e": ("max_delta_e", "mean ΔE2000 to the student"),
    "abs_bias": ("max_bias", "brightness bias, 1/255"),
}
SAME_STOP = "same stopping iteration"
SPEED = "speed against float"
WORST_LISTED = 10  # pictures of every program


def summarise(runs: Sequence[Run], gate: Gate, iterations: int) -> Measurement:
    """Figures of every candidate by condition, pooled over conditions too, and what the gate says.

    `runs` hold the full-precision student's for every picture and condition that a program has one for.
    """
    students = {(run.condition, run.picture): run for run in runs if run.key == (BASELINE, None)}
    groups = {run.condition: run.group for run in runs}
    pools = [(name, group, [run for run in runs if run.condition == name]) for name, group in groups.items()]
    pools.append((ALL, ALL, [run for run in runs if run.group != "clean"]))
    rows: list[Row] = []
    drifts: list[Drift] = []
    decisions: list[Decision] = []
    for condition, group, members in pools:
        for key, own in _by_candidate(members):
            compared = [Compared(run, students[run.condition, run.picture]) for run in own]
            if key == (BASELINE, None):
                rows.append(_row(condition, group, (INPUT, None), compared, 0))
            rows += [_row(condition, group, key, compared, t) for t in range(1, iterations + 1)]
            if own[0].student:
                drifts.append(drift(condition, compared, gate))
    # Stopping is a question for clean pictures too.
    pools[-1] = (ALL, ALL, list(runs))
    for condition, _, members in pools:
        for _, own in _by_candidate(members):
            if own[0].student:
                compared = [Compared(run, students[run.condition, run.picture]) for run in own]
                decisions.append(decide(condition, compared))
    return Measurement(
        gate=gate,
        iterations=iterations,
        rows=tuple(rows),
        decisions=tuple(decisions),
        drifts=tuple(drifts),
        failures=tuple(judge(rows, decisions, gate)),
    )


def _by_candidate(runs: Sequence[Run]) -> list[tuple[Key, list[Run]]]:
    """Runs by candidate and device: teacher, student, programs."""
    found: dict[Key, list[Run]] = {}
    for run in runs:
        found.setdefault(run.key, []).append(run)
    first = {TEACHER: 0, BASELINE: 1}
    return sorted(found.items(), key=lambda item: first.get(item[0][0], 2))


def _row(condition: str, group: str, key: Key, runs: Sequence[Compared], iteration: int) -> Row:
    return Row(
        condition=condition,
        group=group,
        candidate=key[0],
        device=key[1],
        iteration=iteration,
        pictures=len(runs),
        truth=average([run.truth[iteration] for run, _ in runs]),
        student=against(runs, iteration) if iteration and runs[0].run.student else None,
    )


def judge(rows: Sequence[Row], decisions: Sequence[Decision], gate: Gate) -> Iterator[Failure]:
    """Every limit that a program passes: by condition and iteration, and the stopping iteration over all pictures."""
    for row in rows:
        for measure, (setting, name) in LIMITS.items():
            limit = gate.drop_limit(row.candidate) if measure == "drop_db" else getattr(gate, setting)
            value = getattr(row.student, measure, None)
            if value is not None and limit is not None and value > limit:
                yield Failure(
                    metric=name,
                    condition=row.condition,
                    candidate=row.candidate,
                    device=row.device,
                    iteration=row.iteration,
                    value=value,
                    limit=limit,
                )
    for decision in decisions:
        limit = gate.min_same_stop
        if decision.condition == ALL and limit is not None and decision.same_stop < limit:
            yield Failure(
                metric=SAME_STOP,
                condition=ALL,
                candidate=decision.candidate,
                device=decision.device,
                value=decision.same_stop,
                limit=limit,
            )


def worst_pictures(runs: Sequence[Run]) -> list[Worst]:
    """The pictures of every program that lost most after any iteration, worst first."""
    students = {(run.condition, run.picture): run for run in runs if run.candidate == BASELINE}
    listed: dict[Key, list[Worst]] = {}
    for run in runs:
        if not run.student:
            continue
        truth = students[run.condition, run.picture].truth
        losses = [loss_db(theirs, ours) for theirs, ours in zip(truth, run.truth, strict=True)]
        iteration = max(range(1, len(losses)), key=losses.__getitem__)
        listed.setdefault(run.key, []).append(
            Worst(
                condition=run.condition,
                picture=run.picture,
                candidate=run.candidate,
                device=run.device,
                iteration=iteration,
                drop_db=round(losses[iteration], 4),
            )
        )
    return [row for rows in listed.values() for row in sorted(rows, key=lambda row: -row.drop_db)[:WORST_LISTED]]
