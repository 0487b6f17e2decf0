"""The controller's decisions: the conformance cases, and what must hold for any sequence of steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from burnish.runtime.controller import Action, Controller, Policy, Stop
from burnish.runtime.cost import CostModel, Estimate
from hypothesis import given
from hypothesis import strategies as st

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "conformance" / "controller.json").read_text())[
    "cases"
]


def cost(encode: float = 0.0, refine: float = 0.0) -> CostModel:
    return CostModel(Estimate(encode), Estimate(refine))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_conformance(case: dict[str, Any]) -> None:
    controller = Controller(Policy(**case["policy"]), cost(*case["cost_ms"]))
    started = controller.may_encode()
    if started and controller.start(case["quality"], case["encode_ms"]) is Action.REFINE:
        for quality, refine_ms, encode_ms in case["steps"]:
            if controller.observe(quality, refine_ms, encode_ms) is Action.STOP:
                break
    expected = case["expected"]
    assert controller.reason is not None
    assert controller.reason.value == expected["reason"]
    assert (controller.iteration, controller.best_iteration) == (expected["iteration"], expected["best_iteration"])


steps = st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 100)), min_size=8, max_size=8)


def play(policy: Policy, model: CostModel, rows: list[tuple[float, float]]) -> Controller:
    controller = Controller(policy, model)
    if controller.may_encode() and controller.start(0.3, 10.0) is Action.REFINE:
        for index, (quality, refine_ms) in enumerate(rows):
            if controller.observe(quality, refine_ms, None if index == 0 else 10.0) is Action.STOP:
                break
    return controller


@given(steps, st.integers(0, 6))
def test_always_ends_with_the_best_seen(rows: list[tuple[float, float]], limit: int) -> None:
    controller = play(Policy(max_iterations=limit, min_gain=-1.0), cost(), rows)
    assert controller.reason is not None
    assert controller.iteration <= limit
    if limit:
        seen = [0.3, *(q for q, _ in rows[: controller.iteration])]
        assert controller.best_quality == max(seen)


@given(steps, st.floats(0, 300), st.floats(1, 50))
def test_never_starts_a_step_predicted_late(rows: list[tuple[float, float]], budget: float, refine: float) -> None:
    policy = Policy(budget_ms=budget, max_iterations=8, min_gain=-1.0)
    controller = Controller(policy, cost(10.0, refine))
    if not controller.may_encode():
        assert controller.cost.encode.upper + controller.cost.refine.upper > budget
        return
    action = controller.start(0.3, 10.0)
    for index, (quality, refine_ms) in enumerate(rows):
        if action is Action.STOP:
            return
        predicted = controller.cost.refine.upper + (controller.cost.encode.upper if index else 0.0)
        assert controller.elapsed_ms + predicted <= budget
        action = controller.observe(quality, refine_ms, 10.0 if index else None)


@given(st.floats(0, 400), st.floats(0, 400))
def test_more_budget_never_means_fewer_iterations(one: float, other: float) -> None:
    rows = [(0.31 + i * 0.01, 20.0) for i in range(8)]

    def done(budget: float) -> int:
        return play(Policy(budget_ms=budget, max_iterations=8), cost(10.0, 20.0), rows).iteration

    assert done(min(one, other)) <= done(max(one, other))


def test_a_slowdown_is_noticed_within_two_steps() -> None:
    model = cost(10.0, 20.0)
    for _ in range(2):
        model = model.observe(refine_ms=60.0)
    assert model.refine.upper >= 60.0


def test_no_time_at_all_answers_with_the_picture_itself() -> None:
    controller = Controller(Policy(budget_ms=5.0), cost(10.0, 20.0))
    assert not controller.may_encode()
    assert controller.reason is Stop.BUDGET
