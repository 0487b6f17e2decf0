"""TensorRT's quantizer: symmetric int8 with zero-point 0, placed where its kernels fuse."""

from __future__ import annotations

import torch
from torch import fx
from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
)

from .core import Target
from .layers import WEIGHTED
from .ranges import ADD

_ACTIVATION = QuantizationSpec(torch.int8, HistogramObserver, -128, 127, torch.per_tensor_symmetric)
_WEIGHT = QuantizationSpec(torch.int8, PerChannelMinMaxObserver, -127, 127, torch.per_channel_symmetric, ch_axis=0)


class TensorRTQuantizer(Quantizer):
    """Symmetric int8 where TensorRT fuses it: into whatever has weights, and what a skip connection adds.

    Outputs are not quantised: TensorRT then fuses convolution, sum and ReLU into one kernel that writes the next layer's int8
    (NVIDIA, "Working with Quantized Types", Q/DQ layer-placement recommendations).
    """

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        for node in model.graph.nodes:
            specs: dict[fx.Node, QuantizationSpecBase | None] = {}
            if node.target in WEIGHTED:
                specs = {node.args[0]: _ACTIVATION, node.args[1]: _WEIGHT}
            elif node.target in ADD:
                specs = {a: _ACTIVATION for a in node.args[:2] if isinstance(a, fx.Node) and a.target not in WEIGHTED}
                specs = specs if len(specs) == 1 else {}  # a sum of two convolutions has no skip connection
            if specs:
                node.meta["quantization_annotation"] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        pass


TENSORRT = Target(TensorRTQuantizer, symmetric=True)
