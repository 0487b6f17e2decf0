"""The quality gate: how much a program may lose against the full-precision student, by measure."""

from __future__ import annotations

from pydantic import Field

from ..distill.recipe import Frozen

EVERY_TARGET = "*"


class Gate(Frozen):
    """Limits on every condition and iteration; null leaves a measure unjudged.

    The first two and the last three are this project's promise for int8; SSIM's is set where 0.15 dB of noise would put it.
    """

    max_drop_db: float | dict[str, float] | None = Field(
        default={EVERY_TARGET: 0.15, "coreml": 0.2, "tensorrt": 0.2},
        description="mean loss of PSNR against the truth, dB; one limit, or one a target ('*': the others)",
    )
    max_worst_drop_db: float | None = Field(default=0.5, description="the same on the worst 5 % of pictures, dB")
    max_ssim_drop: float | None = Field(default=0.01, description="mean loss of SSIM against the truth")
    max_delta_e: float | None = Field(default=0.5, description="mean CIEDE2000 difference from the student's picture")
    max_bias: float | None = Field(
        default=0.3, description="brightness difference from the student's picture, 1/255, mean of absolute values"
    )
    min_same_stop: float | None = Field(
        default=0.9, description="share of tiles that stop at the student's iteration, over all conditions"
    )
    max_growth_db: float = Field(
        default=0.05, description="drift raises an alarm when the mean loss grows in every iteration, by more than this"
    )

    def drop_limit(self, program: str) -> float | None:
        """The limit on the mean loss of PSNR of a program (target-precision); that of coreml is coreml-ios17's too."""
        limits = self.max_drop_db
        if not isinstance(limits, dict):
            return limits
        target = program.rpartition("-")[0]
        return next((limits[name] for name in (target, target.partition("-")[0], EVERY_TARGET) if name in limits), None)
