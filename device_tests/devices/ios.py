"""iPhones and iPads: jobs are done by the demo app, which is installed from Xcode.

On macOS files and launches go through Apple's `xcrun devicectl`. Where pymobiledevice3 is installed it lists devices and
tells the battery's temperature, on Linux too; launching an app needs the Mac.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ...runtime.errors import DeviceError
from .base import Device
from .facts import Identity, State, clean
from .processes import run_local
from .result import Result
from .workspace import Workspace

APP = "dev.burnish.demo"
# Names another build of the demo app, as Xcode asks for a bundle identifier of one's own.
APP_VARIABLE = "BURNISH_IOS_APP"
TRANSFER_S = 300.0
_UDID = re.compile(r"[0-9A-Fa-f-]{24,40}")


class IosDevice(Device):
    """A device that is paired with this Mac. `scratch` is a folder of the app's own container."""

    scratch = "Documents"

    def __init__(self, udid: str, app: str = APP) -> None:
        self.spec, self.udid, self.app = f"ios:{udid}", udid, app

    def push(self, local: Path, remote: str) -> None:
        self._copy("to", str(local), remote)

    def pull(self, remote: str, local: Path) -> None:
        self._copy("from", remote, str(local))
        if not local.is_file():
            raise DeviceError(f"{self.spec}: {remote} did not arrive; see the app's log in Xcode")

    def _copy(self, direction: str, source: str, target: str) -> None:
        container = ["--domain-type", "appDataContainer", "--domain-identifier", self.app]
        ends = ["--source", source, "--destination", target]
        result = self._call(["device", "copy", direction, "--device", self.udid, *container, *ends], TRANSFER_S)
        if result.status:
            raise DeviceError(
                f"{self.spec}: cannot copy {Path(source).name}: {result.reason}; is the demo app installed?"
            )

    def run(self, arguments: Sequence[str], timeout_s: float = 30.0) -> Result:
        """Launch the app with the arguments and wait until it ends."""
        launch = ["device", "process", "launch", "--device", self.udid, "--console", "--terminate-existing", self.app]
        return self._call([*launch, "--", *arguments], timeout_s)

    def workspace(self) -> Workspace:
        return AppWorkspace(self)

    def identity(self) -> Identity:
        hardware = _part(self._details(), "hardwareProperties")
        system = _part(self._details(), "deviceProperties")
        return Identity(
            platform="ios-arm64",
            model=clean(str(hardware.get("marketingName") or hardware.get("productType") or "iOS device")),
            cpu=clean(str(hardware.get("hardwareModel") or "")),
            os=clean(f"iOS {system.get('osVersionNumber', '')}"),
            kernel=clean(str(system.get("osBuildUpdate") or "")),
        )

    def state(self) -> State:
        if shutil.which("pymobiledevice3") is None:
            return State()
        said = run_local(self.spec, ["pymobiledevice3", "diagnostics", "battery", "single", "--udid", self.udid], 20.0)
        found = re.search(r'"Temperature":\s*(\d+)', said.stdout)
        return State(temperature_c=int(found[1]) / 100 if found else None)

    def _details(self) -> dict[str, Any]:
        return _part(devicectl_json(["device", "info", "details", "--device", self.udid]), "result")

    def _call(self, arguments: Sequence[str], timeout_s: float) -> Result:
        return run_local(self.spec, ["xcrun", "devicectl", *arguments], timeout_s)


class AppWorkspace(Workspace):
    """A folder in the app's container. There is no shell: copying makes folders, and the app itself removes them."""

    device: IosDevice

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.remove()
        except DeviceError:
            if error is None:
                raise

    def make_folder(self, *parts: str) -> None:
        """Nothing to do: copying makes it."""

    def remove(self, *parts: str) -> None:
        result = self.device.run(["--burnish-remove", self.path(*parts)])
        if result.status:
            raise DeviceError(f"{self.device.spec}: the app cannot remove {self.path(*parts)}: {result.reason}")

    def push(self, local: Path, *parts: str) -> None:
        self.device.push(local, self.path(*parts))

    def pull(self, local: Path, *parts: str) -> None:
        self.device.pull(self.path(*parts), local)

    def run(self, arguments: Sequence[str], timeout_s: float) -> Result:
        return self.device.run(["--burnish-job", *arguments], timeout_s)


def devicectl_json(arguments: Sequence[str]) -> dict[str, Any]:
    """What devicectl says; only its JSON file is meant for programs. Raises DeviceError."""
    if shutil.which("xcrun") is None:
        raise DeviceError("iOS devices need macOS with Xcode 15 or later (xcrun devicectl); run this on the Mac")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        result = run_local("ios", ["xcrun", "devicectl", *arguments, "--json-output", str(file)], 60.0)
        if result.status or not file.is_file():
            raise DeviceError(f"devicectl failed: {result.reason}; pair the device in Xcode and unlock it")
        try:
            answer: Any = json.loads(file.read_bytes())
        except ValueError:
            raise DeviceError("devicectl's answer is no JSON; update Xcode") from None
    return answer if isinstance(answer, dict) else {}


def open_ios(address: str) -> IosDevice:
    """`ios:UDID`. Raises DeviceError."""
    if not _UDID.fullmatch(address):
        raise DeviceError(f"{address!r} is no UDID; expected ios:UDID as `burnish devices` lists it")
    device = IosDevice(address, os.environ.get(APP_VARIABLE, APP))
    device.identity()
    return device


def connected() -> list[str]:
    """Devices that this Mac knows; elsewhere those that pymobiledevice3 sees."""
    if shutil.which("xcrun") is not None:
        devices: list[Any] = _part(devicectl_json(["list", "devices"]), "result").get("devices") or []
        found = [_part(device, "hardwareProperties").get("udid") for device in devices]
        return [f"ios:{udid}" for udid in found if isinstance(udid, str) and _UDID.fullmatch(udid)]
    if shutil.which("pymobiledevice3") is not None:
        said = run_local("ios", ["pymobiledevice3", "usbmux", "list", "--simple"], 20.0)
        return [f"ios:{udid}" for udid in re.findall(r'"([^"]+)"', said.stdout) if _UDID.fullmatch(udid)]
    return []


def _part(values: Any, name: str) -> dict[str, Any]:
    part = values.get(name) if isinstance(values, dict) else None
    return part if isinstance(part, dict) else {}
