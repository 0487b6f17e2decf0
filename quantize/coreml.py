"""Core ML's quantizer: what its int8 convolutions and linear layers read, and their weights."""

from __future__ import annotations

import torch
from torch import fx
from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from .core import Target

# Symmetric: int8 with zero-point 0 in Core ML. NNCF shifts what is never negative to uint8, zero-point 0 there as well.
_ACTIVATION = QuantizationSpec(torch.uint8, HistogramObserver, 0, 255, torch.per_tensor_symmetric)
_WEIGHT = QuantizationSpec(torch.int8, PerChannelMinMaxObserver, -127, 127, torch.per_channel_symmetric, ch_axis=0)
_WEIGHTED = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


class CoreMLQuantizer(Quantizer):
    """8-bit inputs and weights of convolutions and linear layers; everything between them stays in fp16.

    ExecuTorch's quantizer of the same name also quantises what layers write and both terms of a sum. Rounding that often
    costs more than int8 gains where it can be used, and in fp16 each rounding may fall either way: see docs/coreml.md.
    """

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        for node in model.graph.nodes:
            if node.target in _WEIGHTED:
                node.meta["quantization_annotation"] = QuantizationAnnotation(
                    input_qspec_map={node.args[0]: _ACTIVATION, node.args[1]: _WEIGHT}, _annotated=True
                )
        return model

    def validate(self, model: fx.GraphModule) -> None:
        pass


COREML = Target(CoreMLQuantizer)
