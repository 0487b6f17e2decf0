"""One training loop for teachers and students: Lightning Fabric, EMA, cosine schedule, checkpoints, a time limit.

An objective is a module whose `forward(batch)` returns named losses (`loss` is minimised, the rest is logged) and whose
`model` is what is being trained. A run is a folder: `checkpoint.pt` (everything a resumed run needs), `log.jsonl`, and,
once finished, `weights.safetensors` (the averaged weights).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from lightning.fabric import Fabric
from pytorch_optimizer import Muon
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ..runtime.files import remove_leftovers, replace
from .data import Batch, Source
from .recipe import Schedule

Model = TypeVar("Model", bound=nn.Module)


# Matrices narrower than this are left to AdamW.
NARROW = 16


class Objective(nn.Module, Generic[Model]):
    """What is trained and how it is judged."""

    model: Model
    progress: float = 0.0  # share of the training that is over, as the loop says before every step

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a batch; `loss` is the one to minimise."""
        raise NotImplementedError


Progress = Callable[[dict[str, float]], None]


def supports_bf16() -> bool:
    """Whether bfloat16 is computed natively here, so that mixed precision is a gain."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512") and _cpu_flag("avx512_bf16")


def _cpu_flag(name: str) -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and name in cpuinfo.read_text()


def make_optimizer(objective: nn.Module, schedule: Schedule) -> Muon:
    """Muon for matrices unless `schedule` has it otherwise, AdamW for all else, at one learning rate.

    Muon (Jordan et al. 2024; scaled to AdamW's step size as Liu et al., "Muon is Scalable for LLM Training", 2025) makes
    every singular direction of an update equally large. These networks have no normalisation layers and learn very
    different tasks at once; docs/decisions.md has what that gains. Weights that read or write pictures, depthwise
    convolutions and dictionaries have fewer than `NARROW` rows or columns.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in objective.parameters():
        wide = schedule.muon and parameter.ndim >= 2 and min(parameter.shape[:2]) >= NARROW
        (matrices if wide else others).append(parameter)
    rate, decay = schedule.learning_rate, schedule.weight_decay
    return Muon(
        [
            {"params": matrices, "lr": rate, "weight_decay": decay, "use_muon": True, "use_adjusted_lr": True},
            {"params": others, "lr": rate, "weight_decay": decay, "use_muon": False, "betas": (0.9, 0.99), "eps": 1e-8},
        ]
    )


def train(objective: Objective[Any], schedule: Schedule, source: Source, out: Path, progress: Progress) -> Path:
    """Train `objective.model`; returns the path of its averaged weights (safetensors).

    Resumes from `out/checkpoint.pt` when there is one. Ends after `schedule.steps`, or so that all sessions together
    took `schedule.minutes`; the learning rate falls to zero towards whichever comes first.
    """
    weights = out / "weights.safetensors"
    if weights.exists():
        return weights
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=schedule.devices)
    fabric.launch()
    if fabric.is_global_zero:
        remove_leftovers(out)
    fabric.seed_everything(schedule.seed, verbose=False)
    model = objective.model
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer: Any = make_optimizer(objective, schedule)
    wrapped, optimizer = fabric.setup(objective, optimizer)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema))

    step, elapsed = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state: dict[str, Any] = torch.load(checkpoint, map_location=fabric.device, weights_only=True)
        objective.load_state_dict(state["objective"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed"]
    if fabric.is_global_zero:
        _cut(out / "log.jsonl", step)

    def save() -> None:
        state = {
            "objective": objective.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "elapsed": elapsed,
        }
        if fabric.is_global_zero:
            replace(checkpoint, lambda path: torch.save(state, path))

    batch_size = schedule.batch * fabric.world_size
    patches = source.samples(step * batch_size, schedule.steps * batch_size)
    loader = fabric.setup_dataloaders(
        DataLoader(patches, schedule.batch, num_workers=schedule.workers, drop_last=True, shuffle=False)
    )
    limit = math.inf if schedule.minutes is None else schedule.minutes * 60
    began, resumed_at = time.monotonic(), elapsed
    saved = logged = began
    sums: dict[str, list[float]] = {}
    objective.train()
    for batch in loader:
        done = max(step / schedule.steps, elapsed / limit)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * _warm_cosine(step, schedule.warmup, done)
        objective.progress = done
        torch.manual_seed(schedule.seed * 1_000_003 + step)  # a resumed run draws what it would have drawn
        # Not Fabric's own mixed precision: that rounds the pictures themselves to bfloat16's eight digits.
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=supports_bf16()):
            losses = wrapped(Batch(*batch))
        fabric.backward(losses["loss"])
        fabric.clip_gradients(wrapped, optimizer, max_norm=schedule.clip)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)
        step += 1
        now = time.monotonic()
        elapsed = resumed_at + now - began
        for name, value in losses.items():
            sums.setdefault(name, []).append(float(value.detach()))
        if now - logged > schedule.log_seconds:
            done = max(step / schedule.steps, elapsed / limit)
            row = {"step": step, "elapsed_s": round(elapsed, 1), "eta_s": round(elapsed / done - elapsed, 1)}
            row |= {name: round(sum(values) / len(values), 5) for name, values in sums.items()}
            if fabric.is_global_zero:
                with (out / "log.jsonl").open("a") as log:
                    log.write(json.dumps(row) + "\n")
                progress(row)
            logged, sums = now, {}
        if now - saved > schedule.save_seconds:
            save()
            saved = time.monotonic()
    save()
    if fabric.is_global_zero:
        averaged = {name: value.detach().cpu().contiguous() for name, value in average.module.state_dict().items()}
        replace(weights, lambda path: save_file(averaged, path))
    return weights


def _cut(log: Path, step: int) -> None:
    """Drop the rows after `step`, which a resumed run writes again, and a row that a kill cut off."""
    if not log.exists():
        return
    rows = [row for row in log.read_text().splitlines(keepends=True) if row.endswith("}\n")]
    kept = [row for row in rows if json.loads(row)["step"] <= step]
    replace(log, lambda beside: beside.write_text("".join(kept)))


def _warm_cosine(step: int, warmup: int, done: float) -> float:
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
