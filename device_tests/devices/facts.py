"""What a Linux or Android device says of itself, read through its command line.

The scripts are constants; nothing is ever put into them. What a device answers is data: cut to length, control
characters removed, and never handed to a shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pydantic import Field

from ..records import Record
from .result import Result

_LONGEST = 200
# A zone below is not powered, one above is not in °C.
_PLAUSIBLE = (1.0, 150.0)
_PROCESSOR = re.compile(r"cpu|soc|tj|tsens|x86_pkg|big|little|gpu", re.IGNORECASE)

_IDENTITY = r"""
echo "machine=$(uname -m)"
echo "system=$(uname -s)"
echo "kernel=$(uname -sr)"
echo "processor=$(cut -c 1-40 /sys/devices/system/cpu/modalias 2>/dev/null)"
[ -e /system/build.prop ] && echo "android=1"
echo "cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null || grep -c ^processor /proc/cpuinfo)"
echo "memory=$(grep MemTotal /proc/meminfo)"
for file in /proc/device-tree/model /sys/devices/virtual/dmi/id/product_name; do
  [ -r "$file" ] && { echo "model=$(tr -d '\000\n' < "$file")"; break; }
done
echo "cpu=$(grep -m 1 -E '^(model name|Hardware)' /proc/cpuinfo)"
echo "os=$(grep '^PRETTY_NAME=' /etc/os-release 2>/dev/null)"
# macOS has no /proc; its answers are written as Linux writes them.
if [ "$(uname -s)" = Darwin ]; then
  echo "memory=$(($(sysctl -n hw.memsize) / 1024)) kB"
  echo "model=$(sysctl -n hw.model)"
  echo "cpu=: $(sysctl -n machdep.cpu.brand_string)"
  echo "os==macOS $(sw_vers -productVersion)"
fi
[ -r /etc/nv_tegra_release ] && echo "tegra=$(head -n 1 /etc/nv_tegra_release)"
command -v nvpmodel >/dev/null 2>&1 && echo "power_mode=$(nvpmodel -q 2>/dev/null | head -n 1)"
for name in ro.product.manufacturer ro.product.model ro.soc.model ro.build.version.release ro.kernel.qemu ro.boot.qemu; do
  command -v getprop >/dev/null 2>&1 && echo "$name=$(getprop $name)"
done
true
"""
_STATE = r"""
echo "free=$(grep MemAvailable /proc/meminfo)"
for zone in /sys/class/thermal/thermal_zone*; do
  [ -r "$zone/temp" ] && echo "zone=$(cat "$zone/temp" 2>/dev/null) $(cat "$zone/type" 2>/dev/null)"
done
for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
  [ -r "$file" ] && echo "governor=$(cat "$file")"
done
true
"""

Run = Callable[[Sequence[str]], Result]


class Identity(Record):
    """What a device is; text it gave is printable and short."""

    platform: str = Field(description="what a binary must be built for, such as linux-aarch64 or android-arm64")
    model: str
    cpu: str = ""
    cores: int = Field(default=1, ge=1)
    memory_bytes: int = Field(default=0, ge=0)
    os: str = ""
    kernel: str = ""
    power_mode: str = ""
    emulated: str = Field(default="", description="what emulates it; latencies are then no measurement")

    @property
    def device_class(self) -> str:
        """Devices of one class share a profile: model, processor and cores."""
        names = dict.fromkeys(name for name in (self.model, self.cpu, self.power_mode) if name)
        return f"{', '.join(names)}, {self.cores} cores" + (f" (emulated by {self.emulated})" if self.emulated else "")


class State(Record):
    """How a device is just now; None where it does not say."""

    temperature_c: float | None = None
    governor: str | None = None
    free_bytes: int | None = None


def read_identity(run: Run) -> Identity:
    """Ask a device what it is."""
    facts = _facts(run, _IDENTITY)

    def said(name: str) -> str:
        return next(filter(None, map(clean, facts.get(name, []))), "")

    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(said("machine"), said("machine") or "unknown")
    android = bool(said("android") or said("ro.build.version.release"))
    architecture = {"aarch64": "arm64"}.get(machine, machine)
    phone = " ".join(part for part in (said("ro.product.manufacturer"), said("ro.product.model")) if part)
    cpu = said("ro.soc.model") or said("cpu").partition(":")[2].strip()
    return Identity(
        platform=f"android-{architecture}"
        if facts.get("android")
        else f"macos-{architecture}"
        if said("system") == "Darwin"
        else f"linux-{machine}",
        model=phone or said("model") or machine,
        cpu=cpu,
        cores=max(1, _number(said("cores")) or 1),
        memory_bytes=1024 * (_number(said("memory")) or 0),
        os=f"Android {said('ro.build.version.release')}".strip()
        if android
        else said("tegra") or said("os").partition("=")[2].strip('"'),
        kernel=said("kernel"),
        power_mode=said("power_mode"),
        emulated=_emulator(machine, said("processor"), said("ro.kernel.qemu") or said("ro.boot.qemu")),
    )


def read_state(run: Run) -> State:
    """Ask a device how it is: the hottest processor's temperature, or the hottest zone's where none is called one."""
    facts = _facts(run, _STATE)
    zones: list[tuple[float, str]] = []
    for zone in facts.get("zone", []):
        value, _, kind = zone.partition(" ")
        number = _number(value)
        if number is not None:
            degrees = number / 1000 if number > _PLAUSIBLE[1] else float(number)
            if _PLAUSIBLE[0] <= degrees <= _PLAUSIBLE[1]:
                zones.append((degrees, kind))
    processors = [degrees for degrees, kind in zones if _PROCESSOR.search(kind)]
    governors = dict.fromkeys(clean(name) for name in facts.get("governor", []))
    free = _number((facts.get("free") or [""])[0])
    return State(
        temperature_c=max(processors or [degrees for degrees, _ in zones], default=None),
        governor=" ".join(governors) or None,
        free_bytes=None if free is None else 1024 * free,
    )


def clean(text: str) -> str:
    """Text that a device gave, safe to print: one line of printable characters, cut to length."""
    return "".join(c for c in text if c.isprintable()).strip()[:_LONGEST]


def _facts(run: Run, script: str) -> dict[str, list[str]]:
    facts: dict[str, list[str]] = {}
    for line in run(["sh", "-c", script]).stdout.splitlines():
        name, found, value = line.partition("=")
        if found:
            facts.setdefault(name, []).append(value)
    return facts


def _emulator(machine: str, processor: str, flag: str) -> str:
    """A translator of programs, which fakes the machine but not /sys; Android's emulator sets a property."""
    native = re.search(r"type:(x86|aarch64)", processor)
    if native and native[1] not in machine:
        return f"qemu on {native[1]}"
    return "Android emulator" if flag == "1" else ""


def _number(text: str) -> int | None:
    found = re.search(r"-?\d+", text)
    return int(found[0]) if found else None
