"""What to write instead of operations that phones, Jetsons or int8 do not take: found in an exported graph, by line."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram


@dataclass(frozen=True)
class Advice:
    """One kind of operation, what it costs and what to write instead."""

    name: str
    matches: Callable[[Any], bool]
    cost: str
    instead: str


@dataclass(frozen=True)
class Finding:
    """A place in the model's source and the advice for it."""

    where: str
    name: str
    cost: str
    instead: str

    def __str__(self) -> str:
        return f"{self.where}: {self.name} {self.cost}; use {self.instead}"


def _calls(*names: str) -> Callable[[Any], bool]:
    return lambda node: _name(node) in names


def _name(node: Any) -> str:
    """layer_norm of aten.layer_norm.default."""
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else schema.name.removeprefix("aten::")


def _padding_mode(node: Any) -> bool:
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    return _name(node) == "pad" and mode != "constant"


def _broadcast_product(node: Any) -> bool:
    if _name(node) not in ("matmul", "einsum"):
        return False
    shapes = [tuple(a.meta["val"].shape) for a in node.args if hasattr(a, "meta")]
    return any(len(s) != 3 for s in shapes) or len({s[0] for s in shapes}) > 1


def _same_padding(node: Any) -> bool:
    return _name(node) in ("conv1d", "conv2d") and isinstance(node.args[4] if len(node.args) > 4 else 0, str)


def _partial_mean(node: Any) -> bool:
    """Averages other than over H and W of a picture whose axes stay, the one kind that XNNPACK takes."""
    if _name(node) != "mean":
        return False
    axes = node.args[1] if len(node.args) > 1 else None
    rank = len(node.args[0].meta["val"].shape)
    keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    return axes is None or not keep or {axis % rank for axis in axes} != {rank - 2, rank - 1}


def _scalar_product(node: Any) -> bool:
    return _name(node) in ("mul", "div") and any(isinstance(a, int | float) for a in node.args)


TABLE: tuple[Advice, ...] = (
    Advice(
        "LayerNorm",
        _calls("layer_norm", "native_layer_norm"),
        "stays outside the XNNPACK delegate and overflows in fp16",
        "no normalisation (small residual branches, He initialisation) or BatchNorm2d, which fuses into its convolution",
    ),
    Advice(
        "GroupNorm or InstanceNorm",
        _calls("group_norm", "native_group_norm", "instance_norm"),
        "averages over the tile, so that neighbouring tiles disagree, and overflows in fp16",
        "no normalisation or BatchNorm2d, which fuses into its convolution",
    ),
    Advice("GELU", _calls("gelu"), "stays in float in int8 programs and is taken apart on NPUs", "ReLU or Hardswish"),
    Advice(
        "chunk or split",
        _calls("chunk", "split", "split_with_sizes", "tensor_split", "unbind"),
        "becomes split_with_sizes_copy, which stays outside the delegate and cuts it in two",
        "one convolution (or linear layer) for each part",
    ),
    Advice(
        "reflect pad",
        lambda node: _padding_mode(node) or _name(node).startswith(("reflection_pad", "replication_pad")),
        "is taken apart into index operations outside the delegate",
        "zero padding inside the convolution (padding=1); burnish pads pictures at their borders on the host",
    ),
    Advice(
        "padding='same'",
        _same_padding,
        "fails in int8",
        "the number: padding=kernel_size // 2",
    ),
    Advice("mean", _partial_mean, "stays outside the delegate or breaks int8", "nn.AdaptiveAvgPool2d(1)"),
    Advice(
        "broadcasting @ or einsum",
        _broadcast_product,
        "becomes expand_copy, which stays outside the delegate",
        "torch.bmm on 3-D tensors of the same batch, and store a dictionary as (1, N, C)",
    ),
    Advice(
        "product with a number",
        _scalar_product,
        "puts a 0-dimensional tensor into the graph, which breaks the lowering of int8",
        "the factor folded into the weights before it",
    ),
    Advice(
        "scaled_dot_product_attention",
        _calls("scaled_dot_product_attention"),
        "is taken apart, with its scale as a 0-dimensional tensor",
        "torch.bmm, softmax, torch.bmm, and 1/√d folded into the query's weights",
    ),
    Advice(
        "resampling",
        _calls("upsample_nearest2d", "upsample_bicubic2d", "grid_sampler", "grid_sampler_2d"),
        "stays outside the delegate",
        "ConvTranspose2d with kernel 2 and stride 2",
    ),
    Advice("roll", _calls("roll"), "is taken apart into slices and copies", "no shifted windows: a 3×3 convolution"),
    Advice(
        "pixel shuffle",
        _calls("pixel_shuffle", "pixel_unshuffle"),
        "leaves int8, transposes in fp32 and enters int8 again",
        "ConvTranspose2d (Conv2d on the way down) with kernel 2 and stride 2",
    ),
)


def findings(program: ExportedProgram) -> list[Finding]:
    """What the table says of a program, in the order of its graph, every line once."""
    found: dict[tuple[str, str], Finding] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        for advice in TABLE:
            if advice.matches(node):
                where = source(node.meta.get("stack_trace"))
                found.setdefault((where, advice.name), Finding(where, advice.name, advice.cost, advice.instead))
                break
    return list(found.values())


def source(trace: str | None) -> str:
    """file:line of the model's own code in a node's stack trace, as short as it is unambiguous here."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', trace or "")
    own = [(file, line) for file, line in frames if not _foreign(file)]
    if not own:
        return "the model"
    file, line = own[-1]
    with suppress(ValueError):
        file = Path(file).resolve().relative_to(Path.cwd()).as_posix()
    return f"{file}:{line}"


def _foreign(file: str) -> bool:
    """Whether a frame is torch's or generated code."""
    return file.startswith("<") or Path(torch.__file__).parent in Path(file).parents
