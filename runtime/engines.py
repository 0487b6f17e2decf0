"""TensorRT engines: built on the machine that runs them, stamped with what they fit, kept in a cache.

An engine runs with the TensorRT version and on the compute capability that it was built for, and nowhere else: any
difference, and one in the ONNX it came from, makes the cached engine stale.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .bundle import sha256
from .errors import BackendError
from .files import replace_folder
from .methods import ENCODE, REFINE, methods_in

RTX = ("tensorrt_rtx", "tensorrt_rtx_bindings")
STAMP = "engine.json"
TEGRA_RELEASE = Path("/etc/nv_tegra_release")
INSTALL = (
    "on a Jetson: JetPack brings TensorRT (apt install python3-libnvinfer), then pip install 'burnish[tensorrt]'; "
    "on x86: pip install 'burnish[tensorrt]', or 'burnish[tensorrt-rtx]' for GeForce RTX"
)
# What a builder says when the types of a network are not what they seem.
_DISTRUSTED = re.compile(r"precision|zero.?point|converting .* scales|half|fp16|subnormal|overflow", re.IGNORECASE)


class Machine(NamedTuple):
    """What an engine is tied to."""

    library: str
    version: str
    compute_capability: str
    jetpack: str


class Stamp(BaseModel):
    """engine.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    machine: Machine
    built_with: str = Field(description="tensorrt or torch-tensorrt")
    onnx: dict[str, str] = Field(description="method → SHA-256 of the program it was built from")
    engines: dict[str, str] = Field(description="method → SHA-256 of the engine")


def library(names: Sequence[str] = ("tensorrt", *RTX)) -> Any:
    """TensorRT's Python module, or TensorRT-RTX's, which has the same interface. Raises BackendError."""
    for name in names:
        if find_spec(name) is not None:
            try:
                return import_module(name)
            except (ImportError, OSError, RuntimeError) as error:
                raise BackendError(f"{name} does not load ({error}); {INSTALL}") from None
    raise BackendError(f"TensorRT is not installed; {INSTALL}")


def cuda_runtime() -> Any:
    """CUDA's runtime interface. Raises BackendError."""
    try:
        return import_module("cuda.bindings.runtime")
    except (ImportError, RuntimeError) as error:
        raise BackendError(f"cuda-bindings does not load ({error}); {INSTALL}") from None


def called(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA runtime call, which is (error, value…). Raises BackendError."""
    error, *values = result
    if int(error) != 0:
        raise BackendError(f"CUDA: {getattr(error, 'name', error)}; check the driver with nvidia-smi or tegrastats")
    return values[0] if len(values) == 1 else tuple(values)


def this_machine() -> Machine:
    """TensorRT, GPU and JetPack release of this machine. Raises BackendError without one of them."""
    trt, cuda = library(), cuda_runtime()
    if called(cuda.cudaGetDeviceCount()) < 1:
        raise BackendError("no CUDA device; build and run engines on the Jetson or CUDA host itself")
    attribute = cuda.cudaDeviceAttr
    major, minor = (
        called(cuda.cudaDeviceGetAttribute(which, 0))
        for which in (attribute.cudaDevAttrComputeCapabilityMajor, attribute.cudaDevAttrComputeCapabilityMinor)
    )
    return Machine(trt.__name__, trt.__version__, f"{major}.{minor}", jetpack_release())


def jetpack_release(file: Path = TEGRA_RELEASE) -> str:
    """Jetson Linux release such as "L4T 36.4.3" (JetPack 6.2), "none" elsewhere."""
    if not file.is_file():
        return "none"
    found = re.search(r"R(\d+).*REVISION:\s*([\d.]+)", file.read_text())
    return f"L4T {found[1]}.{found[2]}" if found else "L4T unknown"


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/burnish/engines."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "burnish" / "engines"


# Makes the engines of a program's folder, by method.
Build = Callable[[Path], dict[str, bytes]]


def build_from_onnx(folder: Path) -> dict[str, bytes]:
    """All methods' engines for this machine's GPU by TensorRT's own builder. Raises BackendError."""
    trt = library()
    return {method: build_one(trt, folder / f"{method}.onnx")[0] for method in methods_in(folder, ".onnx")}


def engines(
    folder: Path,
    cache: Path | None = None,
    *,
    build: Build = build_from_onnx,
    built_with: str = "tensorrt",
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """The folder with an engine of every method for the program in `folder`; built unless the cached ones fit.

    Raises BackendError.
    """
    machine = this_machine()
    onnx = {method: sha256(folder / f"{method}.onnx") for method in methods_in(folder, ".onnx")}
    place = (cache or cache_folder()) / f"{onnx[ENCODE][:12]}-{onnx[REFINE][:12]}"
    reason = _stale(place, machine, onnx, built_with)
    if reason is None:
        return place
    progress(f"{reason}; building for {machine.library} {machine.version}, compute capability {machine[2]}")
    made = build(folder)

    def save(beside: Path) -> None:
        for method, data in made.items():
            (beside / f"{method}.engine").write_bytes(data)
        hashes = {method: sha256(beside / f"{method}.engine") for method in onnx}
        stamp = Stamp(machine=machine, built_with=built_with, onnx=onnx, engines=hashes)
        (beside / STAMP).write_text(stamp.model_dump_json(indent=1) + "\n")

    replace_folder(place, STAMP, save)
    return place


def _stale(place: Path, machine: Machine, onnx: dict[str, str], built_with: str) -> str | None:
    """Why the cached engines cannot be used; None when they can."""
    if not (place / STAMP).is_file():
        return "no engine yet"
    try:
        stamp = Stamp.model_validate(json.loads((place / STAMP).read_bytes()))
    except (ValueError, ValidationError):
        return f"{place / STAMP} cannot be read"
    for name, now, then in zip(Machine._fields, machine, stamp.machine, strict=True):
        if now != then:
            return f"engine was built for {name} {then}, this machine has {now}"
    if stamp.onnx != onnx:
        return "engine is of another program"
    if stamp.built_with != built_with:
        return f"engine was built with {stamp.built_with}"
    for method in onnx:
        file = place / f"{method}.engine"
        if not file.is_file() or sha256(file) != stamp.engines.get(method):
            return f"{file.name} is damaged"
    return None


def build_one(trt: Any, onnx: Path, capabilities: Sequence[str] = ()) -> tuple[bytes, list[str]]:
    """An engine of one strongly typed ONNX model, and the warnings of parser and builder that concern types.

    `capabilities`: names such as SM86 that TensorRT-RTX builds for without a GPU; none for this machine's. Raises
    BackendError with the parser's or the builder's words.
    """
    log = new_log(trt)
    log.clear()
    builder = trt.Builder(log)
    # TensorRT 11 knows no other networks and may drop the flag.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx.read_bytes()):
        reasons = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise BackendError(f"{trt.__name__} {trt.__version__} cannot parse {onnx}: {reasons or 'no reason given'}")
    config = builder.create_builder_config()
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise BackendError(f"{trt.__name__} {trt.__version__} cannot build {onnx}: {log.last() or 'no reason given'}")
    return bytes(built), [message for message in log.messages if _DISTRUSTED.search(message)]


_LOGS: dict[str, Any] = {}


def new_log(trt: Any) -> Any:
    """One logger a process: TensorRT keeps the first it is given and warns of every other."""
    if trt.__name__ not in _LOGS:

        class Log(trt.ILogger):
            def __init__(self) -> None:
                super().__init__()
                self.messages: list[str] = []

            def clear(self) -> None:
                self.messages = []

            def last(self) -> str:
                return self.messages[-1] if self.messages else ""

            def log(self, severity: Any, msg: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                    self.messages.append(msg)

        _LOGS[trt.__name__] = Log()
    return _LOGS[trt.__name__]


def new_runtime(trt: Any) -> Any:
    """TensorRT's runtime with this process's logger."""
    return trt.Runtime(new_log(trt))
