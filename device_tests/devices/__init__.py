"""Devices that programs are measured and validated on. Each module here is one kind: `open_<kind>(address)`, `connected()`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ...runtime.errors import DeviceError, InputError
from .base import Device
from .facts import Identity, State, clean
from .result import Result

__all__ = ["KINDS", "Device", "Identity", "Result", "State", "clean", "connected", "kind_of", "open_device"]

# Kind, also its module here → how it is addressed.
KINDS: dict[str, str] = {
    "host": "host",
    "arm": "arm:cortex-a76",
    "adb": "adb:SERIAL",
    "ssh": "ssh:USER@HOST",
    "ios": "ios:UDID",
}


def kind_of(spec: str) -> str:
    """The kind of device that a specification such as `adb:SERIAL` names. Raises InputError for an unknown one."""
    kind = spec.partition(":")[0]
    if kind not in KINDS:
        raise InputError(f"unknown device {spec!r}; expected {', '.join(KINDS.values())}")
    return kind


def open_device(spec: str) -> Device:
    """The device of a specification. Raises InputError when it is unknown, DeviceError when it cannot be reached."""
    kind = kind_of(spec)
    opener: Callable[[str], Device] = getattr(import_module(f".{kind}", __name__), f"open_{kind}")
    return opener(spec.partition(":")[2])


def connected() -> tuple[list[str], dict[str, str]]:
    """Specifications of what is connected now, and for each kind that cannot be asked, why."""
    found: list[str] = []
    problems: dict[str, str] = {}
    for kind in KINDS:
        try:
            found += import_module(f".{kind}", __name__).connected()
        except DeviceError as error:
            problems[kind] = str(error)
    return found, problems
