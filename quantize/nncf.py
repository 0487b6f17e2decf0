"""NNCF, imported once and quietly."""

from __future__ import annotations

import logging
import os
from types import ModuleType
from typing import Any


def load_nncf() -> ModuleType:
    """The nncf module: telemetry off unless the user sets NNCF_CI himself, messages below an error kept."""
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf


def range_estimator(name: str) -> Any:
    """Activation ranges: the extremes over all samples, or NNCF's own default (their mean over samples)."""
    from nncf.quantization import range_estimator as nncf_range

    collect = nncf_range.StatisticsCollectorParameters
    if name == "mean":
        return nncf_range.RangeEstimatorParameters()
    return nncf_range.RangeEstimatorParameters(
        min=collect(nncf_range.StatisticsType.MIN, nncf_range.AggregatorType.MIN),
        max=collect(nncf_range.StatisticsType.MAX, nncf_range.AggregatorType.MAX),
    )
