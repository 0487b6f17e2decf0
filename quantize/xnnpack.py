"""XNNPACK's quantizer, for ExecuTorch on Arm and x86 CPUs."""

from __future__ import annotations

from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)

from .core import Target


def xnnpack_quantizer() -> XNNPACKQuantizer:
    """Symmetric int8: weights a channel, activations a tensor."""
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    return quantizer


XNNPACK = Target(xnnpack_quantizer)
