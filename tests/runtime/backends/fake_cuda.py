"""A stand-in for TensorRT and the CUDA runtime on a machine without a GPU: NOT the real thing.

It keeps their calling rules, so that what a session asks for can be checked: device memory is a private heap, a stream
runs nothing until somebody waits for it, a recording runs nothing at all, an engine reads and writes only at the
addresses it was given, and "engines" are ONNX files that ONNX Runtime computes. It says nothing about speed, memory or
numerics of a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class _Error(IntEnum):
    cudaSuccess = 0
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda:
    """The functions of cuda.bindings.runtime that a session uses."""

    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice="HD", cudaMemcpyDeviceToHost="DH", cudaMemcpyDeviceToDevice="DD"
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor="major", cudaDevAttrComputeCapabilityMinor="minor"
    )

    def __init__(self, capability: tuple[int, int] = (8, 7), records: bool = True) -> None:
        self.capability, self.records = capability, records
        self.memory: dict[int, Any] = {}
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.launches = self.allocations = 0

    def cudaGetDeviceCount(self) -> tuple[Any, int]:
        return _Error.cudaSuccess, 1

    def cudaDeviceGetAttribute(self, which: str, device: int) -> tuple[Any, int]:
        return _Error.cudaSuccess, self.capability[which == "minor"]

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, int]:
        return _Error.cudaSuccess, 7

    def cudaMalloc(self, size: int) -> tuple[Any, int]:
        block = (ctypes.c_byte * size)(*([0x7F] * min(size, 64)))  # not zero: what was never written shows
        self.memory[ctypes.addressof(block)] = block
        self.allocations += 1
        return _Error.cudaSuccess, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[Any]:
        del self.memory[address]
        return (_Error.cudaSuccess,)

    cudaFreeHost = cudaFree

    def cudaStreamDestroy(self, stream: int) -> tuple[Any]:
        return (_Error.cudaSuccess,)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, int]:
        return self.cudaMalloc(size)

    def submit(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: str, stream: int) -> tuple[Any]:
        self.submit(lambda: ctypes.memmove(to, source, size))
        return (_Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        assert self.recording is None, "a stream that records cannot be waited for"
        for work in self.queue:
            work()
        self.queue.clear()
        return (_Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any]:
        self.recording = []
        return (_Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, Any]:
        recorded, self.recording = self.recording, None
        if not self.records:
            return _Error.cudaErrorStreamCaptureUnsupported, None
        return _Error.cudaSuccess, recorded

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, Any]:
        return _Error.cudaSuccess, graph

    def cudaGraphLaunch(self, graph: list[Callable[[], None]], stream: int) -> tuple[Any]:
        self.launches += 1
        self.queue += graph
        return (_Error.cudaSuccess,)

    def cudaGetLastError(self) -> tuple[Any]:
        return (_Error.cudaSuccess,)


class FakeTensorRT:
    """The classes of the tensorrt module that building and running use; an engine is the ONNX file itself."""

    __name__ = "tensorrt"
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = "internal", "error", "warning"

    def __init__(self, cuda: FakeCuda, version: str = "10.3.0") -> None:
        self.cuda, self.__version__, self.builds = cuda, version, 0

    @staticmethod
    def nptype(dtype: Any) -> Any:
        return dtype

    def Builder(self, log: Any) -> Any:
        def create_network(flags: int) -> Any:
            assert flags == 2, "networks are strongly typed"
            return SimpleNamespace(data=b"")

        def build(network: Any, config: Any) -> bytes:
            self.builds += 1
            return network.data

        return SimpleNamespace(
            create_network=create_network, create_builder_config=SimpleNamespace, build_serialized_network=build
        )

    def OnnxParser(self, network: Any, log: Any) -> Any:
        def parse(data: bytes) -> bool:
            network.data = data
            return data.startswith(b"\x08")  # ONNX files begin with their IR version

        error = SimpleNamespace(desc=lambda: "not ONNX")
        return SimpleNamespace(parse=parse, num_errors=1, get_error=lambda i: error)

    def Runtime(self, log: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda data: _Engine(data, self.cuda))


class _Engine:
    def __init__(self, data: bytes, cuda: FakeCuda) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.cuda = cuda
        self.inputs = {v.name: v for v in self.session.get_inputs()}
        self.values = self.inputs | {v.name: v for v in self.session.get_outputs()}
        # Engines list tensors in an order of their own.
        self.names = sorted(self.values)
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.inputs else "out"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.values[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return _TYPES[self.values[name].type]

    def create_execution_context(self) -> Any:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine, self.addresses = engine, {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self.engine.cuda.memory

    def _at(self, name: str) -> Any:
        shape, dtype = self.engine.get_tensor_shape(name), self.engine.get_tensor_dtype(name)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_byte * size).from_address(self.addresses[name]), dtype).reshape(shape)

    def execute_async_v3(self, stream: int) -> bool:
        def run() -> None:
            inputs = {name: self._at(name).copy() for name in self.engine.inputs}
            outputs = [name for name in self.engine.names if name not in self.engine.inputs]
            for name, value in zip(outputs, self.engine.session.run(outputs, inputs), strict=True):
                self._at(name)[...] = value

        self.engine.cuda.submit(run)
        return True
