"""Privileged training of SIPL teachers (SIPL, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import Batch
from ..metrics import psnr
from ..training import Objective
from .sipl import SIPLPromptIR


class PrivilegedObjective(Objective[SIPLPromptIR]):
    """L1 of the plain pass or of a pass guided by features of the truth or of the network's own restoration.

    The privileged source slides from the ground truth (what the dictionary should learn) to the own output (what it
    will get in use): picture = α·truth + (1 − α)·output, with α drawn anew for every sample.
    """

    def __init__(self, model: SIPLPromptIR) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, and the PSNR of the pass this step trained: a coin decides between the plain and the guided one."""
        if torch.rand(()) < 0.4:
            plain = self.model(batch.degraded)
            return {"loss": (plain - batch.clean).abs().mean()}
        with torch.no_grad():
            plain = self.model(batch.degraded).float().clamp(0, 1)
            alpha = torch.rand(len(plain), 1, 1, 1, device=plain.device)
            # Half of the samples see their own output alone, as every iteration in use does.
            alpha = torch.where(alpha < 0.5, 0.0, alpha * 2 - 1)
            privileged = self.model.encode(alpha * batch.clean + (1 - alpha) * plain)
        guided = self.model(batch.degraded, privileged)
        with torch.no_grad():
            before, after = psnr(plain, batch.clean).mean(), psnr(guided.clamp(0, 1), batch.clean).mean()
        return {"loss": (guided - batch.clean).abs().mean(), "psnr_plain": before, "psnr_guided": after}
