"""What a step will cost: an upper estimate, seeded from a profile and corrected as steps are observed.

Mean and mean absolute deviation are exponentially weighted, as a transport protocol estimates round trips (RFC 6298).
One duration outside the expected range is held back: it counts only up to the edge of the range. A second one in a row,
on the same side, is the new pace of the machine: throttled, loaded, or free again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

WEIGHT = 0.25
DEVIATIONS = 3.0
# Never trust a step to be steadier than this share of its mean.
LEAST_DEVIATION = 0.03
# What a single duration says of its deviation.
FIRST_DEVIATION = 0.1
# By how much an estimate that let nothing begin shrinks.
DOUBT = 0.9


@dataclass(frozen=True)
class Estimate:
    """Mean and mean absolute deviation of a duration in milliseconds; `outlier`: the last one, where it was held back; `least`:
    the shortest one, 0 before any.

    A mean of 0 knows nothing yet and predicts 0.
    """

    mean: float = 0.0
    deviation: float = 0.0
    outlier: float | None = None
    least: float = 0.0

    @property
    def margin(self) -> float:
        """How far from the mean a duration is expected."""
        return DEVIATIONS * max(self.deviation, LEAST_DEVIATION * self.mean)

    @property
    def upper(self) -> float:
        """Rarely exceeded while the pace lasts."""
        return self.mean + self.margin

    def predict(self, deviations: float) -> float:
        """The mean and so many deviations."""
        return self.mean + deviations * max(self.deviation, LEAST_DEVIATION * self.mean)

    def observe(self, value: float) -> Estimate:
        """The estimate after one more duration."""
        least = min(value, self.least or value)
        if self.mean == 0.0:
            return Estimate(value, FIRST_DEVIATION * value, least=least)
        error, outlier = value - self.mean, None
        if abs(error) > self.margin:
            if self.outlier is not None and (self.outlier > self.mean) == (error > 0):
                mean = (value + self.outlier) / 2
                return Estimate(mean, max(abs(value - self.outlier) / 2, FIRST_DEVIATION * mean), least=least)
            outlier, error = value, math.copysign(self.margin, error)
        mean = self.mean + WEIGHT * error
        return Estimate(mean, self.deviation + WEIGHT * (abs(error) - self.deviation), outlier, least)

    def doubted(self) -> Estimate:
        """The estimate after it let nothing begin, and so could not be corrected: it may be of a pace that is over."""
        mean = max(self.least, DOUBT * self.mean)
        return Estimate(mean, DOUBT * self.deviation, least=self.least)


@dataclass(frozen=True)
class CostModel:
    """Estimates of both methods for one tile on this machine."""

    encode: Estimate = Estimate()
    refine: Estimate = Estimate()

    def encoded(self, ms: float) -> CostModel:
        """The model after one more encode."""
        return replace(self, encode=self.encode.observe(ms))

    def refused(self, budget_ms: float) -> CostModel:
        """The model after no step could begin within a budget; doubted where both methods once took no longer together."""
        if budget_ms < self.encode.least + self.refine.least:
            return self
        return CostModel(self.encode.doubted(), self.refine.doubted())

    def refined(self, ms: float) -> CostModel:
        """The model after one more refine."""
        return replace(self, refine=self.refine.observe(ms))
