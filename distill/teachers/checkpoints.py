"""Filling a network from somebody's state dict, with an error that names what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...runtime.errors import InputError

# Keys that published files wrap their tensors in: Lightning, BasicSR.
WRAPPERS = ("state_dict", "params_ema", "params")
# A part of a key that only one architecture has, most specific first.
SIGNATURES = (
    ("privileged_dictionary", "SIPL"),
    ("fre1.", "AdaIR"),
    ("prompt1.", "PromptIR"),
    ("daclip_model.", "UniRestorer"),
    ("state_dict_unet", "UIR-LoRA"),
    ("assessment.", "RAR"),
    ("middle_blks.", "NAFNet"),
    ("encoder_level1.", "Restormer"),
)


def unwrap(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, out of the wrapper they were saved in; what is no tensor is left out."""
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping):
            content = inner
            break
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def architecture_of(names: Mapping[str, Any]) -> str:
    """The architecture that a checkpoint's keys look like."""
    for part, architecture in SIGNATURES:
        if any(part in name for name in names):
            return architecture
    return "an unknown architecture"


def fill(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load `tensors` into `module`; all names and shapes must agree.

    Raises InputError that says which architecture `what` looks like and the first keys that do not fit.
    """
    wanted = module.state_dict()
    faults = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape": [n for n in wanted if n in tensors and tensors[n].shape != wanted[n].shape],
    }
    listed = [f"{len(names)} keys {fault}, first {names[0]}" for fault, names in faults.items() if names]
    if listed:
        looks = architecture_of(tensors)
        raise InputError(f"{what} does not fit {type(module).__name__} (it looks like {looks}): {'; '.join(listed)}")
    module.load_state_dict(dict(tensors))
