"""Tiles cover and blend without a trace; routing follows its equations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Routing, gate_tensor, given_gates, route
from burnish.runtime.tiles import Region, blend, cut, from_program, make_small, plan_tiles
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_cutting_and_blending_is_the_identity(height: int, width: int, kind: type, overlap: int) -> None:
    rng = np.random.default_rng(height * 301 + width)
    picture = rng.integers(0, np.iinfo(kind).max + 1, (height, width, 3)).astype(kind)
    plan = plan_tiles(height, width, 128, overlap=overlap)
    tiles = []
    for index in range(len(plan)):
        planes = cut(picture, plan, index)
        assert planes.shape == (1, 3, 128, 128)
        tiles.append(from_program(planes, picture[plan.region(index).slices]))
    np.testing.assert_array_equal(blend(tiles, plan), picture)
    for index in range(len(plan)):
        region = plan.region(index)
        np.testing.assert_array_equal(blend(tiles, plan, region), picture[region.slices])
    assert sum(plan.areas) == pytest.approx(1.0, abs=1e-5)


@given(st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_a_part_blends_like_the_whole(height: int, width: int) -> None:
    """Tiles that disagree: composing every tile's region anew gives the picture composed at once."""
    rng = np.random.default_rng(height * 301 + width)
    plan = plan_tiles(height, width, 64, overlap=16)
    tiles = [rng.integers(0, 256, cut_size(plan.region(i)), np.uint8) for i in range(len(plan))]
    whole = blend(tiles, plan)
    assert whole.shape == (height, width, 3)
    parts = np.zeros_like(whole)
    for index in range(len(plan)):
        parts[plan.region(index).slices] = blend(tiles, plan, plan.region(index))
    np.testing.assert_array_equal(parts, whole)


def cut_size(region: Region) -> tuple[int, int, int]:
    return region.bottom - region.top, region.right - region.left, 3


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([np.uint8, np.uint16]))
@settings(max_examples=40, deadline=None)
def test_a_small_picture_keeps_its_mean(height: int, width: int, kind: type) -> None:
    picture = np.random.default_rng(height).integers(0, np.iinfo(kind).max + 1, (height, width, 3)).astype(kind)
    small = make_small(picture, 64)
    assert max(small.shape[:2]) == 64
    assert small.dtype == np.uint8
    if min(height, width) >= 64:  # where nothing is enlarged or squeezed to a line
        assert small.mean() / 255 == pytest.approx(picture.mean() / np.iinfo(kind).max, abs=0.01)


@given(st.integers(1, 5000))
def test_neighbours_share_at_least_the_overlap(length: int) -> None:
    rows = plan_tiles(length, 64, 272).rows
    assert rows[0] == 0
    assert all(row % 16 == 0 for row in rows)  # where JPEG's blocks begin
    assert 0 <= rows[-1] - max(0, length - 272) < 16
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
