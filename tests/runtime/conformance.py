"""Plays the conformance cases as docs/conformance.md says: tests check the result, tests/conformance/make.py writes it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from burnish.runtime.controller import Controller, Kind, Policy
from burnish.runtime.cost import CostModel, Estimate
from burnish.runtime.errors import InputError
from burnish.runtime.quality import quality_of_mean
from burnish.runtime.routing import (
    Gates,
    Prospect,
    Routing,
    agreed_logits,
    believed,
    given_gates,
    prospect,
    refiner,
    route,
    token_source,
)
from burnish.runtime.tiles import plan_tiles, small_size

FOLDER = Path(__file__).parents[1] / "conformance"
Case = dict[str, Any]


def load(name: str) -> dict[str, Any]:
    """One of the three files."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def number(value: float | None) -> float:
    """JSON has no NaN: null stands for it."""
    return math.nan if value is None else float(value)


def play_estimate(case: Case) -> Case:
    """Durations, one after the other."""
    estimate = Estimate(*case["start"])
    for value in case["observe"]:
        estimate = estimate.observe(value)
    return {"mean": estimate.mean, "deviation": estimate.deviation, "upper": estimate.upper}


def play_refusal(case: Case) -> Case:
    """Durations of both methods, then budgets in which nothing could begin."""
    cost = CostModel(Estimate(*case["cost"]["encode"]), Estimate(*case["cost"]["refine"]))
    for ms in case["encode_ms"]:
        cost = cost.encoded(ms)
    for ms in case["refine_ms"]:
        cost = cost.refined(ms)
    for budget_ms in case["budgets_ms"]:
        cost = cost.refused(budget_ms)
    return {name: [part.mean, part.deviation] for name, part in (("encode", cost.encode), ("refine", cost.refine))}


def play_mean(case: Case) -> Case:
    """Predicted quality when a restoration joins a mean."""
    return {"quality": quality_of_mean(case["one"], case.get("count", 1), case["other"], case["difference"])}


def play_controller(case: Case) -> Case:
    """The loop that a runtime runs, with the case's answers for a program and its durations for a clock."""
    controller = Controller(
        Policy(**case["policy"]),
        CostModel(Estimate(*case["cost"]["encode"]), Estimate(*case["cost"]["refine"])),
        case.get("areas", [1.0]),
        looks=case.get("looks", False),
        keep=case.get("keep", 1_000_000),
    )
    tiles = case["tiles"]
    elapsed, actions = float(case.get("started_ms", 0.0)), []
    while (action := controller.choose(elapsed)).kind is not Kind.STOP:
        index = action.tile
        iteration = controller.tiles[index].iteration
        actions.append(action.kind.value if action.kind is Kind.LOOK else f"{action.kind.value} {index}")
        if action.kind is Kind.LOOK:
            ms = case["look_ms"]
            controller.looked(ms, case.get("survey", False) and controller.rounds_looked_at == 0)
        elif action.kind is Kind.ENCODE:
            quality, ms = tiles[index]["encode"][iteration]
            controller.encoded(index, number(quality), Prospect(*tiles[index]["prospect"]), ms)
        elif action.kind is Kind.MIRROR:
            ms = tiles[index]["encode"][iteration][1]
            controller.mirrored(index, ms)
        elif action.kind is Kind.RECALL:
            ms = tiles[index]["encode"][0][1]
            controller.recalled(index, ms)
        else:
            quality, ms, difference = tiles[index]["refine"][iteration]
            controller.refined(index, number(quality), ms, difference)
        elapsed += ms + case.get("idle_ms", 0.0)
        if len(actions) == case.get("cancel_after"):
            controller.cancel()
    assert controller.reason is not None
    return {
        "actions": actions,
        "reason": controller.reason.value,
        "iterations": [tile.iteration for tile in controller.tiles],
        "kept": [tile.best_iteration for tile in controller.tiles],
        "quality": controller.quality,
        "elapsed_ms": elapsed,
    }


def play_routing(case: Case) -> Case:
    """Gates of an assessment, the method that refines and the prospect, or so of gates a caller gave, `error` where they are
    refused; where there is a look, whose tokens tiles take.
    """
    routing = Routing(**case["routing"])
    if "given" in case:
        try:
            gates = given_gates(routing, case["given"])
        except InputError:
            return {"error": True}
        return {"gates": gates, "method": refiner(routing, gates), "prospect": promised(routing, case["logits"], gates)}
    logits = [number(z) for z in case["logits"]]
    looks = [[number(z) for z in look] for look in case.get("looks", [])]
    logits = agreed_logits(routing, looks, logits)
    gates = route(routing, number(case["granularity"]), logits)
    method = refiner(routing, believed(routing, logits))
    return {"gates": gates, "method": method, "prospect": promised(routing, logits, gates)} | (
        {"tokens": token_source(routing, looks[0]).value} if looks else {}
    )


def promised(routing: Routing, logits: Sequence[float], gates: Gates) -> Case:
    """The prospect of a picture with these logits."""
    return prospect(routing, believed(routing, logits), gates)._asdict()


def play_plan(case: Case) -> Case:
    """Where tiles lie, their shares, some blending weights, and the size of the look at the whole picture."""
    plan = plan_tiles(case["height"], case["width"], case["tile"], case["overlap"])
    down, across = plan.ramps
    return {
        "rows": list(plan.rows),
        "columns": list(plan.columns),
        "areas": plan.areas if len(plan) <= 12 else plan.areas[:3],
        "weights": [[*point, float(down[point[0]][point[2]] * across[point[1]][point[3]])] for point in case["points"]],
        "small": list(small_size(case["height"], case["width"], case["tile"])),
    }


PLAYERS = {
    ("controller", "estimates"): play_estimate,
    ("controller", "means"): play_mean,
    ("controller", "refusals"): play_refusal,
    ("controller", "cases"): play_controller,
    ("routing", "cases"): play_routing,
    ("tiles", "plans"): play_plan,
    ("tiles", "orders"): play_controller,
}
