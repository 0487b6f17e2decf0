"""What a step will cost: an upper estimate, seeded from a profile and corrected as steps are observed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# Weight of a new observation: a lasting slowdown is noticed within two steps, one outlier does not rule for long.
WEIGHT = 0.5
DEVIATIONS = 3.0
# Never trust a step to be steadier than this share of its mean.
LEAST_SPREAD = 0.03


@dataclass(frozen=True)
class Estimate:
    """Exponentially weighted mean and variance of a duration in milliseconds."""

    mean: float = 0.0
    variance: float = 0.0

    @property
    def upper(self) -> float:
        """The mean and `DEVIATIONS` standard deviations."""
        return self.mean + DEVIATIONS * max(math.sqrt(self.variance), LEAST_SPREAD * self.mean)

    def observe(self, value: float) -> Estimate:
        """The estimate after one more duration."""
        if self.mean == 0.0:
            return Estimate(value, (0.1 * value) ** 2)
        delta = value - self.mean
        mean = self.mean + WEIGHT * delta
        return Estimate(mean, (1 - WEIGHT) * (self.variance + WEIGHT * delta * delta))


@dataclass(frozen=True)
class CostModel:
    """Estimates of both methods on this machine; a fresh one knows nothing and predicts 0."""

    encode: Estimate = Estimate()
    refine: Estimate = Estimate()

    def scaled(self, factor: float) -> CostModel:
        """The model of `factor` times the work: a picture of many tiles from one tile, or back."""
        return CostModel(*(Estimate(e.mean * factor, e.variance * factor**2) for e in (self.encode, self.refine)))

    def observe(self, *, encode_ms: float | None = None, refine_ms: float | None = None) -> CostModel:
        """The model after a step; None where the method did not run."""
        model = self
        if encode_ms is not None:
            model = replace(model, encode=self.encode.observe(encode_ms))
        if refine_ms is not None:
            model = replace(model, refine=self.refine.observe(refine_ms))
        return model
