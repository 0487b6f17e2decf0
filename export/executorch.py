"""ExecuTorch with XNNPACK: one multi-method .pte, fp32 or int8, its experts inside or in a .ptd beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchProgramManager, to_edge_transform_and_lower
from executorch.exir._serialize import _deserialize_pte_binary
from executorch.exir._serialize._cord import Cord
from executorch.exir._serialize.data_serializer import DataEntry, DataPayload
from executorch.extension.flat_tensor.serialize.serialize import FlatTensorSerializer
from torch.export import ExportedProgram

from ..distill.student import Student
from ..distill.weights import load_student
from ..quantize.graphs import export_graphs, load_graphs
from ..quantize.saturation import Reach
from ..quantize.stage import EQUALISED
from ..runtime.backends.executorch import EXPERTS, PROGRAM
from ..runtime.errors import BackendError
from .context import Context
from .expert_pack import EXPERT_LAYERS, expert_tensors
from .experts import fit_ranks, in_scale, reaches, refuse_beyond

MADE_WITH = ("torch", "executorch", "nncf")
# What XNNPACK asks of a constant's address.
_ALIGNMENT = 16


def write_fp32(context: Context, folder: Path) -> None:
    """Write student.pte in full precision."""
    _write(export_graphs(context.student, context.tile), folder, bool(context.packs))


def write_int8(context: Context, folder: Path) -> None:
    """Lower the quantised graphs to student.pte."""
    _write(_quantized(context), folder, bool(context.packs))


def write_pack_fp32(context: Context, pack: Student, folder: Path, path: Path) -> None:
    """Write a pack of experts for the fp32 program in `folder`."""
    refine = export_graphs(pack, context.tile)["refine"]
    _write_pack({"refine": _outside(refine)}, folder, path)


def write_pack_int8(context: Context, pack: Student, folder: Path, path: Path) -> None:
    """Write a pack of experts for the int8 program in `folder`, quantised under the ranges of the program's own.

    Raises InputError with the figures where its activations leave them.
    """
    assert context.quantized is not None
    programs = _quantized(context)
    graphs: dict[str, Any] = {name: program.module() for name, program in programs.items()}

    def exchanged(experts: Student) -> ExportedProgram:
        return _outside(programs["refine"], expert_tensors(experts))

    def given(experts: Student) -> dict[str, Reach]:
        return reaches(context, {**graphs, "refine": exchanged(experts).module()})

    own = reaches(context, graphs)
    scaled = in_scale(pack, context.student, load_student(context.quantized / EQUALISED))
    fitted = fit_ranks(scaled, own, given(scaled))
    refuse_beyond(own, given(fitted))
    _write_pack({"refine": exchanged(fitted)}, folder, path)


def _quantized(context: Context) -> dict[str, ExportedProgram]:
    assert context.quantized is not None
    return load_graphs(context.quantized / "xnnpack")


def _lower(programs: Mapping[str, ExportedProgram]) -> ExecutorchProgramManager:
    import_module("executorch.kernels.quantized")  # registers out-variants that int8 lowering needs
    program = to_edge_transform_and_lower(dict(programs), partitioner=[XnnpackPartitioner()]).to_executorch()
    for name in programs:
        outside = operators_outside(program.exported_program(name))
        if outside:
            raise BackendError(f"{name} is not one XNNPACK delegate: {', '.join(outside)} stay outside")
    return program


def _write(programs: Mapping[str, ExportedProgram], folder: Path, experts_outside: bool = False) -> None:
    if experts_outside:
        programs = {**programs, "refine": _outside(programs["refine"])}
    program = _lower(programs)
    (folder / PROGRAM).write_bytes(program.buffer)
    if experts_outside:
        program.write_tensor_data_to_file(str(folder))


def _outside(program: ExportedProgram, replaced: Mapping[str, torch.Tensor] | None = None) -> ExportedProgram:
    """The program with its experts' weights and biases marked to be stored beside it; `replaced` are others' values."""
    module: Any = program.module()
    assert program.example_inputs is not None
    for node in module.graph.nodes:
        layer = next((path for path, _ in reversed(list((node.meta.get("nn_module_stack") or {}).values()))), "")
        if node.target is not torch.ops.aten.conv2d.default or layer.rpartition(".")[2] not in EXPERT_LAYERS:
            continue
        for kind, constant in zip(("weight", "bias"), node.args[1:3], strict=False):
            if constant is None:
                continue
            constant.meta.setdefault("custom", {})["delegate_constant_tag"] = Path(EXPERTS).stem
            if replaced is not None:
                _replace(module, constant, replaced[f"{layer}.{kind}"])
    return torch.export.export(module, program.example_inputs[0], strict=True)


def _replace(module: Any, constant: Any, value: torch.Tensor) -> None:
    """Put `value` in place of a constant of the graph, quantised a channel where the constant is."""
    if constant.op == "get_attr":
        _buffer(module, constant.target).copy_(value)
        return
    weight, scale = (_buffer(module, node.target) for node in constant.args[:2])
    scales = value.flatten(1).abs().amax(1).clamp_min(1e-9) / 127
    scale.copy_(scales)
    weight.copy_((value / scales.reshape(-1, 1, 1, 1)).round().clamp(-127, 127))


def _buffer(module: Any, target: str) -> torch.Tensor:
    for part in target.split("."):
        module = getattr(module, part)
    return module.detach()


def _write_pack(programs: Mapping[str, ExportedProgram], folder: Path, path: Path) -> None:
    """Store a pack's constants under the keys that the program in `folder` asks for.

    A key is a hash of what it first named, so the same graph with other experts has other keys in the same order. Raises
    BackendError where two constants are equal and so share a key: then they cannot part.
    """
    serializer = FlatTensorSerializer()
    own = serializer.deserialize(Cord((folder / EXPERTS).read_bytes()))
    made = serializer.deserialize(Cord(bytes(_lower(programs)._tensor_data[Path(EXPERTS).stem])))
    inside = _deserialize_pte_binary((folder / PROGRAM).read_bytes()).named_data
    shared = set(own.named_data) & set(inside.pte_data if inside else ())
    if len(own.named_data) != len(made.named_data) or shared:
        raise BackendError(f"{folder.name}: constants of its experts are equal, so that a pack cannot tell them apart")
    entries = {
        key: DataEntry(other.buffer_index, _ALIGNMENT, other.tensor_layout)
        for key, other in zip(own.named_data, made.named_data.values(), strict=True)
    }
    path.write_bytes(bytes(serializer.serialize(DataPayload(made.buffers, entries))))


def delegates(folder: Path) -> dict[str, dict[str, int]]:
    """Partitions of the written program by method and delegate; "none" counts operations outside."""
    program = _deserialize_pte_binary((folder / PROGRAM).read_bytes()).program
    counts: dict[str, dict[str, int]] = {}
    for plan in program.execution_plan:
        calls = [type(i.instr_args).__name__ for chain in plan.chains for i in chain.instructions]
        found = Counter(delegate.id for delegate in plan.delegates)
        counts[plan.name] = dict(found) | {"none": calls.count("KernelCall")}
    return counts


def operators_outside(program: ExportedProgram) -> list[str]:
    """Operators that are not inside a method's one delegate; empty when the whole method was delegated."""
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    rest = [c for c in calls if "getitem" not in c and "executorch_call_delegate" not in c and "alloc" not in c]
    return rest + ["executorch_call_delegate"] * (sum("executorch_call_delegate" in c for c in calls) - 1)
