"""What must hold for any sequence of steps; the cases themselves are in tests/conformance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from burnish.runtime.controller import TOLERANCE, Action, Controller, Kind, Policy, Stop
from burnish.runtime.cost import CostModel, Estimate
from burnish.runtime.routing import Prospect
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

quality = st.floats(0, 1)
duration = st.floats(0.1, 100)
prospects = st.builds(Prospect, quality, quality, st.booleans())


@dataclass
class Played:
    """A finished restoration: the controller, and for every action the time it began, what was predicted and what it took."""

    controller: Controller
    rows: list[tuple[Action, float, float, float]] = field(default_factory=list)
    seen: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """A program's answers and durations, by tile and iteration."""

    starts: list[float]
    prospects: list[Prospect]
    qualities: list[list[float]]
    encode_ms: list[float]
    refine_ms: list[float]
    differences: list[float]


@st.composite
def worlds(draw: st.DrawFn, tiles: int | None = None, steady: bool = False) -> World:
    count = draw(st.integers(1, 5)) if tiles is None else tiles
    times = st.lists(st.just(10.0) if steady else duration, min_size=7, max_size=7)
    return World(
        draw(st.lists(quality, min_size=count, max_size=count)),
        draw(st.lists(prospects, min_size=count, max_size=count)),
        draw(st.lists(st.lists(quality, min_size=7, max_size=7), min_size=count, max_size=count)),
        draw(times),
        draw(times),
        draw(st.lists(st.floats(0, 0.1), min_size=7, max_size=7)),
    )


def play(policy: Policy, world: World, cost: CostModel, keep: int = 100, survey: bool = False) -> Played:
    count = len(world.starts)
    controller = Controller(policy, cost, [1 / count] * count, looks=count > 1, keep=keep)
    played = Played(controller, seen=[[] for _ in range(count)])
    elapsed, index = 0.0, 0
    while (action := controller.choose(elapsed)).kind is not Kind.STOP:
        index += 1
        assert index < 1000, "the controller does not come to an end"
        tile = controller.tiles[action.tile]
        predicted = controller.predicted_ms(action.tile)
        encode_ms, refine_ms = world.encode_ms[index % 7], world.refine_ms[index % 7]
        took = refine_ms if action.kind is Kind.REFINE else encode_ms
        played.rows.append((action, elapsed, predicted, took))
        elapsed += took
        if action.kind is Kind.LOOK:
            controller.looked(took, survey=survey and controller.rounds_looked_at == 0)
        elif action.kind is Kind.RECALL:
            controller.recalled(action.tile, took)
        elif action.kind is Kind.MIRROR:
            assert tile.view == tile.iteration
            controller.mirrored(action.tile, took)
        elif action.kind is Kind.ENCODE:
            assessed = ([world.starts[action.tile], *world.qualities[action.tile]])[tile.iteration]
            if not played.seen[action.tile]:
                played.seen[action.tile].append(assessed)
            controller.encoded(action.tile, assessed, world.prospects[action.tile], took)
        else:
            assert tile.estimate, "refined without its estimate's features"
            assert tile.original or tile.view, "refined without its original's features"
            predicted_quality = world.qualities[action.tile][tile.iteration]
            played.seen[action.tile].append(predicted_quality)
            controller.refined(action.tile, predicted_quality, took, world.differences[tile.iteration])
        held = sum(
            t.original + (t.estimate and t.iteration > 0) for i, t in enumerate(controller.tiles) if i != action.tile
        )
        assert held <= keep
    return played


policies = st.builds(
    Policy,
    budget_ms=st.none() | st.floats(0, 2000),
    min_quality=st.none() | quality,
    max_iterations=st.integers(0, 6),
    min_iterations=st.integers(0, 3),
    min_gain=st.sampled_from([-1.0, 0.0, 0.05]),
    rollback=st.booleans(),
)
costs = st.builds(
    CostModel,
    st.builds(Estimate, st.floats(0, 50), st.floats(0, 5)),
    st.builds(Estimate, st.floats(0, 50), st.floats(0, 5)),
)


@given(policies, worlds(), costs, st.integers(1, 6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_ends_with_a_reason_within_its_limits(
    policy: Policy, world: World, cost: CostModel, keep: int, survey: bool
) -> None:
    played = play(policy, world, cost, keep, survey)
    assert isinstance(played.controller.reason, Stop)
    assert all(tile.iteration <= policy.max_iterations for tile in played.controller.tiles)
    assert played.controller.choose(0.0).kind is Kind.STOP


@given(policies, worlds(), costs)
@settings(max_examples=150, deadline=None)
def test_no_tile_keeps_a_loss(policy: Policy, world: World, cost: CostModel) -> None:
    """In a world where encode says of a picture what refine said: none of more than the tolerance, nor of views in all."""
    policy = policy.model_copy(update={"rollback": True})
    played = play(policy, world, cost)
    for tile, seen in zip(played.controller.tiles, played.seen, strict=True):
        kept, best = 0, 0.0
        for iteration, after in enumerate(seen):
            joins = 1 < iteration <= tile.views + 1
            best = max(best, seen[kept]) if joins or kept < iteration - 1 else seen[kept]
            if after - best >= -TOLERANCE:
                kept = iteration
        if seen:
            assert (tile.best_iteration, tile.quality) == (kept, seen[kept])
            assert tile.quality >= max(seen[: min(kept, tile.views + 1) + 1]) - TOLERANCE or kept > tile.views + 1


@given(st.floats(0, 1000), worlds(), costs, st.integers(1, 6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_never_starts_a_step_that_is_predicted_late(
    budget: float, world: World, cost: CostModel, keep: int, survey: bool
) -> None:
    policy = Policy(budget_ms=budget, max_iterations=6, min_gain=-1.0, rollback=False)
    for _, began, predicted, _ in play(policy, world, cost, keep, survey).rows:
        assert began + predicted <= budget


@given(st.floats(0, 1000), worlds(), st.integers(1, 3))
def test_forced_iterations_are_done_whatever_the_budget(budget: float, world: World, least: int) -> None:
    policy = Policy(budget_ms=budget, min_iterations=least, max_iterations=6)
    assert all(tile.iteration >= least for tile in play(policy, world, CostModel()).controller.tiles)


@given(worlds(tiles=1), costs, st.floats(0, 1000), st.floats(0, 1000))
@settings(max_examples=150, deadline=None)
def test_more_budget_never_means_less(world: World, cost: CostModel, one: float, other: float) -> None:
    """Of a picture of one tile: never fewer iterations, never a quality of what is kept that is believed to be lower."""
    low, high = (
        play(Policy(budget_ms=b, max_iterations=6), world, cost).controller.tiles[0] for b in sorted((one, other))
    )
    assert low.iteration <= high.iteration
    assert (low.quality or 0.0) <= (high.quality or 0.0) + TOLERANCE * (high.iteration - low.iteration)


@given(worlds(steady=True), st.floats(0, 600), st.floats(0, 600), st.booleans())
@settings(max_examples=150, deadline=None)
def test_more_budget_never_means_less_on_many_tiles(world: World, one: float, other: float, survey: bool) -> None:
    """Steps of equal length."""
    cost = CostModel(Estimate(10.0), Estimate(10.0))
    short, long = (
        [row[0] for row in play(Policy(budget_ms=b, max_iterations=4), world, cost, survey=survey).rows]
        for b in sorted((one, other))
    )
    assert len(long) >= len(short)


@given(worlds(tiles=4), st.integers(2, 6))
def test_a_survey_encodes_what_can_be_kept_before_the_first_refine(world: World, keep: int) -> None:
    played = play(Policy(max_iterations=3), world, CostModel(), keep, survey=True)
    assert [action.kind for action, *_ in played.rows[: 1 + min(keep, 4)]] == [Kind.LOOK, *[Kind.ENCODE] * min(keep, 4)]
    assert played.controller.surveys


@given(worlds(tiles=4), st.booleans())
def test_every_tile_has_its_first_iteration_before_any_has_a_second(world: World, survey: bool) -> None:
    played = play(Policy(max_iterations=3, min_gain=-1.0, rollback=False), world, CostModel(), survey=survey)
    refined = [action.tile for action, *_ in played.rows if action.kind is Kind.REFINE]
    assert sorted(refined[:4]) == [0, 1, 2, 3]


@given(st.floats(1, 100), st.floats(1.0, 20))
def test_a_slowdown_is_noticed_within_two_steps(base: float, factor: float) -> None:
    estimate = Estimate(base, 0.03 * base)
    for _ in range(2):
        estimate = estimate.observe(base * factor)
    assert estimate.upper >= base * factor


@given(st.floats(1, 100), st.floats(1.0, 1000))
def test_one_outlier_changes_little_and_is_soon_forgotten(base: float, factor: float) -> None:
    estimate = Estimate(base, 0.03 * base).observe(base * factor)
    assert estimate.upper <= 1.2 * base
    for _ in range(8):
        estimate = estimate.observe(base)
    assert estimate.upper <= 1.12 * base


@given(st.lists(st.floats(0, 1000), max_size=20))
def test_an_estimate_stays_a_finite_prediction(durations: list[float]) -> None:
    estimate = Estimate()
    for value in durations:
        estimate = estimate.observe(value)
    assert math.isfinite(estimate.upper)
    assert estimate.upper >= estimate.mean >= 0


@pytest.mark.parametrize(
    "wrong", [{"budget_ms": -1}, {"budget_ms": math.nan}, {"min_quality": 2}, {"max_iterations": -1}, {"speed": 1}]
)
def test_a_policy_that_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Policy(**wrong)
