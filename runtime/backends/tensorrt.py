"""TensorRT on CUDA: engines built for this machine, pinned host buffers, one CUDA graph a method.

Needs `burnish[tensorrt]`. Features never leave the device.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines import called, cuda_runtime, engines, library, new_runtime
from ..errors import BackendError
from ..methods import ENCODE, ENCODE_OUTPUTS, REFINE, REFINE_INPUTS, Methods, contract, methods_in
from .base import Array, Encoded

# What crosses between host and device; everything else of a method stays on the device.
_HOST = {"image", "tokens", "assessment", "current", "gates", "restored", "quality"}


class _Cuda:
    """One stream, and device memory that is given out again once nothing refers to it."""

    def __init__(self) -> None:
        self.api = cuda_runtime()
        self.stream = called(self.api.cudaStreamCreateWithFlags(self.api.cudaStreamNonBlocking))
        self._free: dict[int, list[int]] = {}
        self._owned: list[tuple[Any, int]] = []
        weakref.finalize(self, _release, self.api, self.stream, self._owned)

    def device(self, size: int) -> int:
        """Address of `size` bytes on the device."""
        free = self._free.get(size)
        if free:
            return free.pop()
        self._owned.append((self.api.cudaFree, int(called(self.api.cudaMalloc(size)))))
        return self._owned[-1][1]

    def give_back(self, size: int, address: int) -> None:
        # Work that still reads it was queued before; whoever gets it next is queued behind on the same stream.
        self._free.setdefault(size, []).append(address)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A host array that the device copies from and to without a detour."""
        size = int(np.prod(shape)) * dtype.itemsize
        address = int(called(self.api.cudaHostAlloc(size, self.api.cudaHostAllocDefault)))
        self._owned.append((self.api.cudaFreeHost, address))
        return np.ctypeslib.as_array((ctypes.c_byte * size).from_address(address)).view(dtype).reshape(shape)

    def copy(self, to: int, source: int, size: int, direction: str) -> None:
        """Queue a copy: HostToDevice, DeviceToHost or DeviceToDevice."""
        kind = getattr(self.api.cudaMemcpyKind, f"cudaMemcpy{direction}")
        called(self.api.cudaMemcpyAsync(to, source, size, kind, self.stream))

    def wait(self) -> None:
        """Until everything queued is done."""
        called(self.api.cudaStreamSynchronize(self.stream))

    def graph(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work` recorded once, to be launched as a whole; `work` itself where it cannot be recorded."""
        api = self.api
        mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        called(api.cudaStreamBeginCapture(self.stream, mode))
        try:
            work()
            recorded = called(api.cudaStreamEndCapture(self.stream))
            launchable = called(api.cudaGraphInstantiate(recorded, 0))
        except BackendError:
            with suppress(BackendError):
                called(api.cudaStreamEndCapture(self.stream))
            api.cudaGetLastError()  # a refused recording stays behind as this thread's last error
            return work
        return lambda: called(api.cudaGraphLaunch(launchable, self.stream))


def _release(api: Any, stream: Any, owned: list[tuple[Any, int]]) -> None:
    """Give everything back once no session and none of its tensors is left."""
    api.cudaStreamSynchronize(stream)
    for free, address in owned:
        free(address)
    api.cudaStreamDestroy(stream)


class DeviceArray:
    """A tensor on the device, given back when nothing refers to it."""

    def __init__(self, cuda: _Cuda, size: int) -> None:
        self.size, self.address = size, cuda.device(size)
        weakref.finalize(self, cuda.give_back, size, self.address)


class _Method:
    """One engine with fixed addresses: what a CUDA graph needs. Tensors are bound in the contract's order."""

    def __init__(self, cuda: _Cuda, engine: Any, trt: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        self.cuda = cuda
        self._context = engine.create_execution_context()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        is_input = {n: engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
        given = tuple([n for n in names if is_input[n] is wanted] for wanted in (True, False))
        if tuple(map(len, given)) != (len(inputs), len(outputs)):
            raise BackendError(f"engine has inputs and outputs {given}; expected {(inputs, outputs)}: build it again")
        self.size: dict[str, int] = {}
        self.dtype: dict[str, np.dtype[Any]] = {}
        self.device: dict[str, int] = {}
        self.host: dict[str, NDArray[Any]] = {}
        for ours, theirs in zip((*inputs, *outputs), _ordered(given, (inputs, outputs)), strict=True):
            shape = tuple(engine.get_tensor_shape(theirs))
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(theirs)))
            self.size[ours], self.dtype[ours] = int(np.prod(shape)) * dtype.itemsize, dtype
            self.device[ours] = cuda.device(self.size[ours])
            if ours in _HOST:
                self.host[ours] = cuda.pinned(shape, dtype)
            if not self._context.set_tensor_address(theirs, self.device[ours]):
                raise BackendError(f"TensorRT refuses an address for {theirs}; build the engine again")
        self._inputs, self._outputs = inputs, outputs
        self._run()  # the first run prepares what a recording must not
        cuda.wait()
        self.launch = cuda.graph(self._run)

    def _run(self) -> None:
        for name in self._inputs:
            if name in self.host:
                self.cuda.copy(self.device[name], self.host[name].ctypes.data, self.size[name], "HostToDevice")
        if not self._context.execute_async_v3(int(self.cuda.stream)):
            raise BackendError("TensorRT could not run the engine; build it again on this machine")
        for name in self._outputs:
            if name in self.host:
                self.cuda.copy(self.host[name].ctypes.data, self.device[name], self.size[name], "DeviceToHost")


def _ordered(given: tuple[list[str], ...], wanted: tuple[tuple[str, ...], ...]) -> list[str]:
    """The engine's names in the contract's order: by name where they agree, else by position (torch-tensorrt)."""
    ordered: list[str] = []
    for theirs, ours in zip(given, wanted, strict=True):
        ordered += ours if set(theirs) == set(ours) else theirs
    return ordered


class TensorRTSession:
    """The engines of a program's folder, built at the first load and kept in the cache."""

    def __init__(self, folder: Path) -> None:
        trt = library()
        place = engines(folder)
        self._cuda = _Cuda()
        runtime = new_runtime(trt)
        self._methods: Methods[_Method] = Methods()
        for name in methods_in(place, ".engine"):
            engine = runtime.deserialize_cuda_engine((place / f"{name}.engine").read_bytes())
            if engine is None:
                raise BackendError(f"TensorRT cannot load {place / name}.engine; delete {place} to build it again")
            self._methods[name] = _Method(self._cuda, engine, trt, *contract(name))

    def encode(self, image: Array) -> Encoded:
        method, cuda = self._methods[ENCODE], self._cuda
        method.host["image"][...] = image
        method.launch()
        kept: list[DeviceArray] = []
        for name in ENCODE_OUTPUTS[:-2]:
            kept.append(DeviceArray(cuda, method.size[name]))
            cuda.copy(kept[-1].address, method.device[name], method.size[name], "DeviceToDevice")
        cuda.wait()
        return Encoded.of(kept, method.host["tokens"].astype(np.float32), method.host["assessment"])

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        refine, cuda = self._methods[method], self._cuda
        refine.host["current"][...] = current
        refine.host["tokens"][...] = estimate.tokens
        refine.host["gates"][...] = gates
        features = (*original.features, *estimate.features[1:])
        for name, feature in zip(REFINE_INPUTS[1:-2], features, strict=True):
            cuda.copy(refine.device[name], feature.address, refine.size[name], "DeviceToDevice")
        refine.launch()
        cuda.wait()
        return refine.host["restored"].astype(np.float32), float(refine.host["quality"].reshape(()))


def load(folder: Path, threads: int | None = None) -> TensorRTSession:
    """Load a program, building its engines where the cache has none that fit. Raises BackendError."""
    return TensorRTSession(folder)
