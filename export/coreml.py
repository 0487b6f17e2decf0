"""Core ML: one multi-function package (encode, refine) in fp16."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import coremltools as ct
from torch.export import ExportedProgram

from ..quantize.graphs import NAMES, export_graphs
from ..runtime.errors import BackendError
from .context import Context

MADE_WITH = ("torch", "coremltools")
PACKAGE = "student.mlpackage"


def write_fp16(context: Context, folder: Path) -> None:
    """Convert both methods and save them as functions of one package, weights shared."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    descriptor = ct.utils.MultiFunctionDescriptor()
    with tempfile.TemporaryDirectory(dir=folder) as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, program in export_graphs(context.student, context.tile).items():
            inputs, outputs = NAMES[name]
            model: Any = ct.convert(
                program.run_decompositions({}),
                inputs=[
                    ct.TensorType(name=label, shape=tuple(node.meta["val"].shape))
                    for label, node in zip(inputs, _placeholders(program), strict=True)
                ],
                outputs=[ct.TensorType(name=label) for label in outputs],
                minimum_deployment_target=ct.target.iOS18,
                compute_precision=ct.precision.FLOAT16,
                skip_model_load=True,
            )
            path = f"{scratch}/{name}.mlpackage"
            model.save(path)
            descriptor.add_function(path, src_function_name="main", target_function_name=name)
        descriptor.default_function_name = "refine"
        ct.utils.save_multifunction(descriptor, str(folder / PACKAGE))


def _placeholders(program: ExportedProgram) -> list[Any]:
    users = set(program.graph_signature.user_inputs)
    return [n for n in program.graph.nodes if n.op == "placeholder" and n.name in users]


def check(folder: Path) -> str:
    """Read the written package back: both functions with the contract's names. Predicting needs macOS."""
    spec: Any = ct.models.utils.load_spec(str(folder / PACKAGE))
    functions = {f.name: f for f in spec.description.functions}
    for name, (inputs, outputs) in NAMES.items():
        found = functions.get(name)
        if found is None:
            raise BackendError(f"{PACKAGE} lacks the function {name}; it has {', '.join(functions) or 'none'}")
        given = tuple(i.name for i in found.input), tuple(o.name for o in found.output)
        if given != (inputs, outputs):
            raise BackendError(
                f"{PACKAGE} function {name} has inputs and outputs {given}; expected {(inputs, outputs)}"
            )
    return "package read back, both functions present; not executed (predicting needs macOS)"
