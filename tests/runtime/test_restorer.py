"""The loop on real programs: every backend, any size, budgets, traces."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burnish.runtime import BackendError, Bundle, BundleError, InputError, Restoration, Restorer, Stop, backends
from burnish.runtime.backends import Encoded
from burnish.runtime.cost import CostModel, Estimate
from burnish.runtime.tiles import Array, plan_tiles
from numpy.typing import NDArray

PROGRAMS = ("onnx-fp32", "executorch-xnnpack-fp32", "executorch-xnnpack-int8", "tensorrt-int8")


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_gives_the_same_picture(bundle_path: Path, pixels: NDArray[np.uint8], program: str) -> None:
    reference = Restorer.load(bundle_path, program="onnx-fp32", warm_up=False)
    other = Restorer.load(bundle_path, backend="auto", program=program, warm_up=False)
    steps = dict(max_iterations=2, min_iterations=2, rollback=False)
    expected = reference.restore(pixels, **steps).pixels.astype(int)
    got = other.restore(pixels, **steps).pixels.astype(int)
    difference = np.abs(got - expected)
    assert np.any(expected != pixels), "the loop changed nothing, so the test shows nothing"
    assert difference.max() <= 1 if program.endswith("fp32") else difference.mean() < 6


@pytest.mark.parametrize("size", [(1, 1), (20, 300), (64, 64), (65, 130), (1200, 20), (3, 700)])
def test_any_size_comes_back_in_its_size(restorer: Restorer, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    result = restorer.restore(picture, max_iterations=1)
    assert result.pixels.shape == picture.shape


def test_of_several_devices_the_slowest_seeds_the_cost(
    onnx_bundle: Path, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    def refines(*encode_ms: float) -> int:
        folder = shutil.copytree(onnx_bundle, tmp_path / f"{encode_ms}.bundle")
        manifest = json.loads((folder / "bundle.json").read_text())
        manifest["profiles"] = [
            {"device": f"{ms}", "program": "onnx-fp32", "encode_ms": [ms, 0.1], "refine_ms": [1.0, 0.1]}
            for ms in encode_ms
        ]
        (folder / "bundle.json").write_text(json.dumps(manifest))
        restorer = Restorer.load(folder, backend="onnxruntime", warm_up=False)
        return sum(event.ran == "refine" for event in restorer.restore(pixels, budget_ms=20_000.0).trace)

    assert refines(1.0) > 0
    assert refines(1.0, 60_000.0) == refines(60_000.0, 1.0) == 0


def test_no_budget_means_the_picture_itself(restorer: Restorer, pixels: NDArray[np.uint8]) -> None:
    result = restorer.restore(pixels, budget_ms=0.0)
    assert result.reason is Stop.BUDGET
    assert result.iteration == 0
    assert not result.steps
    np.testing.assert_array_equal(result.pixels, pixels)


def test_a_generous_budget_runs_to_the_limit(restorer: Restorer, pixels: NDArray[np.uint8]) -> None:
    result = restorer.restore(pixels, budget_ms=60_000.0, max_iterations=3, min_gain=-1.0, rollback=False)
    assert result.reason is Stop.ITERATIONS
    assert [step.iteration for step in result.steps] == [0, 1, 2, 3]
    assert sum(step.cost_ms for step in result.steps) == pytest.approx(sum(event.cost_ms for event in result.trace))
    assert result.elapsed_ms >= result.trace[-1].elapsed_ms
    times = [event.elapsed_ms for event in result.trace]
    assert times == sorted(times)


def test_the_trace_says_what_ran(restorer: Restorer, pixels: NDArray[np.uint8]) -> None:
    one_tile = restorer.restore(pixels[:64, :64], max_iterations=2, min_iterations=2, rollback=False)
    assert [event.ran for event in one_tile.trace] == ["encode", "refine", "mirror", "refine"]
    assert one_tile.tiles == 1
    many = restorer.restore(pixels, max_iterations=1, min_iterations=1)
    assert [event.ran for event in many.trace] == ["look", *["encode", "refine"] * many.tiles]


class Tokens:
    """What a restorer's session is asked and answers about tokens, and by which methods, where `leaf` is found everywhere."""

    def __init__(self, restorer: Restorer, monkeypatch: pytest.MonkeyPatch, leaf: str) -> None:
        self.encoded: list[Encoded] = []
        self.asked: list[Array] = []
        self.methods: list[str] = []
        self._engine, self._monkeypatch = restorer._engine, monkeypatch
        session = self._engine.session
        encode, refine = session.encode, session.refine

        def encodes(image: Array) -> Encoded:
            logits = tuple(2.0 if name == leaf else -4.0 for name in self._engine.routing.leaves)
            self.encoded.append(encode(image)._replace(logits=logits))
            return self.encoded[-1]

        def refines(
            current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str
        ) -> tuple[Array, float]:
            self.asked.append(estimate.tokens)
            self.methods.append(method)
            return refine(current, original, estimate, gates, method)

        monkeypatch.setattr(session, "encode", encodes)
        monkeypatch.setattr(session, "refine", refines)

    def route_by(self, **leaves: tuple[str, ...]) -> None:
        """Forget what was asked, and route by other leaves' tokens."""
        self.encoded.clear()
        self.asked.clear()
        routing = self._engine.routing.model_copy(update={"look_tokens": (), "mean_tokens": ()} | leaves)
        self._monkeypatch.setattr(self._engine, "routing", routing)


@pytest.mark.parametrize(("leaf", "method"), [("noise", "refine_noise"), ("rain", "refine")])
def test_a_leaf_that_is_alone_is_refined_by_its_specialist(
    restorer: Restorer, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, leaf: str, method: str
) -> None:
    tokens = Tokens(restorer, monkeypatch, leaf)
    tiles = restorer.restore(pixels, **THREE).tiles
    assert tokens.methods == [method] * 3 * tiles
    tokens.methods.clear()
    restorer.restore(pixels, **THREE, degradations={"noise": 0.7, "rain": 0.6})
    restorer.restore(pixels, **THREE, degradations={"noise": 0.7, "exposure": 1.0, "rain": 0.4})
    assert tokens.methods == ["refine"] * 3 * tiles + ["refine_noise"] * 3 * tiles
    routing = restorer._engine.routing.model_copy(update={"certain": {"noise": 0.9}})
    monkeypatch.setattr(restorer._engine, "routing", routing)
    tokens.methods.clear()
    restorer.restore(pixels, **THREE)  # a logit of 2: 0.88
    assert tokens.methods == ["refine"] * 3 * tiles


def test_what_a_restoration_left_is_no_specialists(
    restorer: Restorer, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(restorer, monkeypatch, "noise")
    restorer.restore(pixels[:64, :64], max_iterations=5, min_iterations=5, rollback=False)
    assert tokens.methods == [*["refine_noise"] * 4, "refine"]


THREE = dict(max_iterations=3, min_iterations=3, rollback=False)


def test_tiles_go_by_the_tokens_of_the_first_look_where_it_finds_haze(
    restorer: Restorer, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(restorer, monkeypatch, "haze")
    tokens.route_by(look_tokens=("low_light", "haze"))
    tiles = restorer.restore(pixels, **THREE).tiles
    assert len(tokens.asked) == 3 * tiles > 3
    assert all(asked is tokens.encoded[0].tokens for asked in tokens.asked)
    for given, leaves in ((pixels[:64, :64], ("haze",)), (pixels, ("low_light",)), (pixels, ())):
        tokens.route_by(look_tokens=leaves, mean_tokens=("low_light",))
        restorer.restore(given, **THREE)
        assert all(any(asked is e.tokens for e in tokens.encoded) for asked in tokens.asked)
        assert len({id(asked) for asked in tokens.asked}) == len(tokens.asked)


def test_tiles_go_by_the_mean_of_their_tokens_where_the_look_finds_low_light(
    restorer: Restorer, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(restorer, monkeypatch, "low_light")
    tokens.route_by(mean_tokens=("low_light",))
    result = restorer.restore(pixels, **THREE)
    count = result.tiles
    assert [event.ran for event in result.trace][: count + 2] == ["look", *["encode"] * count, "refine"]
    areas = plan_tiles(*pixels.shape[:2], restorer.bundle.manifest.tile).areas
    own = [e.tokens for e in tokens.encoded[1 : 1 + count]]
    np.testing.assert_allclose(tokens.asked[0], np.average(own, axis=0, weights=areas), atol=1e-6)
    assert len(tokens.asked) == 3 * count
    assert all(asked is tokens.asked[0] for asked in tokens.asked)
    # No survey without time for every tile: each goes by its own.
    tokens.route_by(mean_tokens=("low_light",))
    monkeypatch.setattr(restorer._engine, "cost", CostModel(Estimate(1000.0, 1.0), Estimate(2000.0, 1.0)))
    result = restorer.restore(pixels, budget_ms=9000.0)
    assert [event.ran for event in result.trace][:3] == ["look", "encode", "refine"]
    assert all(any(asked is e.tokens for e in tokens.encoded) for asked in tokens.asked)


def test_a_picture_and_its_mirror_images_become_alike(
    restorer: Restorer, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left and right after two iterations, all that are upside down after four where no leaf keeps them upright."""
    engine, side = restorer._engine, restorer.bundle.manifest.tile
    picture = np.ascontiguousarray(pixels[:side, :side])
    wanted = dict(max_iterations=4, min_iterations=4, rollback=False, keep_steps=True)

    def restored(axes: tuple[int, ...], whole: tuple[str, ...]) -> Restoration:
        monkeypatch.setattr(engine, "routing", engine.routing.model_copy(update={"whole": whole}))
        return restorer.restore(np.ascontiguousarray(np.flip(picture, axes)), **wanted)

    straight = restored((), ())
    for axes, alike in (((1,), (2, 4)), ((0,), (4,)), ((0, 1), (4,))):
        turned = restored(axes, ())
        for iteration in range(1, 5):
            difference = straight.steps_rgb[iteration] - np.flip(turned.steps_rgb[iteration], axes)
            # Means are rounded to 8 bits on the way.
            assert (np.abs(difference).max() * 255 < 2.01) == (iteration in alike), (axes, iteration)
        assert straight.quality == pytest.approx(turned.quality, abs=2e-3)
    assert straight.quality >= straight.steps[1].quality - 1e-2
    assert [event.ran for event in straight.trace] == ["encode", "refine", *["mirror", "refine"] * 3]
    upright = restored((), tuple(engine.routing.leaves))
    assert [event.ran for event in upright.trace][:6] == ["encode", "refine", "mirror", "refine", "encode", "refine"]


def test_steps_keep_the_picture_after_every_round(restorer: Restorer, pixels: NDArray[np.uint8]) -> None:
    result = restorer.restore(pixels, max_iterations=2, min_iterations=2, rollback=False, keep_steps=True)
    assert len(result.steps_rgb) == len(result.steps) == 3
    np.testing.assert_array_equal(np.rint(result.steps_rgb[0] * 255), pixels)
    np.testing.assert_array_equal(np.rint(result.steps_rgb[-1] * 255), result.pixels)
    assert np.any(result.steps_rgb[1] != result.steps_rgb[2])


def test_alpha_and_sixteen_bits_come_through(restorer: Restorer) -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (40, 50, 4)).astype(np.uint16)
    result = restorer.restore(picture, max_iterations=1, min_iterations=1, rollback=False)
    assert result.pixels.dtype == np.uint16
    np.testing.assert_array_equal(result.pixels[..., 3], picture[..., 3])
    assert np.any(result.pixels[..., :3] != picture[..., :3])
    assert np.any(result.pixels[..., :3] % 257), "16-bit tiles were cut to 8 bits"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bundle": 3}, "bundle=3: expected a bundle's folder, or the size"),
        ({"threads": -1}, "threads=-1: expected a number"),
        ({"feature_memory_mb": -1}, "feature_memory_mb=-1: expected megabytes"),
        ({"feature_memory_mb": "many"}, "feature_memory_mb='many': expected megabytes"),
    ],
)
def test_what_cannot_be_loaded_with_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Restorer.load(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"degradations": ["rain"]}, "expected a weight by name"),
        ({"progress": 3}, "progress=3: expected a function"),
    ],
)
def test_what_cannot_be_restored_with_is_refused(
    restorer: Restorer, pixels: NDArray[np.uint8], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        restorer.restore(pixels, **options)


@pytest.mark.parametrize(
    ("backend", "program", "said"),
    [
        ("coreml-reference", None, r"coreml-reference runs coreml-w8a8, .*; it has: onnx-fp32"),
        ("coreml-reference", "onnx-fp32", "coreml-reference runs coreml-w8a8, .*; onnx-fp32 was asked for"),
    ],
)
def test_a_backend_that_runs_none_of_it_says_what_it_runs(
    onnx_bundle: Path, monkeypatch: pytest.MonkeyPatch, backend: str, program: str | None, said: str
) -> None:
    monkeypatch.setattr(backends, "available", lambda _: True)
    with pytest.raises(BundleError, match=said):
        backends.choose(Bundle.open(onnx_bundle), backend, program)


def test_what_a_provider_of_onnx_runtime_needs_is_no_extra() -> None:
    assert backends.needed("onnxruntime:cuda") == "a build of ONNX Runtime with that provider"


def test_gates_given_by_hand_are_used(restorer: Restorer, pixels: NDArray[np.uint8]) -> None:
    result = restorer.restore(pixels, max_iterations=1, degradations={"rain": 0.7})
    assert result.steps[1].gates["rain"] == pytest.approx(0.7)
    assert sum(result.steps[1].gates.values()) == pytest.approx(0.7)
    with pytest.raises(InputError, match="fog"):
        restorer.restore(pixels, degradations={"fog": 1.0})


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget_ms": -1},
        {"min_quality": 2.0},
        {"max_iterations": -1},
        {"speed": 3},
        {"cancel": True},
        {"degradations": {"rain": "much"}},
    ],
)
def test_options_that_mean_nothing_are_refused_in_a_line(
    restorer: Restorer, pixels: NDArray[np.uint8], wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="rain" if "degradations" in wrong else next(iter(wrong))):
        restorer.restore(pixels, **wrong)


def test_an_unknown_backend_is_named(onnx_bundle: Path) -> None:
    with pytest.raises(BackendError, match="tpu"):
        Restorer.load(onnx_bundle, backend="tpu")


def test_room_for_features_changes_cost_not_pixels(onnx_bundle: Path, pixels: NDArray[np.uint8]) -> None:
    # The fifth goes on from the mean of four views, and asks for what the first encoded.
    wanted = dict(max_iterations=5, min_iterations=5, rollback=False, min_gain=-1.0)
    plenty = Restorer.load(onnx_bundle, backend="onnxruntime", warm_up=False).restore(pixels, **wanted)
    scarce = Restorer.load(onnx_bundle, backend="onnxruntime", warm_up=False, feature_memory_mb=0).restore(
        pixels, **wanted
    )
    np.testing.assert_array_equal(plenty.pixels, scarce.pixels)
    assert "recall" not in {event.ran for event in plenty.trace}
    assert "recall" in {event.ran for event in scarce.trace}


def test_the_embedded_bundle_restores_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from burnish.runtime import Restorer\n"
        "r = Restorer.load(backend='onnxruntime', warm_up=False)\n"
        "assert r.restore(np.full((64, 64, 3), 90, np.uint8), max_iterations=1).pixels.shape == (64, 64, 3)\n"
        "assert not {'torch', 'executorch', 'onnx', 'asyncio'} & set(sys.modules), 'a heavy library was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
