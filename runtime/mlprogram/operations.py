"""The operations of an ML program, each as Core ML's operator set (iOS 15 to 18) defines it.

Float operations compute in float32 whatever they are declared to be; `program` rounds each result once to its declared
type. Parameters (strides, axes, scales of quantisers' channels) are constants of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BundleError
from .values import MAX_ELEMENTS, Constant


class Name(NamedTuple):
    """A reference to a value that is computed."""

    value: str


Reference = Name | Constant
Given = Mapping[str, tuple[Reference, ...]]


class Arguments:
    """What one operation is given: tensors by input name, parameters as Python values."""

    def __init__(self, given: Given, values: Mapping[str, Tensor], device: str = "cpu") -> None:
        self._given, self._values, self._device = given, values, device

    def tensors(self, name: str) -> list[Tensor]:
        """All values of an input; float16 comes as float32."""
        if not self._given.get(name):
            raise BundleError(f"input {name} is missing")
        return [self._tensor(reference, name) for reference in self._given[name]]

    def tensor(self, name: str) -> Tensor:
        return self.tensors(name)[0]

    def optional(self, name: str) -> Tensor | None:
        return self.tensor(name) if self._given.get(name) else None

    def _tensor(self, reference: Reference, name: str) -> Tensor:
        if isinstance(reference, str):
            raise BundleError(f"input {name} is text; expected a tensor")
        tensor = self._values[reference.value] if isinstance(reference, Name) else reference.to(self._device)
        return tensor.float() if tensor.dtype == torch.float16 else tensor

    def parameter(self, name: str, default: Any = None) -> Any:
        """A constant as a Python number, bool, text or list. Raises BundleError where there is none and no default."""
        if not self._given.get(name):
            if default is None:
                raise BundleError(f"parameter {name} is missing")
            return default
        (reference,) = self._given[name]
        if isinstance(reference, Name):
            raise BundleError(f"parameter {name} is computed; expected a constant")
        return reference if isinstance(reference, str) else reference.tolist()

    def axis(self) -> int | None:
        return self.parameter("axis") if self._given.get("axis") else None


Operation = Callable[[Arguments], Tensor]
OPERATIONS: dict[str, Operation] = {}


def _operation(function: Operation) -> Operation:
    OPERATIONS[function.__name__.rstrip("_")] = function
    return function


def _binary(compute: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    return lambda a: compute(a.tensor("x"), a.tensor("y"))


def _unary(compute: Callable[[Tensor], Tensor]) -> Operation:
    return lambda a: compute(a.tensor("x"))


OPERATIONS.update(
    {
        "add": _binary(torch.add),
        "sub": _binary(torch.sub),
        "mul": _binary(torch.mul),
        "real_div": _binary(torch.div),
        "abs": _unary(torch.abs),
        "relu": _unary(torch.relu),
        "sigmoid": _unary(torch.sigmoid),
        "identity": _unary(lambda x: x),
        # The declared type of the result says which; `dtype` repeats it.
        "cast": _unary(lambda x: x),
    }
)


def _padding(a: Arguments, rank: int) -> list[int]:
    """Padding of the spatial axes as begin, end, begin, end …"""
    pad_type = a.parameter("pad_type", "valid")
    if pad_type not in ("valid", "custom"):
        raise BundleError(f"pad_type {pad_type!r} is not evaluated; expected valid or custom")
    pad: list[int] = a.parameter("pad", [0] * (2 * rank)) if pad_type == "custom" else [0] * (2 * rank)
    if len(pad) != 2 * rank:
        raise BundleError(f"pad has {len(pad)} entries; expected {2 * rank}")
    return pad


def _last_axis_first(pad: Sequence[int]) -> list[int]:
    """Begin and end of each axis in the order torch.nn.functional.pad takes them."""
    return [side for axis in range(len(pad) - 2, -1, -2) for side in pad[axis : axis + 2]]


def _bounded(tensor: Tensor) -> Tensor:
    """Refuse what an operation would need on its way to a small result."""
    if tensor.numel() > MAX_ELEMENTS:
        raise BundleError(f"needs {tensor.numel()} elements; expected at most {MAX_ELEMENTS}")
    return tensor


@_operation
def conv(a: Arguments) -> Tensor:
    x, weight = a.tensor("x"), a.tensor("weight")
    rank = x.dim() - 2
    x = _bounded(F.pad(x, _last_axis_first(_padding(a, rank))))
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    strides, dilations = a.parameter("strides", [1] * rank), a.parameter("dilations", [1] * rank)
    return convolve(x, weight, a.optional("bias"), strides, 0, dilations, a.parameter("groups", 1))


@_operation
def conv_transpose(a: Arguments) -> Tensor:
    x, weight = a.tensor("x"), a.tensor("weight")
    rank = x.dim() - 2
    pad = _padding(a, rank)
    convolve = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[rank]
    strides, dilations = a.parameter("strides", [1] * rank), a.parameter("dilations", [1] * rank)
    full = _bounded(convolve(x, weight, a.optional("bias"), strides, 0, 0, a.parameter("groups", 1), dilations))
    # Padding cuts the full result; an output shape says how much of it stays.
    wanted = a.parameter("output_shape", [0] * (rank + 2))[2:]
    for axis in range(rank):
        begin, end = pad[2 * axis : 2 * axis + 2]
        full = full.narrow(axis + 2, begin, wanted[axis] or full.shape[axis + 2] - begin - end)
    return full


@_operation
def linear(a: Arguments) -> Tensor:
    return F.linear(a.tensor("x"), a.tensor("weight"), a.optional("bias"))


@_operation
def matmul(a: Arguments) -> Tensor:
    x, y = a.tensor("x"), a.tensor("y")
    x = x.mT if a.parameter("transpose_x", False) else x
    y = y.mT if a.parameter("transpose_y", False) else y
    return torch.matmul(x, y)


@_operation
def softmax(a: Arguments) -> Tensor:
    return a.tensor("x").softmax(a.parameter("axis", -1))


@_operation
def clip(a: Arguments) -> Tensor:
    return a.tensor("x").clamp(a.parameter("alpha"), a.parameter("beta"))


@_operation
def sigmoid_hard(a: Arguments) -> Tensor:
    return (a.tensor("x") * a.parameter("alpha", 0.2) + a.parameter("beta", 0.5)).clamp(0, 1)


@_operation
def thresholded_relu(a: Arguments) -> Tensor:
    x = a.tensor("x")
    return torch.where(x >= a.parameter("alpha", 1.0), x, 0.0)


@_operation
def reduce_mean(a: Arguments) -> Tensor:
    x = a.tensor("x")
    return x.mean(a.parameter("axes", list(range(x.dim()))), keepdim=a.parameter("keep_dims", False))


@_operation
def avg_pool(a: Arguments) -> Tensor:
    x, sizes = a.tensor("x"), a.parameter("kernel_sizes")
    if x.dim() != 4 or a.parameter("ceil_mode", False):
        raise BundleError("avg_pool is evaluated over two axes and without ceil_mode")
    pad, strides = _last_axis_first(_padding(a, 2)), a.parameter("strides", [1, 1])
    total = F.avg_pool2d(_bounded(F.pad(x, pad)), sizes, strides)
    if not a.parameter("exclude_padding_from_average", False):
        return total
    return total / F.avg_pool2d(F.pad(torch.ones_like(x), pad), sizes, strides)


@_operation
def pixel_shuffle(a: Arguments) -> Tensor:
    return F.pixel_shuffle(a.tensor("x"), a.parameter("upscale_factor"))


@_operation
def reshape(a: Arguments) -> Tensor:
    return a.tensor("x").reshape(a.parameter("shape"))


@_operation
def transpose(a: Arguments) -> Tensor:
    return a.tensor("x").permute(a.parameter("perm"))


@_operation
def expand_dims(a: Arguments) -> Tensor:
    x, axes = a.tensor("x"), a.parameter("axes")
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@_operation
def squeeze(a: Arguments) -> Tensor:
    x = a.tensor("x")
    return x.squeeze(tuple(a.parameter("axes", list(range(x.dim())))))


@_operation
def concat(a: Arguments) -> Tensor:
    if a.parameter("interleave", False):
        raise BundleError("interleave is not evaluated")
    return torch.cat(a.tensors("values"), a.parameter("axis"))


@_operation
def slice_by_index(a: Arguments) -> Tensor:
    x = a.tensor("x")
    unset = [False] * x.dim()
    begin, end = a.parameter("begin"), a.parameter("end")
    strides = a.parameter("stride", [1] * x.dim())
    begin_mask, end_mask = a.parameter("begin_mask", unset), a.parameter("end_mask", unset)
    squeeze_mask = a.parameter("squeeze_mask", unset)
    if any(stride < 1 for stride in strides):
        raise BundleError(f"stride {strides} is not evaluated; expected positive steps")
    index: list[slice | int] = [
        begin[i]
        if squeeze_mask[i]
        else slice(None if begin_mask[i] else begin[i], None if end_mask[i] else end[i], strides[i])
        for i in range(x.dim())
    ]
    return x[tuple(index)]


@_operation
def slice_by_size(a: Arguments) -> Tensor:
    x = a.tensor("x")
    for axis, (begin, size) in enumerate(zip(a.parameter("begin"), a.parameter("size"), strict=True)):
        x = x.narrow(axis, begin, x.shape[axis] - begin if size == -1 else size)
    return x


def _along(parameter: Tensor | None, rank: int, axis: int | None) -> Tensor | float:
    """A quantiser's scale or zero-point, spread along its axis."""
    if parameter is None:
        return 0.0
    if parameter.dim() == 0:
        return parameter.float()
    if axis is None:
        raise BundleError("a scale for each channel needs an axis")
    shape = [1] * rank
    shape[axis] = -1
    return parameter.float().reshape(shape)


@_operation
def quantize(a: Arguments) -> Tensor:
    """clip(round(input / scale) + zero_point), halves to even."""
    x, axis = a.tensor("input"), a.axis()
    limits = {"int8": (-128, 127), "uint8": (0, 255)}.get(a.parameter("output_dtype"))
    if limits is None:
        raise BundleError(f"output_dtype {a.parameter('output_dtype')!r} is not evaluated; expected int8 or uint8")
    scale, zero = _along(a.tensor("scale"), x.dim(), axis), _along(a.optional("zero_point"), x.dim(), axis)
    # Before the conversion to integers, which is undefined for NaN and for what is out of range.
    return (torch.round(x / scale) + zero).nan_to_num(nan=0.0).clamp(*limits)


@_operation
def dequantize(a: Arguments) -> Tensor:
    """scale · (input − zero_point)."""
    x, axis = a.tensor("input").float(), a.axis()
    return (x - _along(a.optional("zero_point"), x.dim(), axis)) * _along(a.tensor("scale"), x.dim(), axis)


@_operation
def constexpr_affine_dequantize(a: Arguments) -> Tensor:
    x, axis = a.tensor("quantized_data").float(), a.axis()
    return (x - _along(a.tensor("zero_point"), x.dim(), axis)) * _along(a.tensor("scale"), x.dim(), axis)


@_operation
def constexpr_blockwise_shift_scale(a: Arguments) -> Tensor:
    """scale · (data − offset), scale and offset spread over blocks of equal size."""
    data, scale, offset = a.tensor("data").float(), a.tensor("scale"), a.optional("offset")

    def spread(parameter: Tensor) -> Tensor:
        for axis in range(data.dim()):
            parameter = parameter.repeat_interleave(data.shape[axis] // parameter.shape[axis], axis)
        return parameter.float()

    return (data if offset is None else data - spread(offset)) * spread(scale)
