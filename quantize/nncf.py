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


def range_estimator(outliers: float) -> Any:
    """Activation ranges over all samples that leave out a share of each sample's values at either end."""
    from nncf.quantization import range_estimator as nncf_range

    def collect(extreme: nncf_range.StatisticsType, join: nncf_range.AggregatorType) -> Any:
        statistics = nncf_range.StatisticsType.QUANTILE if outliers else extreme
        return nncf_range.StatisticsCollectorParameters(statistics, join, quantile_outlier_prob=outliers)

    return nncf_range.RangeEstimatorParameters(
        min=collect(nncf_range.StatisticsType.MIN, nncf_range.AggregatorType.MIN),
        max=collect(nncf_range.StatisticsType.MAX, nncf_range.AggregatorType.MAX),
    )
