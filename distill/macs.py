"""Multiply-adds of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_macs(call: Callable[[], Any]) -> int:
    """Multiply-adds of convolutions and matrix products, attention's included; element-wise work is not counted."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() // 2
