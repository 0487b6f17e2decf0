"""Quantisation: one delegate's worth of int8, shared boundary scales, signed zero-points, determinism."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from burnish.distill.methods import methods
from burnish.distill.student import Student
from burnish.quantize import core
from burnish.quantize.calibration import Samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.tensorrt import assert_signed, symmetric
from burnish.quantize.xnnpack import xnnpack_quantizer
from burnish.runtime.errors import BackendError
from onnx import helper, numpy_helper


@pytest.fixture(scope="module")
def graphs(student: Student, samples: Samples, quantize_config: QuantizeConfig) -> dict[str, torch.fx.GraphModule]:
    return core.quantize(student, 64, xnnpack_quantizer, samples, quantize_config)


def test_int8_stays_near_the_student(
    graphs: dict[str, torch.fx.GraphModule], student: Student, samples: Samples
) -> None:
    for row in samples["refine"]:
        with torch.no_grad():
            expected, got = methods(student)["refine"](*row)[0], graphs["refine"](*row)[0]
        assert not torch.equal(expected, got)
        assert -10 * torch.log10((expected - got).square().mean()) > 28


def test_requantising_a_feature_is_the_identity(graphs: dict[str, torch.fx.GraphModule], samples: Samples) -> None:
    (image,) = samples["encode"][0]
    outputs = dict(zip(("feature1", "feature2", "feature3"), graphs["encode"](image), strict=False))
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
    assert checked == 5


def test_heads_and_what_touches_pixels_stay_float(graphs: dict[str, torch.fx.GraphModule]) -> None:
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    checked = 0
    for node in graphs["refine"].graph.nodes:
        paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        if any("refiner.correction" in path or "refiner.head" in path for path in paths):
            assert node.target is not quantize
            assert not any(user.target is quantize for user in node.users)
            checked += 1
    assert checked > 8


def test_quantising_twice_gives_the_same(
    graphs: dict[str, torch.fx.GraphModule], student: Student, samples: Samples, quantize_config: QuantizeConfig
) -> None:
    again = core.quantize(student, 64, xnnpack_quantizer, samples, quantize_config)
    row = samples["refine"][1]
    torch.testing.assert_close(again["refine"](*row)[0], graphs["refine"](*row)[0], rtol=0, atol=0)


def test_the_written_onnx_is_signed(quantized: Path) -> None:
    for name in ("encode", "refine"):
        model = onnx.load(quantized / "tensorrt" / f"{name}.onnx")
        assert_signed(model)
        operators = [node.op_type for node in model.graph.node]
        assert operators.count("QuantizeLinear") > 8
        assert model.ir_version <= 10
        assert model.opset_import[0].version <= 20


def test_an_unsigned_quantizer_becomes_signed_over_the_same_range() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "dequantize"),
    ]
    tensors = [
        numpy_helper.from_array(np.float32(0.02), "scale"),
        numpy_helper.from_array(np.uint8(100), "zero"),
    ]
    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4]) for n in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:], tensors))
    with pytest.raises(BackendError, match="zero-point"):
        assert_signed(model)
    signed = symmetric(model)
    assert_signed(signed)
    values = {t.name: numpy_helper.to_array(t) for t in signed.graph.initializer}
    # 155 steps of 0.02 above zero are the larger side of the old range.
    assert values[signed.graph.node[0].input[1]] * 127 == pytest.approx(155 * 0.02)
