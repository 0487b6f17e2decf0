"""From pictures to figures, decisions, drift and the verdict, on runs made by hand."""

from __future__ import annotations

import pytest
from burnish.device_tests.gate import Gate
from burnish.device_tests.losses import worst
from burnish.device_tests.metrics import Comparison
from burnish.device_tests.numerics import ALL, BASELINE, INPUT, Outcome, Run
from burnish.device_tests.summary import SAME_STOP, summarise, worst_pictures
from burnish.runtime.controller import Stop

INT8 = "executorch-xnnpack-int8"
STEADY = (Outcome(stop=3, kept=2, reason=Stop.REGRESSION),)
EARLY = (Outcome(stop=2, kept=1, reason=Stop.REGRESSION),)


def compared(psnr: float, ssim: float = 0.9, delta_e: float = 0.1, bias: float = 0.0) -> Comparison:
    return Comparison(psnr=psnr, ssim=ssim, delta_e=delta_e, bias=bias)


def pair(
    picture: str = "a",
    condition: str = "rain",
    group: str = "single",
    student: tuple[float, ...] = (30.0, 31.0, 31.5),
    drop: tuple[float, ...] = (0.0, 0.0, 0.0),
    near: Comparison | None = None,
    outcomes: tuple[Outcome, ...] = STEADY,
    gates: float = 0.8,
    program: str = INT8,
    device: str | None = None,
) -> list[Run]:
    """The student's run and a program's, over three iterations from a 20 dB input."""
    base = {"condition": condition, "group": group, "picture": picture}
    start = compared(20.0)
    baseline = Run(
        **base,
        candidate=BASELINE,
        truth=(start, *map(compared, student)),
        outcomes=STEADY,
        returned_psnr=student[STEADY[0].kept - 1],
        gates=({"rain": 0.8, "haze": 0.0},) * 3,
    )
    other = Run(
        **base,
        candidate=program,
        device=device,
        truth=(start, *(compared(p - d) for p, d in zip(student, drop, strict=True))),
        student=(near or compared(45.0),) * 3,
        outcomes=outcomes,
        returned_psnr=student[outcomes[0].kept - 1] - drop[outcomes[0].kept - 1],
        gates=({"rain": gates, "haze": 0.0},) * 3,
    )
    return [baseline, other]


def test_equal_figures_pass() -> None:
    measured = summarise(pair(), Gate(), 3)
    assert measured.passed
    row = measured.row("rain", (INPUT, None), 3)
    assert row is not None
    assert (row.iteration, row.truth.psnr) == (0, 20.0)
    assert measured.programs == [(INT8, None)]


@pytest.mark.parametrize(
    ("change", "metric", "value"),
    [
        ({"drop": (0.0, 0.2, 0.0)}, "mean PSNR drop, dB", 0.2),
        ({"near": compared(45.0, delta_e=0.7)}, "mean ΔE2000 to the student", 0.7),
        ({"near": compared(45.0, bias=-0.4)}, "brightness bias, 1/255", 0.4),
        ({"outcomes": EARLY}, SAME_STOP, 0.0),
    ],
)
def test_every_limit_is_judged_and_named(change: dict, metric: str, value: float) -> None:
    failures = summarise(pair(**change), Gate(), 3).failures
    assert {f.metric for f in failures} == {metric}
    assert failures[0].value == pytest.approx(value)
    assert failures[0].candidate == INT8
    assert {f.condition for f in failures} == ({ALL} if metric == SAME_STOP else {"rain", ALL})
    if "drop" in change:
        assert {f.iteration for f in failures} == {2}
        assert str(failures[0]) == f"{INT8}: mean PSNR drop, dB 0.200, limit 0.15 (rain, iteration 2)"
    loose = Gate(max_drop_db=None, max_delta_e=None, max_bias=None, min_same_stop=None)
    assert summarise(pair(**change), loose, 3).passed


def test_a_bias_that_changes_sign_from_picture_to_picture_is_no_excuse() -> None:
    runs = pair("a", near=compared(45.0, bias=0.5)) + pair("b", near=compared(45.0, bias=-0.5))
    measured = summarise(runs, Gate(), 3)
    row = measured.row("rain", (INT8, None), 1)
    assert row is not None
    assert row.student is not None
    assert (row.student.bias, row.student.abs_bias) == (0.0, 0.5)
    assert {f.metric for f in measured.failures} == {"brightness bias, 1/255"}


def test_one_bad_picture_of_many_fails_by_the_worst_alone() -> None:
    runs = [run for i in range(20) for run in pair(str(i), drop=(0.6, 0.0, 0.0) if i == 7 else (0.0, 0.0, 0.0))]
    failures = summarise(runs, Gate(), 3).failures
    assert {(f.metric, f.iteration) for f in failures} == {("PSNR drop of the worst 5 %, dB", 1)}
    assert worst_pictures(runs)[0].picture == "7"


@pytest.mark.parametrize(("count", "taken"), [(1, 1), (3, 1), (20, 1), (21, 2), (24, 2), (100, 5)])
def test_the_worst_are_five_percent_rounded_up(count: int, taken: int) -> None:
    assert worst([float(i) for i in range(count)]) == pytest.approx(sum(range(count - taken, count)) / taken)


def test_what_is_above_40_db_is_not_lost() -> None:
    clean = {"condition": "clean", "group": "clean", "student": (55.0, 50.0, 39.0)}
    assert summarise(pair(**clean, drop=(12.0, 9.9, 0.0)), Gate(), 3).passed
    assert not summarise(pair(**clean, drop=(16.0, 0.0, 0.0)), Gate(), 3).passed


def test_signed_zero_point_targets_have_their_own_limit() -> None:
    runs = pair(drop=(0.18,) * 3, program="tensorrt-int8")
    assert summarise(runs, Gate(), 3).passed
    assert not summarise(runs, Gate(max_drop_db=0.15), 3).passed
    assert not summarise(pair(drop=(0.18,) * 3), Gate(), 3).passed
    assert Gate().drop_limit("coreml-ios17-w8a8") == Gate().drop_limit("coreml-w8a8") != Gate().drop_limit(INT8)


def test_decisions() -> None:
    runs = pair("a", gates=0.7) + pair("b", outcomes=EARLY, gates=0.05)
    measured = summarise(runs, Gate(), 3)
    pooled = next(d for d in measured.decisions if d.condition == ALL)
    assert (pooled.pictures, pooled.tiles, pooled.same_stop, pooled.same_kept) == (2, 2, 0.5, 0.5)
    assert pooled.mean_stop == (2.5, 3.0)
    assert pooled.same_gates == (0.5, 0.5, 0.5)
    assert pooled.gate_difference == pytest.approx((0.425,) * 3)
    # The student returns 31.0 dB of "b", the program its first picture of 30.0 dB.
    assert pooled.returned_drop_db == pytest.approx(0.5)
    # Both could have returned 31.5 dB of either picture.
    assert pooled.stop_cost_db == pytest.approx((1.0, 0.5))


def test_drift_raises_an_alarm_only_where_the_loss_keeps_growing() -> None:
    alarms = {}
    for name, drop in {"grows": (0.0, 0.06, 0.14), "slow": (0.0, 0.03, 0.06), "back": (0.0, 0.4, 0.3)}.items():
        drift = summarise(pair(condition=name, drop=drop), Gate(), 3).drifts[0]
        assert drift.drop_db == pytest.approx(drop)
        alarms[name] = drift.alarm
    assert alarms == {"grows": True, "slow": False, "back": False}
    assert (
        not summarise(
            [
                r.model_copy(update={"truth": r.truth[:2], "student": r.student[:1], "gates": r.gates[:1]})
                for r in pair()
            ],
            Gate(),
            1,
        )
        .drifts[0]
        .alarm
    )


def test_a_device_that_ran_some_pictures_is_a_candidate_of_its_own() -> None:
    runs = pair("a") + pair("b")
    runs.append(pair("b", drop=(0.3,) * 3, device="adb:1")[1])
    measured = summarise(runs, Gate(), 3)
    row = measured.row("rain", (INT8, "adb:1"), 3)
    assert row is not None
    assert row.pictures == 1
    assert {f.device for f in measured.failures} == {"adb:1"}
    assert measured.drops(INT8, "adb:1")["rain", 1] == pytest.approx(0.3)
