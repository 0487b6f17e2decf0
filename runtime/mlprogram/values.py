"""Types and constants of an ML program as torch has them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import BundleError
from .package import Package

Constant = Tensor | str
# A tile of 4096² pixels with 64 channels.
MAX_ELEMENTS = 1 << 30


class _Element(NamedTuple):
    """An element type: torch's and numpy's, the blob file's number for it, the field of an immediate value."""

    torch: torch.dtype
    numpy: Any
    blob: int | None
    field: str


_ELEMENTS: dict[str, _Element] = {
    "FLOAT16": _Element(torch.float16, np.float16, 1, "bytes"),
    "FLOAT32": _Element(torch.float32, np.float32, 2, "floats"),
    "UINT8": _Element(torch.uint8, np.uint8, 3, "bytes"),
    "INT8": _Element(torch.int8, np.int8, 4, "bytes"),
    "INT32": _Element(torch.int32, np.int32, 14, "ints"),
    "BOOL": _Element(torch.bool, np.bool_, None, "bools"),
}


class Kind(NamedTuple):
    """What a program declares of a value: its element type and shape."""

    element: _Element
    shape: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.element.torch


def kind_of(declared: Any, name: str) -> Kind:
    """The kind of a `ValueType`. Raises BundleError for what the evaluator does not know."""
    from coremltools.proto import MIL_pb2

    if declared.WhichOneof("type") != "tensorType":
        raise BundleError(f"{name} is a {declared.WhichOneof('type')}; this burnish evaluates tensors")
    tensor = declared.tensorType
    names = MIL_pb2.DataType.DESCRIPTOR.values_by_number
    element = names[tensor.dataType].name if tensor.dataType in names else f"number {tensor.dataType}"
    if element not in _ELEMENTS:
        raise BundleError(f"{name} has elements of type {element}; this burnish evaluates {', '.join(_ELEMENTS)}")
    if any(d.WhichOneof("dimension") != "constant" for d in tensor.dimensions):
        raise BundleError(f"{name} has a shape that is not fixed; this burnish evaluates fixed shapes")
    shape = tuple(int(d.constant.size) for d in tensor.dimensions)
    if math.prod(shape) > MAX_ELEMENTS:
        raise BundleError(f"{name} has shape {shape}; expected at most {MAX_ELEMENTS} elements")
    return Kind(_ELEMENTS[element], shape)


def constant_of(value: Any, name: str, package: Package) -> Constant:
    """A constant from a `Value`: immediate, or in the package's weights. Raises BundleError."""
    stored = value.WhichOneof("value")
    if stored == "immediateValue" and value.immediateValue.tensor.WhichOneof("value") == "strings":
        return "".join(value.immediateValue.tensor.strings.values)
    kind = kind_of(value.type, name)
    size = math.prod(kind.shape) * np.dtype(kind.element.numpy).itemsize
    if stored == "blobFileValue" and kind.element.blob is not None:
        where = value.blobFileValue
        data: Any = package.blob(where.fileName, where.offset, kind.element.blob, size)
        array = np.frombuffer(data, kind.element.numpy)
    elif stored == "immediateValue" and value.immediateValue.tensor.WhichOneof("value") == kind.element.field:
        given = getattr(value.immediateValue.tensor, kind.element.field).values
        array = np.array(given) if not isinstance(given, bytes) else np.zeros(0, kind.element.numpy)
        if isinstance(given, bytes) and len(given) == size:
            array = np.frombuffer(given, kind.element.numpy)
    else:
        raise BundleError(f"{package.path}: constant {name} has no value of its type; the model is damaged")
    if array.size != math.prod(kind.shape):
        raise BundleError(f"{package.path}: constant {name} has {array.size} elements; its shape is {kind.shape}")
    return torch.from_numpy(array.astype(kind.element.numpy).reshape(kind.shape))
