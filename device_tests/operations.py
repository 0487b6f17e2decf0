"""Where the time goes, and which kernels ran: ExecuTorch's ETDump, operation by operation."""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

from pydantic import Field

from ..runtime.bundle import StudentInfo
from ..runtime.errors import BackendError
from .records import Record

METHODS = ("encode", "refine")
# XNNPACK's names of what computes with weights; a 1×1 convolution is a fully connected layer to it.
_CONVOLUTION = re.compile(r"^(Convolution|Deconvolution|Fully Connected)\b")
_INT8 = re.compile(r"\bQ[CS]8")


class Operation(Record):
    """All kernels of one name in one method."""

    method: str
    name: str = Field(description="XNNPACK's, such as 'Convolution (NHWC, QC8) IGEMM'")
    count: int
    ms: float | None = Field(description="of one run, mean; null where time means nothing")


class Kernels(Record):
    """Convolutions (transposed and 1×1 ones too) of one run of both methods, by what their kernels compute in."""

    int8: int
    float32: int
    declared_float: int = Field(description="float convolutions that quantisation leaves in float on purpose")

    @property
    def int8_share(self) -> float:
        """Of the convolutions that are not declared float; 1 where there are none."""
        expected = self.int8 + max(0, self.float32 - self.declared_float)
        return self.int8 / expected if expected else 1.0


def read_operations(etdump: bytes, emulated: bool) -> tuple[Operation, ...]:
    """The operations of an ETDump in the order in which they first ran. Raises BackendError."""
    from executorch.devtools import Inspector

    logging.getLogger("executorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "etdump.etdp"
        path.write_bytes(etdump)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that no intermediate tensors were recorded
                inspector: Any = Inspector(etdump_path=str(path))
        except Exception as error:  # its own, unrelated types
            raise BackendError(f"ExecuTorch's Inspector cannot read the ETDump ({error}); run again") from None
    operations: list[Operation] = []
    runs = [block for block in inspector.event_blocks if any(e.name == "Method::execute" for e in block.events)]
    if len(runs) != len(METHODS):
        raise BackendError(f"an ETDump has {len(runs)} kinds of runs; expected encode and refine")
    for method, block in zip(METHODS, runs, strict=True):
        found: dict[str, tuple[int, float]] = {}
        for event in block.events:
            if event.is_delegated_op and event.perf_data is not None:
                name = re.sub(r" #\d+$", "", event.name)
                count, total = found.get(name, (0, 0.0))
                found[name] = (count + 1, total + event.perf_data.avg)
        operations += [
            Operation(method=method, name=name, count=count, ms=None if emulated else round(total, 4))
            for name, (count, total) in found.items()
        ]
    return tuple(operations)


def kernels(operations: tuple[Operation, ...], declared_float: int) -> Kernels:
    """How many convolutions ran in 8 bits."""
    convolutions = [operation for operation in operations if _CONVOLUTION.search(operation.name)]
    int8 = sum(o.count for o in convolutions if _INT8.search(o.name))
    return Kernels(int8=int8, float32=sum(o.count for o in convolutions) - int8, declared_float=declared_float)


def declared_float(student: StudentInfo) -> int:
    """How many convolutions and linear layers quantisation leaves in float on purpose, by its default configuration."""
    import torch
    from torch import nn

    from ..distill.student import Student, StudentConfig
    from ..quantize.config import QuantizeConfig

    with torch.device("meta"):
        whole = Student(StudentConfig.model_validate(student.config))
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    modules = dict(whole.named_modules())
    kept = [modules[name] for name in QuantizeConfig().left_in_float if name in modules]
    return sum(isinstance(module, layers) for parent in kept for module in parent.modules())
