"""torchvision beside a torch built without CUDA.

The wheels on PyPI hold operators that link to CUDA. Next to a CPU build of torch they do not load, and `import torchvision`
(by torchmetrics, Lightning, spandrel, open_clip) then fails on describing two of them. None is used here.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import version

import torch


def declare_missing() -> None:
    """Declare the operators that torchvision describes at import, where its own library cannot load."""
    if torch.version.cuda is not None or importlib.util.find_spec("torchvision") is None:
        return
    if "+cpu" not in version("torchvision"):
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
