"""Watching, cancelling and sharing a restoration; deadlines and broken steps."""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from burnish.runtime import BackendError, Restorer, Stop, Update
from faulty import Faulty
from numpy.typing import NDArray
from shared import TILE

Pixels = NDArray[np.uint8]
FREE = dict(min_gain=-1.0, rollback=False)


@pytest.fixture
def faulty(restorer: Restorer) -> tuple[Restorer, Faulty]:
    session = Faulty(restorer._engine.session)
    return Restorer(restorer.bundle, restorer.program, "onnxruntime", session), session


def test_updates_are_whole_pictures_that_lead_to_the_result(restorer: Restorer, pixels: Pixels) -> None:
    stream = restorer.stream(pixels, max_iterations=2, **FREE)
    updates = list(stream)
    result = stream.result
    assert len(updates) == 2 * result.tiles
    assert [u.done for u in updates[: result.tiles]] == list(range(1, result.tiles + 1))
    shown = pixels.copy()
    for update in updates:
        shown[update.region.slices] = update.patch
        np.testing.assert_array_equal(update.pixels, shown)
    np.testing.assert_array_equal(result.pixels, shown)
    np.testing.assert_array_equal(result.pixels, restorer.restore(pixels, max_iterations=2, **FREE).pixels)


def test_progress_is_called_for_every_refine(restorer: Restorer, pixels: Pixels) -> None:
    seen: list[Update] = []
    result = restorer.restore(pixels, max_iterations=1, progress=seen.append, **FREE)
    assert [u.tile for u in seen] == list(range(result.tiles))
    assert seen[-1].quality == result.quality


def test_cancelling_ends_within_a_step_and_keeps_what_is_there(restorer: Restorer, pixels: Pixels) -> None:
    stream = restorer.stream(pixels, max_iterations=4, **FREE)
    next(stream)
    second = next(stream)
    stream.cancel()
    assert list(stream) == []
    assert stream.result.reason is Stop.CANCELLED
    np.testing.assert_array_equal(stream.result.pixels, second.pixels)


def test_another_thread_can_cancel(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    restorer, session = faulty
    session.delay_s = lambda: 0.05
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    result = restorer.restore(pixels, max_iterations=8, cancel=cancel, **FREE)
    assert result.reason is Stop.CANCELLED
    assert 1 <= len([e for e in result.trace if e.ran == "refine"]) < 8


def test_async_forms(restorer: Restorer, pixels: Pixels) -> None:
    async def watch() -> tuple[int, int, Pixels, Pixels]:
        stream = restorer.stream(pixels, max_iterations=1, **FREE)
        count = 0
        async for _ in stream:
            count += 1
        whole = await restorer.restore_async(pixels, max_iterations=1, **FREE)
        return count, stream.result.tiles, stream.result.pixels, whole.pixels

    count, tiles, streamed, whole = asyncio.run(watch())
    assert count == tiles
    np.testing.assert_array_equal(streamed, whole)


def test_a_cancelled_task_ends_its_restoration(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    restorer, session = faulty
    session.delay_s = lambda: 0.05

    async def give_up() -> None:
        task = asyncio.create_task(restorer.restore_async(pixels, max_iterations=8, **FREE))
        await asyncio.sleep(0.15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    done = session.refines
    time.sleep(0.3)
    assert session.refines <= done + 1, "the abandoned restoration went on"


def test_who_gives_up_waiting_may_come_back(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    restorer, session = faulty
    session.delay_s = lambda: 0.2

    async def impatient() -> list[Update]:
        stream = restorer.stream(pixels, max_iterations=1, **FREE)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.05)
        return [update async for update in stream]

    assert len(asyncio.run(impatient())) <= 1


def test_a_budget_begins_when_it_is_asked_for(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    """More calls at once than an event loop has threads: those that wait for their turn count it."""
    restorer, session = faulty
    session.delay_s = lambda: 0.01
    tile = pixels[:TILE, :TILE]

    async def timed() -> float:
        began = time.perf_counter()
        result = await restorer.restore_async(tile, max_iterations=1, **FREE)
        return result.elapsed_ms / 1e3 / (time.perf_counter() - began)

    async def all_at_once() -> list[float]:
        return await asyncio.gather(*(timed() for _ in range(60)))

    assert statistics.median(asyncio.run(all_at_once())) > 0.6


def test_a_result_is_its_callers_own(restorer: Restorer, pixels: Pixels) -> None:
    stream = restorer.stream(pixels, max_iterations=1, **FREE)
    untouched = stream.result
    untouched.pixels[:] = 0
    assert pixels.any(), "the result shared the caller's array"
    first = next(stream)
    early = stream.result
    assert len(list(stream)) > 1
    np.testing.assert_array_equal(early.pixels, first.pixels)
    whole = stream.result
    time.sleep(0.01)
    assert stream.result.elapsed_ms == whole.elapsed_ms
    np.testing.assert_array_equal(stream.result.pixels, whole.pixels)


def test_one_event_may_end_many_and_is_never_set_for_them(restorer: Restorer, pixels: Pixels) -> None:
    shared = threading.Event()
    one, other = (restorer.stream(pixels, max_iterations=1, cancel=shared, **FREE) for _ in range(2))
    one.cancel()
    assert list(one) == []
    next(other)
    assert not shared.is_set()
    shared.set()
    assert list(other) == []
    assert other.result.reason is Stop.CANCELLED


def test_cancelled_after_the_last_step_is_done(restorer: Restorer, pixels: Pixels) -> None:
    cancel = threading.Event()
    result = restorer.restore(
        pixels, max_iterations=1, cancel=cancel, progress=lambda u: u.done == u.tiles and cancel.set()
    )
    assert cancel.is_set()
    assert result.reason is not Stop.CANCELLED


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_of_the_process_is_told_to_load_its_own(restorer: Restorer, pixels: Pixels) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            restorer.restore(pixels)
        except BackendError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert "load it in each process" in said.read()
    os.waitpid(child, 0)


def test_threads_share_one_restorer(restorer: Restorer, photo: NDArray[np.float32]) -> None:
    """8 threads × 50 pictures give the bytes that one thread gives."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(50):
        height, width = rng.integers(20, 100, 2)
        top, left = rng.integers(0, 200, 2)
        pictures.append(np.round(photo[top : top + height, left : left + width] * 255).astype(np.uint8))
    expected = [restorer.restore(p, max_iterations=2).pixels for p in pictures]

    def work(seed: int) -> list[tuple[int, Pixels]]:
        order = np.random.default_rng(seed).permutation(50)
        return [(int(i), restorer.restore(pictures[i], max_iterations=2).pixels) for i in order]

    with ThreadPoolExecutor(8) as pool:
        for rows in pool.map(work, range(8)):
            for index, got in rows:
                np.testing.assert_array_equal(got, expected[index])


def test_a_step_that_stalls_does_not_hold_up_the_answer(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    restorer, session = faulty
    tile = pixels[:TILE, :TILE]
    session.delay_s = lambda: 0.01
    restorer.warm_up()
    warm = session.refines
    session.delay_s = lambda: 3.0 if session.refines > warm + 2 else 0.01
    began = time.perf_counter()
    result = restorer.restore(tile, budget_ms=400, max_iterations=8, **FREE)
    elapsed = time.perf_counter() - began
    assert result.reason is Stop.BUDGET
    assert result.iteration == 2
    assert elapsed < 1.5, "the answer waited for the step"


def test_an_estimate_that_lets_nothing_begin_is_doubted(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    """After a stall every budget is too short for what a step seems to take; no step would ever say otherwise."""
    restorer, _ = faulty
    restorer.warm_up()
    for ms in (8000.0, 9000.0):
        restorer._engine.encode_took(ms)
        restorer._engine.refine_took(ms)
    results = [restorer.restore(pixels[:TILE, :TILE], budget_ms=5000.0, max_iterations=1) for _ in range(20)]
    assert results[0].reason is Stop.BUDGET
    assert not results[0].trace
    assert results[-1].trace
    stalled = restorer._engine.cost
    restorer.restore(pixels, budget_ms=0.0)
    assert restorer._engine.cost == stalled, "a budget that nothing ever fitted says nothing"


@pytest.mark.parametrize("spoil", [lambda x: x * np.nan, lambda x: x * 0.0, lambda x: np.where(x > 0.5, np.inf, x)])
def test_a_broken_step_is_rolled_back(faulty: tuple[Restorer, Faulty], pixels: Pixels, spoil: object) -> None:
    restorer, session = faulty
    tile = pixels[:TILE, :TILE]
    good = restorer.restore(tile, max_iterations=1, **FREE)
    session.refines, session.spoil = 0, lambda x: spoil(x) if session.refines > 1 else x
    result = restorer.restore(tile, max_iterations=4, **FREE)
    assert result.reason is Stop.BROKEN
    assert result.iteration == 1
    np.testing.assert_array_equal(result.pixels, good.pixels)
    assert "rolled back" in result.notes[0]


def test_one_broken_tile_leaves_the_others_restored(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    restorer, session = faulty
    session.spoil = lambda x: x * np.nan if session.refines == 1 else x
    result = restorer.restore(pixels, max_iterations=1, **FREE)
    np.testing.assert_array_equal(result.pixels[:16, :16], pixels[:16, :16])  # the next tile begins there
    assert np.mean(result.pixels[100:, 100:] != pixels[100:, 100:]) > 0.5


def test_a_dark_picture_that_stays_dark_is_not_broken(restorer: Restorer) -> None:
    result = restorer.restore(np.zeros((TILE, TILE, 3), np.uint8), max_iterations=1, **FREE)
    assert result.reason is Stop.ITERATIONS


def test_what_was_dark_behind_dense_haze_is_not_broken(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    restorer, session = faulty
    tile = pixels[:TILE, :TILE]
    session.spoil = lambda x: x * 0.05
    result = restorer.restore(tile, max_iterations=1, **FREE)
    assert result.reason is Stop.ITERATIONS
    assert 0 < result.pixels.mean() < 0.1 * tile.mean()


def test_a_failing_program_is_one_line(faulty: tuple[Restorer, Faulty], pixels: Pixels) -> None:
    restorer, session = faulty

    def fail(_: object) -> None:
        raise RuntimeError("device lost\nand a long story")

    session.spoil = fail
    with pytest.raises(BackendError, match=r"onnx-fp32 failed on onnxruntime \(device lost\)"):
        restorer.restore(pixels)
