"""Mixed precision as types in an ONNX graph: fp16 inside, fp32 where it matters, every change of type an explicit Cast.

Strongly typed builders (TensorRT 10 with the flag, 11 always) take precision from the network and from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# Sums over many pixels: their values overflow or lose digits in fp16.
_REDUCTIONS = {"ReduceMean", "ReduceSum", "GlobalAveragePool"}
# Where the way back from an fp32 output ends.
_ENDS = {"Conv", "ConvTranspose", "MatMul"}


def to_float16(model: onnx.ModelProto, float32: Iterable[str]) -> onnx.ModelProto:
    """The same network in fp16; the inputs and outputs named in `float32` keep their type.

    What lies between those outputs and the nearest convolution or product is computed in fp32 (the residual added to the
    picture, the heads that predict quality), and so are averages over pixels. For float graphs: a quantised one keeps its
    fp32 scales, since builders widen fp16 scales again, with a warning, and codes change.
    """
    typed = shape_inference.infer_shapes(model, strict_mode=True)
    graph, kept = typed.graph, set(float32)
    values = (*graph.value_info, *graph.input, *graph.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == _FLOAT}
    stored = {t.name: t for t in graph.initializer}
    floats |= {name for name, t in stored.items() if t.data_type == _FLOAT}
    single = _single_nodes(graph, kept)
    outputs = {v.name for v in graph.output}
    # The type each value has where it is made.
    types = {v.name: _FLOAT if v.name in kept else _HALF for v in graph.input if v.name in floats}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {t.name: t for t in stored.values() if t.data_type != _FLOAT}
    cast: dict[tuple[str, int], str] = {}

    def typed_as(name: str, wanted: int) -> str:
        if name in stored:
            if wanted == _FLOAT:
                constants[name] = stored[name]
                return name
            half = f"{name}_fp16"
            if half not in constants:
                array = numpy_helper.to_array(stored[name]).astype(np.float16)
                constants[half] = numpy_helper.from_array(array, half)
            return half
        if types[name] == wanted:
            return name
        if (name, wanted) not in cast:
            cast[name, wanted] = f"{name}_{'fp32' if wanted == _FLOAT else 'fp16'}"
            nodes.append(helper.make_node("Cast", [name], [cast[name, wanted]], f"{name}_cast", to=wanted))
        return cast[name, wanted]

    for index, node in enumerate(graph.node):
        wanted = _FLOAT if index in single else _HALF
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name in floats:
                copy.input[position] = typed_as(name, wanted)
        late: list[onnx.NodeProto] = []
        for position, name in enumerate(node.output):
            if name not in floats:
                continue
            declared = _FLOAT if name in kept else _HALF
            types[name] = wanted
            if name in outputs and declared != wanted:
                inner = f"{name}_inner"
                copy.output[position] = inner
                late.append(helper.make_node("Cast", [inner], [name], f"{name}_cast", to=declared))
                types[name] = declared
        nodes += [copy, *late]
    for value in (*graph.input, *graph.output):
        if value.name in types:
            value.type.tensor_type.elem_type = types[value.name]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants.values())
    onnx.checker.check_model(typed, full_check=True)
    return typed


def _single_nodes(graph: onnx.GraphProto, kept: set[str]) -> set[int]:
    """Indices of the nodes computed in fp32."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output}
    single = {index for index, node in enumerate(graph.node) if node.op_type in _REDUCTIONS}
    waiting = [maker[v.name] for v in graph.output if v.name in kept]
    while waiting:
        index = waiting.pop()
        node = graph.node[index]
        if node.op_type in _ENDS:
            continue
        single.add(index)
        if node.op_type not in _REDUCTIONS:
            waiting += [maker[name] for name in node.input if name in maker]
    return single
