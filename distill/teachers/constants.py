"""What depends on weights alone is computed once, as long as nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import nn

Value = TypeVar("Value")


class Constants(nn.Module):
    """A module that remembers; what it remembered is forgotten when it is trained, moved or given other weights."""

    def __init__(self) -> None:
        super().__init__()
        self._constants: dict[Hashable, Any] = {}

    def constant(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What `compute` gave the first time; in training and where gradients are wanted, what it gives now."""
        if self.training or torch.is_grad_enabled():
            return compute()
        if key not in self._constants:
            self._constants[key] = compute()
        return self._constants[key]

    def train(self, mode: bool = True) -> Any:
        self._constants.clear()
        return super().train(mode)

    def _apply(self, *arguments: Any, **named: Any) -> Any:
        self._constants.clear()
        return super()._apply(*arguments, **named)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self._constants.clear()
        super()._load_from_state_dict(*arguments, **named)
