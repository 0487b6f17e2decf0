"""Tiles cover and blend without a trace; routing follows its equations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Routing, gate_tensor, given_gates, route
from burnish.runtime.tiles import blend, cut, plan_tiles
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_cutting_and_blending_is_the_identity(height: int, width: int) -> None:
    picture = np.random.default_rng(height * 301 + width).random((height, width, 3), np.float32)
    plan = plan_tiles(height, width, 64, overlap=16)
    tiles = [cut(picture, plan, i) for i in range(len(plan.origins))]
    assert all(t.shape == (1, 3, 64, 64) for t in tiles)
    np.testing.assert_allclose(blend(tiles, plan), picture, atol=1e-6)


@given(st.integers(1, 5000))
def test_neighbours_share_at_least_the_overlap(length: int) -> None:
    rows = plan_tiles(length, 64, 272).rows
    assert rows[0] == 0
    assert rows[-1] == max(0, length - 272)
    assert all(later - earlier <= 272 - 32 for earlier, later in itertools.pairwise(rows))


def test_common_sizes_need_few_tiles() -> None:
    assert len(plan_tiles(500, 500, 272).origins) == 4
    assert len(plan_tiles(512, 512, 272).origins) == 4


def test_a_certain_mixture_opens_its_leaves() -> None:
    routing = Routing()
    logits = [6.0 if leaf in ("rain", "noise") else -6.0 for leaf in routing.leaves]
    gates = route(routing, granularity=-9.0, logits=logits)
    assert gates["rain"] > 0.95
    assert gates["noise"] > 0.95
    assert sum(g > 0.05 for g in gates.values()) == 2


def test_doubt_falls_back_to_the_parent() -> None:
    routing = Routing()
    logits = [6.0 if leaf == "rain" else -6.0 for leaf in routing.leaves]
    gates = route(routing, granularity=3.0, logits=logits)
    assert gates["weather"] > 0.95
    assert gates["rain"] < 0.01


def test_a_clean_picture_opens_nothing_and_only_top_gates_stay() -> None:
    routing = Routing()
    assert max(route(routing, -5.0, [-9.0] * len(routing.leaves)).values()) < 0.01
    assert sum(g > 0 for g in route(routing, -3.0, [1.0] * len(routing.leaves)).values()) == routing.top


def test_given_gates_name_what_they_do_not_know() -> None:
    with pytest.raises(InputError, match="fog"):
        given_gates(Routing(), {"fog": 1.0})
    with pytest.raises(InputError, match=r"2\.0"):
        given_gates(Routing(), {"rain": 2.0})
    tensor = gate_tensor(Routing(), given_gates(Routing(), {"rain": 0.5}), rank=4)
    assert tensor.shape == (1, 40, 1, 1)
    assert tensor.sum() == pytest.approx(2.0)
