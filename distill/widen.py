"""A larger student that starts as a smaller, trained one: what it computes is the same until it learns more.

After Net2Net (Chen et al., ICLR 2016), but with zeros instead of copies: channels that the smaller student has read nothing
of the new ones, which begin as random features of everything. Copies of a channel would get equal gradients for ever.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime.errors import InputError
from .student import Block, Head, Student, StudentConfig

# Shapes that may differ; all else (tokens, experts, leaves, ranks) is what the weights mean.
SHAPE = {"size", "widths", "encoder_blocks", "refiner_blocks"}


@torch.no_grad()
def widen(student: Student, config: StudentConfig) -> Student:
    """A student of the shape `config` that computes what `student` does. Raises InputError where it is not a larger one."""
    before = student.config
    if before.model_dump(exclude=SHAPE) != config.model_dump(exclude=SHAPE) or not _fits(before, config):
        raise InputError(
            f"a student of size {before.size} cannot become {config.size}; expected as many tokens and experts, and no "
            "width or count of blocks below its own"
        )
    larger = Student(config)
    smaller = dict(student.named_modules())
    for name, module in larger.named_modules():
        source = smaller.get(name)
        if isinstance(module, Head):
            assert isinstance(source, Head)
            _widen_head(module, source, before, config)
        elif name.endswith((".head.hidden", ".head.output")):
            continue
        elif source is None:
            # A block more, at the end of a level, where everything is positive: relu(x + 0) = x.
            if isinstance(module, Block):
                nn.init.zeros_(module.conv2.weight)
        else:
            transposed = isinstance(module, nn.ConvTranspose2d)
            for key, value in module.named_parameters(recurse=False):
                _fill(value, source.get_parameter(key), transposed)
    return larger


def _fits(before: StudentConfig, config: StudentConfig) -> bool:
    pairs = [(before.widths, config.widths)]
    pairs += [(before.encoder_blocks, config.encoder_blocks), (before.refiner_blocks, config.refiner_blocks)]
    return all(b <= c for old, new in pairs for b, c in zip(old, new, strict=True))


def _fill(value: Tensor, source: Tensor, transposed: bool = False) -> None:
    """Put trained weights (out, in, …) or a bias (out,) first; trained outputs read nothing of new inputs."""
    if value.ndim == 1 or value.shape == source.shape:
        value[: len(source)] = source
        return
    if transposed:
        value, source = value.transpose(0, 1), source.transpose(0, 1)
    outputs, inputs = source.shape[:2]
    value[:outputs, :inputs] = source
    value[:outputs, inputs:] = 0


def _widen_head(head: Head, source: Head, before: StudentConfig, config: StudentConfig) -> None:
    """A head reads averages of all scales side by side, and of what else it is given behind them."""
    head.output.load_state_dict(source.output.state_dict())
    head.hidden.bias.copy_(source.hidden.bias)
    head.hidden.weight.zero_()
    to = at = 0
    for old, new in zip(before.widths, config.widths, strict=True):
        head.hidden.weight[:, to : to + old] = source.hidden.weight[:, at : at + old]
        at, to = at + old, to + new
    head.hidden.weight[:, to:] = source.hidden.weight[:, at:]
