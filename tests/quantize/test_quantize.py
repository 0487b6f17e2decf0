"""Quantisation: one delegate's worth of int8, shared boundary scales, signed zero-points, determinism."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from burnish.distill.methods import methods
from burnish.distill.student import SIZES, Student
from burnish.distill.weights import Trained
from burnish.quantize import core
from burnish.quantize.calibration import Samples, draw_samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.stage import quantize_student
from burnish.quantize.xnnpack import XNNPACK
from burnish.runtime.routing import Routing
from shared import PHOTOS, TILE


@pytest.fixture(scope="module")
def graphs(student: Student, samples: Samples, quantize_config: QuantizeConfig) -> dict[str, torch.fx.GraphModule]:
    return core.quantize(student, 64, XNNPACK, samples, quantize_config)


def test_calibration_sees_tiles_with_a_looks_tokens_and_looks_with_their_own(student: Student) -> None:
    config = QuantizeConfig(pictures=4, iterations=1)
    drawn = draw_samples(student, Routing(look_tokens=("haze",), likely={"haze": -1e3}), PHOTOS / "dev", TILE, config)
    own: list[bool] = []
    for (image,), (current, *_, tokens, _) in zip(drawn["encode"], drawn["refine"], strict=True):
        torch.testing.assert_close(image, current, rtol=0, atol=0)
        with torch.no_grad():
            own.append(torch.equal(student.encode(image).tokens, tokens))
    assert own == [False, True, False, True]


def test_int8_stays_near_the_student(
    graphs: dict[str, torch.fx.GraphModule], student: Student, samples: Samples
) -> None:
    for row in samples["refine"]:
        with torch.no_grad():
            expected, got = methods(student)["refine"](*row)[0], graphs["refine"](*row)[0]
        assert not torch.equal(expected, got)
        assert -10 * torch.log10((expected - got).square().mean()) > 28


def within(graph: torch.fx.GraphModule, *modules: str) -> list[torch.fx.Node]:
    """The nodes that come from the named modules."""
    return [
        node
        for node in graph.graph.nodes
        if any(name in path for path, _ in node.meta.get("nn_module_stack", {}).values() for name in modules)
    ]


def test_requantising_a_feature_is_the_identity(graphs: dict[str, torch.fx.GraphModule], samples: Samples) -> None:
    (image,) = samples["encode"][0]
    # The other features leave encode in float and are rounded once, by refine.
    outputs = {"feature2": graphs["encode"](image)[1]}
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    checked = 0
    for node in graphs["refine"].graph.nodes:
        source = node.name.replace("original", "feature").replace("estimate", "feature")
        if node.op != "placeholder" or source not in outputs:
            continue
        for user in node.users:
            if user.target is quantize:
                again = dequantize(quantize(outputs[source], *user.args[1:]), *user.args[1:])
                torch.testing.assert_close(again, outputs[source], rtol=0, atol=0)
                checked += 1
    assert checked == 2


def test_small_has_every_part_that_stays_in_float() -> None:
    parts = dict(Student(SIZES["small"]).named_modules())
    assert set(QuantizeConfig().left_in_float) <= parts.keys()


def test_heads_and_what_touches_pixels_stay_float(graphs: dict[str, torch.fx.GraphModule]) -> None:
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    inside = within(graphs["refine"], "refiner.correction", "refiner.head")
    for node in inside:
        assert node.target is not quantize
        assert not any(user.target is quantize for user in node.users)
    assert len(inside) > 8


def test_the_encoder_is_rounded_at_its_second_level_alone(graphs: dict[str, torch.fx.GraphModule]) -> None:
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    inside = within(graphs["encode"], "encoder.stem", "encoder.level1", "encoder.tokens")
    for node in inside:
        assert not any(getattr(argument, "target", None) is dequantize for argument in node.args)
    assert len(inside) > 5


def test_quantising_twice_gives_the_same(
    graphs: dict[str, torch.fx.GraphModule], student: Student, samples: Samples, quantize_config: QuantizeConfig
) -> None:
    again = core.quantize(student, 64, XNNPACK, samples, quantize_config)
    row = samples["refine"][1]
    torch.testing.assert_close(again["refine"](*row)[0], graphs["refine"](*row)[0], rtol=0, atol=0)


def test_only_the_wanted_target_is_quantised(student: Student, quantize_config: QuantizeConfig, tmp_path: Path) -> None:
    config = quantize_config.model_copy(update={"targets": ("xnnpack",), "pictures": 2})
    out = quantize_student(Trained(student), PHOTOS / "dev", TILE, tmp_path / "graphs", config, lambda _: None)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["xnnpack"]
