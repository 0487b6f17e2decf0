"""Pre-flight: what each target would make of a model, before anyone trains it."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..distill.methods import example_inputs, methods
from ..distill.student import SIZES, Student
from ..quantize.graphs import IR_VERSION, OPSET
from ..runtime.engines import RTX, library, new_log
from ..runtime.errors import BackendError, InputError
from ..runtime.methods import ENCODE, REFINE
from .advice import Finding, findings, source

METHODS = (ENCODE, REFINE)
Inputs = Mapping[str, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Fallback:
    """Operations outside the delegates, by the line that made them."""

    operation: str
    where: str
    count: int


@dataclass(frozen=True)
class Verdict:
    """What a target makes of a method; `partitions` is None where it cannot be lowered.

    `problem` says why a method cannot be lowered, loaded or run, `skipped` why it was not tried here.
    """

    target: str
    method: str
    partitions: int | None
    delegated: dict[str, int] = field(default_factory=dict)
    fallbacks: tuple[Fallback, ...] = ()
    problem: str = ""
    skipped: str = ""

    def within(self, budget: int) -> bool:
        """Whether nothing speaks against this target."""
        return bool(self.skipped) or (not self.problem and self.partitions is not None and self.partitions <= budget)


@dataclass(frozen=True)
class Check:
    """The whole pre-flight; it passes when no method has more partitions than `budget`."""

    model: str
    budget: int
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(v.within(self.budget) for v in self.verdicts)

    def lines(self) -> list[str]:
        """The report for people: a line a target and method, then what to change."""
        lines = [f"{'target':<26}{'method':<9}{'partitions':>11}{'inside':>8}{'outside':>9}"]
        for v in self.verdicts:
            if v.skipped:
                lines.append(f"{v.target:<26}{v.method:<9}not checked: {v.skipped}")
                continue
            parts = "none" if v.partitions is None else str(v.partitions)
            outside = sum(f.count for f in v.fallbacks)
            lines.append(
                f"{v.target:<26}{v.method:<9}{parts:>11}{sum(v.delegated.values()):>8}{outside:>9}"
                + ("" if v.within(self.budget) else "  FAILED")
            )
            if v.problem:
                lines.append(f"  {v.problem}")
            lines += [f"  outside: {f.count} × {f.operation}, made at {f.where}" for f in v.fallbacks]
        if self.findings:
            lines.append("to change:")
            lines += [f"  {finding}" for finding in self.findings]
        budget = f"{self.budget} partition{'s' * (self.budget > 1)} a method"
        lines.append(f"passed: at most {budget}" if self.passed else f"FAILED: expected at most {budget}")
        return lines


class _Method(nn.Module):
    """One method of a user's module as a module of its own."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.module, self.name)(*inputs)


def load_model(name: str, tile: int) -> tuple[dict[str, nn.Module], dict[str, tuple[Tensor, ...]]]:
    """Both methods and example inputs of a student's size, a student's file, or `package.module:factory`.

    A factory takes nothing and returns a torch.nn.Module with `encode` and `refine`, and their example inputs:
    {"encode": (tensor, …), "refine": (tensor, …)}. Raises InputError.
    """
    if name in SIZES:
        student = Student(SIZES[name]).eval()
        return methods(student), example_inputs(student, tile)
    if name.endswith(".safetensors"):
        from ..distill.weights import load_student

        student = load_student(Path(name))
        return methods(student), example_inputs(student, tile)
    module_name, separator, factory_name = name.partition(":")
    if not separator:
        raise InputError(
            f"{name!r} is no model; expected one of {', '.join(SIZES)}, a student.safetensors or package.module:factory"
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        made: Any = getattr(importlib.import_module(module_name), factory_name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"{name} cannot be called ({error}); expected a function without arguments") from None
    finally:
        sys.path.remove(str(Path.cwd()))
    model, inputs = made if isinstance(made, tuple) and len(made) == 2 else (None, None)
    given: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {}
    if not isinstance(model, nn.Module) or any(
        not callable(getattr(model, m, None)) or m not in given for m in METHODS
    ):
        raise InputError(f'{name} gave no (module with encode and refine, {{"encode": inputs, "refine": inputs}})')
    return {m: _Method(model.eval(), m) for m in METHODS}, {m: tuple(given[m]) for m in METHODS}


def check(
    name: str,
    tile: int,
    targets: Sequence[str] | None = None,
    budget: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Check:
    """Lower both methods of a model for every target and count what stays outside. Raises InputError."""
    unknown = [target for target in targets or () if target not in CHECKS]
    if unknown:
        raise InputError(f"unknown target {unknown[0]!r}; expected some of {', '.join(CHECKS)}")
    modules, inputs = load_model(name, tile)
    verdicts: list[Verdict] = []
    found: dict[Finding, None] = {}
    for method, module in modules.items():
        progress(f"{method}: trace")
        with _quiet():
            try:
                program = torch.export.export(module, inputs[method], strict=True)
            except Exception as error:  # torch.export raises many types, all of them about the model
                raise InputError(f"{name}: {method} cannot be exported: {_first(error)}") from None
        found |= dict.fromkeys(findings(program))
        for target in targets or CHECKS:
            progress(f"{method}: {target}")
            with _quiet():
                verdicts.append(_verdict(target, method, program, inputs[method]))
    order = {target: position for position, target in enumerate(targets or CHECKS)}
    verdicts.sort(key=lambda v: order[v.target])
    return Check(name, budget, tuple(verdicts), tuple(found))


def _verdict(target: str, method: str, program: ExportedProgram, inputs: tuple[Tensor, ...]) -> Verdict:
    try:
        return CHECKS[target](target, method, program, inputs)
    except BackendError as error:
        return Verdict(target, method, None, skipped=str(error))
    except Exception as error:  # every toolchain raises its own
        return Verdict(target, method, None, problem=f"cannot be lowered: {_first(error)}")


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """The toolchains' own chatter kept away."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _xnnpack(target: str, method: str, program: ExportedProgram, inputs: tuple[Tensor, ...]) -> Verdict:
    """Lower with XNNPACK, load what came out and run it: a program can lower and still fail to load."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.devtools.backend_debug import get_delegation_info
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    importlib.import_module("executorch.kernels.quantized")
    lowered = to_edge_transform_and_lower({method: program}, partitioner=[XnnpackPartitioner()])
    graph = lowered.exported_program(method).graph_module
    info = get_delegation_info(graph)
    inside = {
        _short(name): counts.delegated for name, counts in info.delegation_by_operator.items() if counts.delegated
    }
    outside = Counter(
        (_short(str(node.target.__name__)), source(node.meta.get("stack_trace")))
        for node in graph.graph.nodes
        if node.op == "call_function" and "getitem" not in str(node.target) and "call_delegate" not in str(node.target)
    )
    fallbacks = tuple(Fallback(name, where, count) for (name, where), count in outside.items())
    problem = ""
    try:
        # Kept in a variable: a method does not keep its program's bytes alive.
        loaded = Runtime.get().load_program(bytes(lowered.to_executorch().buffer))
        runnable: Any = loaded.load_method(method)
        runnable.execute(list(inputs))
    except Exception as error:
        problem = f"lowers, but cannot be loaded and run: {_first(error)}"
    return Verdict(target, method, info.num_delegated_subgraphs, inside, fallbacks, problem)


def _short(name: str) -> str:
    """convolution of aten.convolution.default and of aten_convolution_default."""
    return re.sub(r"^(aten|dim_order_ops|quantized_decomposed)[._]+|[._](default|tensor|Tensor|out)$", "", name)


def _xnnpack_int8(target: str, method: str, program: ExportedProgram, inputs: tuple[Tensor, ...]) -> Verdict:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from ..quantize.xnnpack import xnnpack_quantizer

    # Ranges of one example: enough for where operations land, and for nothing else.
    prepared: Any = prepare_pt2e(program.module(), xnnpack_quantizer())
    prepared(*inputs)
    quantized = torch.export.export(convert_pt2e(prepared), inputs, strict=True)
    return _xnnpack(target, method, quantized, inputs)


def _coreml(target: str, method: str, program: ExportedProgram, inputs: tuple[Tensor, ...]) -> Verdict:
    """Convert the whole method: Core ML has no partitions of ours, an operation it lacks stops the conversion."""
    import coremltools as ct

    decomposed = program.run_decompositions({})
    target_os = ct.target.iOS17
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            ct.convert(decomposed, minimum_deployment_target=target_os, convert_to="milinternal", skip_model_load=True)
    except NotImplementedError as error:
        missing = re.search(r"op '([^']+)'", str(error))
        lacks = [
            n for n in decomposed.graph.nodes if missing and n.op == "call_function" and missing[1] in str(n.target)
        ]
        places = Counter((_short(missing[1] if missing else ""), source(n.meta.get("stack_trace"))) for n in lacks)
        fallbacks = tuple(Fallback(name, where, count) for (name, where), count in places.items())
        return Verdict(target, method, None, {}, fallbacks, f"cannot be converted: {_first(error)}")
    return Verdict(target, method, 1, _operations(decomposed))


def _operations(program: ExportedProgram) -> dict[str, int]:
    names = (str(n.target.__name__) for n in program.graph.nodes if n.op == "call_function")
    return dict(Counter(_short(name) for name in names if name != "getitem"))


def _tensorrt(target: str, method: str, program: ExportedProgram, inputs: tuple[Tensor, ...]) -> Verdict:
    """Convert to ONNX and ask TensorRT-RTX's parser which subgraphs it takes."""
    trt = library(RTX)
    converted = torch.onnx.export(program, opset_version=OPSET, dynamo=True, verbose=False)
    assert converted is not None
    model = converted.model_proto
    model.ir_version = IR_VERSION
    log = new_log(trt)
    network = trt.Builder(log).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    parser.supports_model_v2(model.SerializeToString())
    taken: set[int] = set()
    partitions = 0
    for index in range(parser.num_subgraphs):
        if parser.is_subgraph_supported(index):
            partitions += 1
            taken.update(parser.get_subgraph_nodes(index))
    nodes = list(model.graph.node)
    outside = Counter(
        (node.op_type, source(_note(node))) for position, node in enumerate(nodes) if position not in taken
    )
    fallbacks = tuple(Fallback(name, where, count) for (name, where), count in outside.items())
    return Verdict(target, method, partitions, dict(Counter(nodes[i].op_type for i in taken)), fallbacks)


def _note(node: Any) -> str:
    """The stack trace that the ONNX exporter leaves in a node."""
    return next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.stack_trace"), "")


_Checker = Callable[[str, str, ExportedProgram, tuple[Tensor, ...]], Verdict]
CHECKS: dict[str, _Checker] = {
    "executorch-xnnpack-fp32": _xnnpack,
    "executorch-xnnpack-int8": _xnnpack_int8,
    "coreml": _coreml,
    "tensorrt": _tensorrt,
}
