"""Training of single-pass teachers and of SIPL (privilege learning, section 3.2, and privileged training, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import Batch
from ..metrics import fidelity_loss, psnr
from ..training import Objective
from .single_pass import SinglePass
from .sipl import SIPL

# Mean squared error below which a picture counts as nearly perfect: 33 dB.
FLOOR = 5e-4
# Share of steps that train the pass without guidance.
PLAIN = 0.5


class FidelityObjective(Objective[SinglePass]):
    """Distance of the restored picture from the truth, on the scale students learn by (`metrics.fidelity_loss`)."""

    def __init__(self, model: SinglePass) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, and the PSNR of the input and of the restored picture."""
        restored = self.model(batch.degraded)
        return {"loss": fidelity_loss(restored.float(), batch.clean, FLOOR), **_figures(batch, plain=restored)}


class PrivilegeObjective(FidelityObjective):
    """Privilege learning (SIPL, equation 1), the paper's baseline: the input is α·truth + (1 − α)·degraded.

    α falls linearly from 1 to 0 over the first `steps` steps; afterwards this is `FidelityObjective`.
    """

    def __init__(self, model: SinglePass, steps: int) -> None:
        super().__init__(model)
        self.steps = steps
        # A buffer, so that a resumed run goes on where it was.
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        step = self.get_buffer("step")
        alpha = max(0.0, 1.0 - int(step) / self.steps)
        step += 1
        return super().forward(batch._replace(degraded=alpha * batch.clean + (1 - alpha) * batch.degraded))


class PrivilegedObjective(Objective[SIPL]):
    """A plain pass, or a pass guided by features of the truth or of the network's own restoration.

    The privileged source slides from the ground truth (what the dictionary should learn) to the own output (what it
    will get in use): picture = α·truth + (1 − α)·output, with α drawn anew for every sample. What a guided pass restores is
    what a later round restores in use (`SIPL.replaces`): the degraded picture, or the output itself.
    """

    def __init__(self, model: SIPL) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, and the PSNR of the pass this step trained: a coin decides between the plain and the guided one."""
        if torch.rand(()) < PLAIN:
            plain = self.model(batch.degraded)
            return {"loss": fidelity_loss(plain.float(), batch.clean, FLOOR)}
        with torch.no_grad():
            plain = self.model(batch.degraded).float().clamp(0, 1)
            alpha = torch.rand(len(plain), 1, 1, 1, device=plain.device)
            # Half of the samples see their own output alone, as every round in use does.
            alpha = torch.where(alpha < 0.5, 0.0, alpha * 2 - 1)
            privileged = self.model.backbone.encode(alpha * batch.clean + (1 - alpha) * plain)
        guided = self.model(plain if self.model.replaces else batch.degraded, privileged)
        return {
            "loss": fidelity_loss(guided.float(), batch.clean, FLOOR),
            **_figures(batch, plain=plain, guided=guided),
        }


@torch.no_grad()
def _figures(batch: Batch, **pictures: Tensor) -> dict[str, Tensor]:
    named = {"input": batch.degraded, **pictures}
    return {f"psnr_{name}": psnr(picture.clamp(0, 1), batch.clean).mean() for name, picture in named.items()}
