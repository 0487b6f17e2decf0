"""A new degradation without retraining: one more leaf, one more LoRA expert, everything else frozen.

First the leaf is fitted (`leaves`) and left alone, then the expert is aimed and trained on the pairs, with a little of the
gradient through silent units (`LeakyGradients`), then the heads learn what it achieves (`leaves` again).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..runtime.errors import InputError
from ..runtime.routing import Routing
from .data import Batch
from .distillation import DistillationObjective, Weights, iterate
from .leaves import CLOSED, leaf_units
from .metrics import fidelity_loss
from .pairs import Pairs
from .recipe import Schedule
from .student import ENCODER_UNITS, REFINER_UNITS, ExpertBlock, Student, StudentConfig
from .weights import Trained

# A few thousand numbers learn, so steps are large; decay would move the frozen ones. Not with Muon: that makes an update's four
# directions equally large, and some runs ended 4 dB below others.
EXPERT_SCHEDULE = Schedule(
    steps=600, batch=4, patch=128, learning_rate=0.01, weight_decay=0.0, muon=False, warmup=100, ema=0.95
)
# The picture alone, with the gates of use: the frozen heads know nothing of the new degradation and would pull against it.
EXPERT_WEIGHTS = Weights(unroll=(0.5, 0.5), true_gates=0.0, tokens=0.0, routing=0.0, quality=0.0, ranking=0.0)
AIMED = 32  # crops that the rows of A are found on
SPECK = 1e-3  # what those get where no crop has a gradient
DAMPING = 0.01  # share of the inputs' mean square that is added to all directions of them
# Of a silent unit, for gradients alone, when an expert begins to learn; the share of its training after which that is none. By
# then units have woken: a gradient that is wrong for longer puts them to sleep again.
SLOPE, AWAKE = 0.1, 0.2
# Parameters of a student that have rows or columns by expert.
EXPERT_ROWS, EXPERT_COLUMNS = ("lora_a.weight", "lora_a.bias"), ("lora_b.weight",)
# Whose heads have hidden units of a leaf's own, and how many.
HEADS = {"encoder": ENCODER_UNITS, "refiner": REFINER_UNITS, "specialists": REFINER_UNITS}


def add_expert(trained: Trained, leaf: str, parent: str) -> Trained:
    """The student with one more leaf under `parent`, which changes nothing yet. Raises InputError."""
    tree = trained.routing.tree
    if parent not in tree:
        raise InputError(f"unknown parent {parent!r}; expected one of {', '.join(tree)}")
    if leaf in trained.routing.experts or not leaf.isidentifier():
        raise InputError(f"{leaf!r} cannot be a new expert; expected a new name of letters, digits and underscores")
    grown = {name: (*leaves, leaf) if name == parent else leaves for name, leaves in tree.items()}
    # Not a copy: that would keep the leaves it has listed.
    routing = Routing.model_validate(trained.routing.model_dump() | {"tree": grown})
    config = trained.student.config.model_copy(update={"experts": routing.experts, "leaves": routing.leaves})
    student = Student(config)
    state = student.state_dict()
    for name, value in trained.student.state_dict().items():
        state[name] = _widened(name, value, state[name], config, leaf)
    student.load_state_dict(state)
    return Trained(student, routing, trained.provenance)


def _widened(name: str, old: Tensor, new: Tensor, config: StudentConfig, leaf: str) -> Tensor:
    """`old` with the rows or columns of `leaf` put in: a silent expert, a closed leaf."""
    kept = ~new_entries(name, new, config, leaf)
    if kept.all():
        return old
    wide = torch.zeros_like(new)
    if name == "encoder.head.output.bias":
        wide.fill_(CLOSED)
    wide[kept] = old.flatten()
    return wide


def new_entries(name: str, value: Tensor, config: StudentConfig, leaf: str) -> Tensor:
    """Which entries of a parameter belong to `leaf` alone: a mask of its shape."""
    mask = torch.zeros_like(value, dtype=torch.bool)
    rows = expert_rows(config, leaf)
    if name.endswith(EXPERT_ROWS):
        mask[rows] = True
    elif name.endswith(EXPERT_COLUMNS):
        mask[:, rows] = True
    elif ".head." in name:
        units = leaf_units(config, leaf, HEADS[name.partition(".")[0]])
        if ".hidden." in name:
            mask[units] = True
        elif value.ndim == 2:
            mask[:, units] = True
        if name.startswith("encoder.head.output"):
            mask[2 + config.leaves.index(leaf)] = True
    return mask


def expert_rows(config: StudentConfig, expert: str) -> slice:
    """Where an expert's rank lies among all experts' ranks. Raises InputError."""
    if expert not in config.experts:
        raise InputError(f"unknown expert {expert!r}; expected one of {', '.join(config.experts)}")
    first = config.experts.index(expert) * config.rank
    return slice(first, first + config.rank)


class LeakyGradients(TorchFunctionMode):
    """Within it a ReLU computes what it does, and lets a share of the gradient, `slope`, through where it is silent.

    On a picture in which a student finds nothing, nearly all units before its correction are silent (all but 0.3 %), and an
    expert that is to wake them has no gradient.
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.relu:
            return func(*args, **(kwargs or {}))
        (x,) = args
        heard = F.leaky_relu(x, self.slope)
        return heard + (torch.relu(x) - heard).detach()


class ExpertObjective(DistillationObjective):
    """The loss of an added expert: the picture alone, through silent units less and less: most of it is the true gradient."""

    def __init__(self, student: Student, routing: Routing) -> None:
        super().__init__(student, EXPERT_WEIGHTS, routing)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with LeakyGradients(SLOPE * max(0.0, 1 - self.progress / AWAKE)):
            return super().forward(batch)


def aim_expert(student: Student, leaf: str, pairs: Pairs) -> None:
    """Give the expert of `leaf` rows of A that the error depends on most; B stays zero. Random rows learn as the draw has it.

    As LoRA-GA (Wang et al. 2024): the first right singular vectors of the loss's gradient by a full matrix and bias in the
    expert's place. Ours sees inputs made white (x = L z, C = L Lᵀ their second moments), or it would find little but their
    mean; what the rows make of the pairs is then uncorrelated with a mean square of 1.
    """
    blocks = [module for module in student.refiner.modules() if isinstance(module, ExpertBlock)]
    moments: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        pixels = F.pad(inputs[0].detach(), (0, 0, 0, 0, 0, 1), value=1.0).transpose(0, 1).flatten(1)
        moments[module] = moments.get(module, 0.0) + pixels @ pixels.T / pixels.shape[1]

    hooks = [block.conv1.register_forward_pre_hook(note) for block in blocks]
    try:
        for degraded, clean in pairs.crops(AIMED):
            with LeakyGradients(SLOPE):
                step = next(iterate(student, pairs.routing, degraded[None], 1))
            fidelity_loss(step.restored, clean[None], EXPERT_WEIGHTS.floor).backward()
    finally:
        for hook in hooks:
            hook.remove()
    rows = expert_rows(student.config, leaf)
    generator = torch.Generator().manual_seed(pairs.seed)
    for block in blocks:
        weight, bias = block.conv1.weight.grad, cast(Tensor, block.conv1.bias).grad
        assert weight is not None
        assert bias is not None
        # A 1×1 convolution beside a 3×3 one does what its centre does.
        gradient = torch.cat([weight[:, :, 1, 1], bias[:, None]], 1)
        moment = moments[block.conv1] / AIMED
        damped = moment + DAMPING * moment.diagonal().mean() * torch.eye(len(moment))
        root = torch.linalg.cholesky(damped)
        white = torch.linalg.solve_triangular(root, gradient.T, upper=False).T
        directions = torch.linalg.svd(white, full_matrices=False).Vh[: student.config.rank]
        found = torch.linalg.solve_triangular(root.T, directions.T, upper=True).T
        # What no crop shows has no gradient. A pack reads channels' scales from the ratio of two students, and not from zeros.
        found = torch.where(found == 0, SPECK * torch.randn(found.shape, generator=generator), found)
        with torch.no_grad():
            block.lora_a.weight[rows] = found[:, :-1, None, None]
            cast(Tensor, block.lora_a.bias)[rows] = found[:, -1]
    student.zero_grad()


def freeze_all_but(student: Student, expert: str) -> None:
    """Let gradients reach an expert, a leaf's or a parent's, alone. Raises InputError."""
    for name, parameter in student.named_parameters():
        if name.startswith("refiner.") and name.endswith((*EXPERT_ROWS, *EXPERT_COLUMNS)):
            mask = new_entries(name, parameter, student.config, expert)
            parameter.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.device))
        else:
            parameter.requires_grad_(False)
