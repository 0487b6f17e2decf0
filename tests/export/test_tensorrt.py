"""TensorRT programs: typed as they say, signed, and accepted by a real TensorRT builder."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from burnish.distill.methods import example_inputs, methods
from burnish.distill.student import Student
from burnish.export import torch_tensorrt
from burnish.export.float16 import to_float16
from burnish.export.tensorrt import AHEAD_OF_TIME, FLOAT32, assert_signed
from burnish.quantize.graphs import onnx_graphs
from burnish.runtime.engines import RTX, build_one, library
from burnish.runtime.errors import BackendError
from onnx import TensorProto, helper, numpy_helper

PROGRAMS = ["tensorrt-fp16", "tensorrt-int8", "onnx-fp32"]


def rtx() -> Any:
    try:
        return library(RTX)
    except BackendError as error:
        pytest.skip(f"the builder without a GPU is not installed: {error}")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("method", ["encode", "refine", "refine_noise"])
def test_tensorrt_rtx_builds_it_for_every_gpu_without_a_warning_on_types(
    bundle_path: Path, program: str, method: str
) -> None:
    trt = rtx()
    file = bundle_path / "programs" / program / f"{method}.onnx"
    for capability in AHEAD_OF_TIME:
        engine, warnings = build_one(trt, file, [capability])
        assert len(engine) > 10_000
        assert warnings == []


def test_a_builder_that_widens_scales_is_noticed(bundle_path: Path, tmp_path: Path) -> None:
    trt = rtx()
    model = onnx.load(bundle_path / "programs" / "tensorrt-int8" / "encode.onnx")
    onnx.save(to_float16(_newer(model), FLOAT32), tmp_path / "encode.onnx")
    _, warnings = build_one(trt, tmp_path / "encode.onnx", ["SM86"])
    assert any("scales to fp32" in warning for warning in warnings)


def _newer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantisers take fp16 scales from opset 19 on."""
    return onnx.version_converter.convert_version(model, 19)


def test_what_is_not_onnx_is_refused(tmp_path: Path) -> None:
    trt = rtx()
    (tmp_path / "a.onnx").write_bytes(b"\x08\x0a" + b"\xff" * 40)
    with pytest.raises(BackendError, match=r"cannot (parse|build)"):
        build_one(trt, tmp_path / "a.onnx")


def test_quantisers_are_signed_with_zero_points_0(bundle_path: Path) -> None:
    quantisers = 0
    for method in ("encode", "refine", "refine_noise"):
        model = onnx.load(bundle_path / "programs" / "tensorrt-int8" / f"{method}.onnx")
        assert_signed(model)
        quantisers += sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert quantisers > 20


@pytest.mark.parametrize("zero", [np.array(128, np.uint8), np.array(3, np.int8)])
def test_other_zero_points_are_refused(zero: np.ndarray) -> None:
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], "q")
    graph = helper.make_graph([node], "g", [], [], [numpy_helper.from_array(zero, "z")])
    with pytest.raises(BackendError, match=f"q has zero-point {zero.dtype}"):
        assert_signed(helper.make_model(graph))


def test_fp16_keeps_heads_averages_and_the_residual_in_fp32(student: Student) -> None:
    for name, model in onnx_graphs(student, 64).items():
        half = to_float16(model, FLOAT32)
        typed = onnx.shape_inference.infer_shapes(half, strict_mode=True, check_type=True)
        types = {v.name: v.type.tensor_type.elem_type for v in (*typed.graph.value_info, *typed.graph.output)}
        types |= {t.name: t.data_type for t in typed.graph.initializer}
        types |= {v.name: v.type.tensor_type.elem_type for v in typed.graph.input}
        kinds: dict[str, set[int]] = {}
        for node in typed.graph.node:
            floats = {types[i] for i in node.input if types.get(i) in (TensorProto.FLOAT, TensorProto.FLOAT16)}
            assert len(floats) <= 1, f"{node.name} mixes types"
            kinds.setdefault(node.op_type, set()).update(floats)
        assert kinds["Conv"] == {TensorProto.FLOAT16}
        assert kinds["ReduceMean"] == kinds["Gemm"] == {TensorProto.FLOAT}
        for value in (*typed.graph.input, *typed.graph.output):
            expected = TensorProto.FLOAT if value.name in FLOAT32 else TensorProto.FLOAT16
            assert value.type.tensor_type.elem_type == expected, f"{name}: {value.name}"


def test_the_student_that_torch_tensorrt_compiles_is_the_student(student: Student) -> None:
    inputs, typed = example_inputs(student, 64), torch_tensorrt.typed_inputs(student, 64)
    for name, method in torch_tensorrt.half_methods(student).items():
        with torch.no_grad():
            results = method(*typed[name])
            expected = methods(student)[name](*inputs[name])
        for result, wanted in zip(results, expected, strict=True):
            assert (result.float() - wanted).abs().max() < 0.01
        torch.export.export(method, typed[name], strict=False)
    assert all(p.dtype == torch.float32 for p in student.parameters())


def test_without_torch_tensorrt_the_error_says_what_to_install(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(BackendError, match=r"on a Jetson: .* on x86: pip install torch-tensorrt"):
        torch_tensorrt.build(student, 64)


def test_torch_tensorrt_without_a_gpu_is_one_line(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("torch_tensorrt")
    stand_in.dynamo = SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_tensorrt", stand_in)
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match="torch sees no CUDA device"):
        torch_tensorrt.build(student, 64)
