"""Core ML in fp16 or W8A8: one package, a function a method (iOS 18), or a package a method (iOS 17)."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

# coremltools warns while it is imported: of what only macOS has, and of versions newer than it knows.
logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct  # noqa: E402

from ..quantize.graphs import export_graphs, load_graphs  # noqa: E402
from ..quantize.ranges import DEQUANTIZE, QUANTIZE  # noqa: E402
from ..runtime.backends.coreml_reference import PACKAGE, CoreMLReferenceSession, packages  # noqa: E402
from ..runtime.errors import BackendError  # noqa: E402
from ..runtime.methods import REFINE, contract  # noqa: E402
from ..runtime.mlprogram.package import Package, seal  # noqa: E402
from .agreement import Agreement, restored_by, restored_by_methods  # noqa: E402
from .context import Context  # noqa: E402

MADE_WITH = ("torch", "coremltools", "nncf", "executorch")
FLOAT16_LARGEST = 65504.0
# Beyond half of fp16's range an accelerator that sums in another order may overflow where the evaluator does not.
HEADROOM = 2.0
# What a program computed in float32 must reach against the graphs it was converted from: dB, share of pixels within 1/255.
LEAST_CONVERTED, LEAST_CLOSE = 50.0, 0.999
_PICTURES = ("image", "current", "restored")
_DESCRIPTIONS = {
    "image": "picture, RGB in [0, 1]",
    "current": "best restoration so far, RGB in [0, 1]; at first the picture itself",
    "original1": "feature1 of the picture as it came",
    "original2": "feature2 of the picture as it came",
    "original3": "feature3 of the picture as it came",
    "estimate2": "feature2 of the best restoration so far",
    "estimate3": "feature3 of the best restoration so far",
    "tokens": "dictionary after it has attended to the picture, entries × width, no unit",
    "gates": "weight of every expert in [0, 1], repeated over its rank",
    "restored": "restored picture, RGB in [0, 1]",
    "quality": "predicted quality of the restored picture in [0, 1], not calibrated",
    "feature1": "features at half size, no unit",
    "feature2": "features at a quarter of the size, no unit",
    "feature3": "features at an eighth of the size, no unit",
    "assessment": "predicted quality before the sigmoid, granularity (log-variance), logit of every degradation",
}


class Packing(NamedTuple):
    """For which iOS (17 has no packages with several functions), and whether pictures are images or tensors."""

    ios: Literal[17, 18] = 18
    images: bool = False


_DEFAULT = Packing()


def write_fp16(context: Context, folder: Path, packing: Packing = _DEFAULT) -> None:
    """Convert all methods with fp16 weights and values."""
    _write(export_graphs(context.student, context.tile), packing, folder, context.licence)


def write_w8a8(context: Context, folder: Path, packing: Packing = _DEFAULT) -> None:
    """Convert the quantised graphs: int8 weights and activations, fp16 between them."""
    _write(graphs(context), packing, folder, context.licence)


write_images_fp16 = partial(write_fp16, packing=Packing(images=True))
write_images_w8a8 = partial(write_w8a8, packing=Packing(images=True))
write_ios17_fp16 = partial(write_fp16, packing=Packing(17))
write_ios17_w8a8 = partial(write_w8a8, packing=Packing(17))


def _write(programs: Mapping[str, ExportedProgram], packing: Packing, folder: Path, licence: str) -> None:
    several = packing.ios >= 18
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),  # a progress bar for every pass of the converter
    ):
        warnings.simplefilter("ignore")
        descriptor = ct.utils.MultiFunctionDescriptor()
        for name, program in programs.items():
            place = Path(scratch if several else folder) / f"{name}.mlpackage"
            _convert(program, name, packing).save(str(place))
            if several:
                descriptor.add_function(str(place), src_function_name="main", target_function_name=name)
        if several:
            descriptor.default_function_name = REFINE
            ct.utils.save_multifunction(descriptor, str(folder / PACKAGE))
    for place in sorted(folder.glob("*.mlpackage")):
        # coremltools leaves a table for ExecuTorch's debugger beside what Core ML reads.
        (place / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        _describe(place, packing.images, licence)
        seal(place)


def _convert(program: ExportedProgram, name: str, packing: Packing) -> Any:
    inputs, outputs = contract(name)
    users = set(program.graph_signature.user_inputs)
    shapes = [tuple(n.meta["val"].shape) for n in program.graph.nodes if n.op == "placeholder" and n.name in users]

    def typed(label: str, shape: tuple[int, ...] | None) -> Any:
        if not (packing.images and label in _PICTURES):
            return ct.TensorType(name=label, shape=shape)
        scale = 1.0 if shape is None else 1 / 255
        return ct.ImageType(name=label, shape=shape, scale=scale, color_layout=ct.colorlayout.RGB)

    if packing.images and "restored" in outputs:
        examples = tuple(torch.zeros(shape) for shape in shapes)
        program = torch.export.export(_EightBit(program.module()), examples, strict=True)
    _average_in_steps(program)
    return ct.convert(
        program.run_decompositions({}),
        inputs=[typed(label, shape) for label, shape in zip(inputs, shapes, strict=True)],
        outputs=[typed(label, None) for label in outputs],
        minimum_deployment_target={17: ct.target.iOS17, 18: ct.target.iOS18}[packing.ios],
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )


class _EightBit(nn.Module):
    """Refine with its picture in [0, 255]: Core ML writes image outputs as they are."""

    def __init__(self, refine: nn.Module) -> None:
        super().__init__()
        self.refine = refine

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        restored, quality = self.refine(*inputs)
        return restored * 255.0, quality


def _average_in_steps(program: ExportedProgram) -> None:
    """Average over width, then over height, where a graph averages over both at once.

    A sum of all pixels of a tile, which an accelerator may keep in fp16, leaves its range at an average of 3.5 over
    136 × 136; a sum over one row does not before 480.
    """
    mean, graph = torch.ops.aten.mean.dim, program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.adaptive_avg_pool2d.default and list(node.args[1]) == [1, 1]:
            with graph.inserting_before(node):
                rows = graph.call_function(mean, (node.args[0], [3], True))
                average = graph.call_function(mean, (rows, [2], True))
            average.meta = node.meta
            rows.meta = dict(node.meta) | {"val": node.args[0].meta["val"].mean(3, keepdim=True)}
            node.replace_all_uses_with(average)
            graph.erase_node(node)
    program.graph_module.recompile()


def _describe(place: Path, images: bool, licence: str) -> None:
    """Author, licence, and what every input and output is, in the specification's metadata."""
    spec: Any = ct.utils.load_spec(str(place))
    description = spec.description
    description.metadata.author = "burnish"
    description.metadata.license = licence
    description.metadata.versionString = version("burnish")
    description.metadata.shortDescription = (
        "Restores photographs step by step: encode reads a picture, refine returns a better one. "
        "See docs/coreml.md of burnish."
    )
    for function in description.functions or (description,):
        for feature in (*function.input, *function.output):
            text = _DESCRIPTIONS[feature.name]
            feature.shortDescription = (
                text.replace("RGB in [0, 1]", "8-bit RGB") if images and feature.name in _PICTURES else text
            )
    (place / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(spec.SerializeToString())


def graphs(context: Context) -> dict[str, ExportedProgram]:
    """The quantised graphs, their constants rounded to fp16 as the package stores them."""
    assert context.quantized is not None
    programs = load_graphs(context.quantized / "coreml")
    for program in programs.values():
        for node in program.graph.nodes:
            if node.target in (QUANTIZE, DEQUANTIZE):
                node.args = (node.args[0], float(np.float16(node.args[1])), *node.args[2:])
        program.graph_module.recompile()
        for constant in (*program.state_dict.values(), *program.constants.values()):
            if isinstance(constant, Tensor) and constant.is_floating_point():
                constant.data.copy_(constant.data.half())
    return programs


def delegates(folder: Path) -> dict[str, dict[str, int]]:
    """Functions of the written ML programs by method: each is one whole, nothing is left to another runtime."""
    return {
        name: {"coreml": 1 if function else len(Package.open(place).spec.mlProgram.functions)}
        for name, (place, function) in packages(folder).items()
    }


def boundary_bytes(folder: Path) -> dict[str, int]:
    """Bytes of all inputs and outputs of each written method; a picture of image type takes four a pixel."""

    def size(kind: Any) -> int:
        if kind.WhichOneof("Type") == "imageType":
            return kind.imageType.width * kind.imageType.height * 4
        array = kind.multiArrayType
        return math.prod(array.shape) * {"FLOAT16": 2, "FLOAT32": 4}[array.ArrayDataType.Name(array.dataType)]

    sizes: dict[str, int] = {}
    for package in dict.fromkeys(place for place, _ in packages(folder).values()):
        description = Package.open(package).spec.description
        for function in description.functions or (description,):
            name = package.stem if function is description else function.name
            sizes[name] = sum(size(feature.type) for feature in (*function.input, *function.output))
    return sizes


def check(context: Context, folder: Path) -> str:
    """Measure on real trajectories how much of fp16's range the program uses, and compare a quantised one with its graphs.

    Computed in float32 it must give what they give: what fp16 adds is judged with the program's pictures. Raises BackendError.
    """
    session = CoreMLReferenceSession(folder)
    count = len(packages(folder))
    form = f"one package, {count} functions" if (folder / PACKAGE).is_dir() else f"{count} packages"
    said = [f"{session.system}, {form}", _headroom(session, context)]
    if session.operations["quantize"]:
        expected = restored_by_methods({name: p.module() for name, p in graphs(context).items()}, context)
        apart = Agreement.between(restored_by(CoreMLReferenceSession(folder, single=True), context), expected)
        said.append(f"in float32 {apart} from its quantised graphs, {apart.close:.2%} of pixels within 1/255")
        if apart.median < LEAST_CONVERTED or apart.close < LEAST_CLOSE:
            raise BackendError(
                f"{said[-1]}; expected {LEAST_CONVERTED:.0f} dB and {LEAST_CLOSE:.1%}: conversion is wrong"
            )
    return "; ".join(said)


def _headroom(session: CoreMLReferenceSession, context: Context) -> str:
    """The largest fp16 value and where it is. Raises BackendError when too little of the range is left."""
    largest, where = 0.0, ""

    def watch(name: str, operation: str, value: Tensor) -> None:
        nonlocal largest, where
        if value.dtype == torch.float16:
            reach = float(value.abs().nan_to_num(math.inf, math.inf).max())
            if reach > largest:
                largest, where = reach, f"{operation} {name}"

    session.watch = watch
    restored_by(session, context)
    if largest > FLOAT16_LARGEST / HEADROOM:
        raise BackendError(
            f"{where} reaches {largest:.0f} in fp16, which ends at {FLOAT16_LARGEST:.0f}; scale the layer before it down"
        )
    return f"largest fp16 value {largest:.1f} of {FLOAT16_LARGEST:.0f} ({where})"
