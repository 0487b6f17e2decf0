"""One function of an ML program: loaded, checked without arithmetic, and run operation by operation.

What it models of fp16: every value has the type the program declares, so each operation's result is rounded once to fp16
where the program says fp16. Inside an operation sums are float32. See docs/coreml.md for what that leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import BackendError, BundleError
from .operations import OPERATIONS, Arguments, Given, Name, Operation, Reference
from .package import Package
from .values import Constant, Kind, constant_of, kind_of

OPSETS = ("CoreML7", "CoreML8")
# Sees every computed value: its name, the operation, the value in its declared type.
Watch = Callable[[str, str, Tensor], None]


class _Step(NamedTuple):
    """One operation: `spent` are the values no later step reads."""

    name: str
    type: str
    compute: Operation
    given: Given
    kind: Kind
    spent: tuple[str, ...]


class Function:
    """A function of a package, ready to run. Raises BundleError for what is damaged or cannot be evaluated.

    `single`: values are float32 where the program says fp16. What then differs from the graph it was converted from is the
    conversion's doing.
    """

    def __init__(self, package: Package, name: str, single: bool = False) -> None:
        functions = package.spec.mlProgram.functions
        if name not in functions:
            raise BundleError(f"{package.path} lacks the function {name}; it has {', '.join(functions) or 'none'}")
        function = functions[name]
        if function.opset not in OPSETS or function.opset not in function.block_specializations:
            raise BundleError(
                f"{package.path}: {name} has operator set {function.opset!r}; expected {', '.join(OPSETS)}"
            )
        self._where, self._single = f"{package.path}: {name}", single
        self.inputs = {i.name: kind_of(i.type, f"{self._where}: input {i.name}") for i in function.inputs}
        block = function.block_specializations[function.opset]
        self.outputs = tuple(str(output) for output in block.outputs)
        self._constants: dict[str, Constant] = {}
        self._steps = self._load(block, package)
        # Shapes, types and references, with tensors that have no content: nothing is allocated before all of it fits.
        self._execute(
            {key: torch.empty(kind.shape, dtype=kind.dtype, device="meta") for key, kind in self.inputs.items()}
        )

    def _load(self, block: Any, package: Package) -> list[_Step]:
        unknown = sorted({o.type for o in block.operations} - {"const", *OPERATIONS})
        if unknown:
            raise BundleError(f"{self._where} uses {', '.join(unknown)}, which this burnish does not evaluate")
        loaded: list[tuple[Any, str, Given, Kind]] = []
        known = set(self.inputs)
        for operation in block.operations:
            if len(operation.outputs) != 1 or operation.blocks:
                raise BundleError(f"{self._where}: {operation.type} has several results or blocks; it is damaged")
            (output,) = operation.outputs
            label = f"{self._where}: {operation.type} {output.name}"
            if output.name in known or output.name in self._constants:
                raise BundleError(f"{label} is defined twice; the model is damaged")
            if operation.type == "const":
                self._constants[output.name] = constant_of(operation.attributes["val"], label, package)
                continue
            given = self._given(operation, known, label, package)
            kind = kind_of(output.type, label)
            if operation.type.startswith("constexpr_"):
                self._constants[output.name] = self._compute(
                    OPERATIONS[operation.type], Arguments(given, {}), kind, label
                )
                continue
            loaded.append((operation.type, output.name, given, kind))
            known.add(output.name)
        return self._with_last_uses(loaded)

    def _given(self, operation: Any, known: set[str], label: str, package: Package) -> Given:
        """References of an operation's inputs; constexpr operations up to iOS 17 keep theirs as attributes."""

        def resolve(binding: Any) -> Reference:
            if binding.WhichOneof("binding") == "value":
                return constant_of(binding.value, label, package)
            if binding.name in self._constants:
                return self._constants[binding.name]
            if binding.name not in known:
                raise BundleError(
                    f"{label} reads {binding.name!r}, which nothing before it computes; the model is damaged"
                )
            return Name(binding.name)

        given: dict[str, tuple[Reference, ...]] = {
            key: (constant_of(value, label, package),) for key, value in operation.attributes.items() if key != "name"
        }
        return given | {key: tuple(map(resolve, value.arguments)) for key, value in operation.inputs.items()}

    def _with_last_uses(self, loaded: list[tuple[Any, str, Given, Kind]]) -> list[_Step]:
        seen = set(self.outputs)
        steps: list[_Step] = []
        for kind_name, name, given, kind in reversed(loaded):
            read = {r.value for references in given.values() for r in references if isinstance(r, Name)}
            spent = tuple(sorted(read - seen))
            seen |= read
            steps.append(_Step(name, kind_name, OPERATIONS[kind_name], given, kind, spent))
        return steps[::-1]

    @property
    def operations(self) -> Counter[str]:
        """How often each operation is computed."""
        return Counter(step.type for step in self._steps)

    def run(self, inputs: Mapping[str, Tensor], watch: Watch | None = None) -> dict[str, Tensor]:
        """Outputs by name, in their declared types. Inputs are rounded to theirs. Raises BackendError for wrong inputs."""
        values: dict[str, Tensor] = {}
        for name, kind in self.inputs.items():
            given = inputs.get(name)
            if given is None or tuple(given.shape) != kind.shape:
                shape = None if given is None else tuple(given.shape)
                raise BackendError(f"{self._where}: input {name} has shape {shape}; expected {kind.shape}")
            values[name] = given.to(self._rounded(kind))
        with torch.no_grad():
            return self._execute(values, watch)

    def _execute(self, values: dict[str, Tensor], watch: Watch | None = None) -> dict[str, Tensor]:
        device = next(iter(values.values())).device.type if values else "cpu"
        for step in self._steps:
            label = f"{self._where}: {step.type} {step.name}"
            result = self._compute(step.compute, Arguments(step.given, values, device), step.kind, label)
            values[step.name] = result
            if watch is not None:
                watch(step.name, step.type, result)
            for name in step.spent:
                del values[name]
        missing = [name for name in self.outputs if name not in values]
        if missing:
            raise BundleError(f"{self._where} never computes its output {missing[0]!r}; the model is damaged")
        return {name: values[name] for name in self.outputs}

    def _compute(self, operation: Operation, arguments: Arguments, kind: Kind, label: str) -> Tensor:
        """Run one operation and round its result to the declared type. Raises BundleError naming it."""
        try:
            result = operation(arguments)
        except BundleError as error:
            raise BundleError(f"{label}: {error}") from None
        except (RuntimeError, ArithmeticError, TypeError, ValueError, LookupError) as error:
            raise BundleError(
                f"{label}: its inputs do not fit ({str(error).splitlines()[0]}); the model is damaged"
            ) from None
        if tuple(result.shape) != kind.shape:
            raise BundleError(f"{label} gives {tuple(result.shape)}; the model declares {kind.shape}: it is damaged")
        return result.to(self._rounded(kind))

    def _rounded(self, kind: Kind) -> torch.dtype:
        return torch.float32 if self._single and kind.dtype == torch.float16 else kind.dtype
