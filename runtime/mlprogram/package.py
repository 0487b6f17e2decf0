"""A saved Core ML package (.mlpackage): manifest, specification and weights, read defensively.

Formats: `Manifest.json` and the blob file as coremltools 9 writes them (mlmodel/src/MILBlob/Blob/StorageFormat.hpp), the
specification is the protobuf message `Model`.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..bundle import sha256
from ..errors import BundleError

FORMAT = "1.0.0"
# CoreML7 and CoreML8, of iOS 17 and 18.
SPECIFICATIONS = {8: "iOS 17", 9: "iOS 18"}
STORAGE_VERSION = 2
SENTINEL = 0xDEADBEEF
ALIGNMENT = 64
MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 64 << 20
MAX_WEIGHTS_BYTES = 1 << 30
# What `seal` puts at the end of an item's description.
_DIGEST = re.compile(r", sha256 ([0-9a-f]{64})$")
_MODEL_PATH = "@model_path/"


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    author: str
    description: str
    name: str
    path: str


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    fileFormatVersion: str
    itemInfoEntries: dict[str, _Item]
    rootModelIdentifier: str


class Package:
    """An opened package: `spec` is the message `Model`; weights are read when they are asked for."""

    def __init__(self, path: Path, spec: Any, weights: dict[str, bytes]) -> None:
        self.path, self.spec, self._weights = path, spec, weights

    @classmethod
    def open(cls, path: Path) -> Package:
        """Read and check a package. Raises BundleError with what is wrong."""
        manifest = _read_manifest(path)
        root = manifest.itemInfoEntries.get(manifest.rootModelIdentifier)
        if root is None:
            raise BundleError(f"{path}: the manifest's root model is not among its items; export the bundle again")
        weights: dict[str, bytes] = {}
        model = b""
        for item in manifest.itemInfoEntries.values():
            place = _place(path, item)
            files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
            limit = MAX_MODEL_BYTES if item is root else MAX_WEIGHTS_BYTES
            for file in files:
                _check_file(file, item, alone=len(files) == 1, limit=limit)
            if item is root:
                model = place.read_bytes()
            else:
                weights |= {f.relative_to(place.parent).as_posix(): f.read_bytes() for f in files}
        return cls(path, _parse(path, model), weights)

    @property
    def system(self) -> str:
        """The oldest iOS that reads the package."""
        return SPECIFICATIONS[self.spec.specificationVersion]

    def images(self, function: str) -> set[str]:
        """Inputs and outputs of a function that are 8-bit pictures instead of tensors."""
        description = self.spec.description
        described = next((f for f in description.functions if f.name == function), description)
        features = (*described.input, *described.output)
        return {str(f.name) for f in features if f.type.WhichOneof("Type") == "imageType"}

    def blob(self, name: str, offset: int, kind: int, size: int) -> memoryview:
        """The bytes of one constant: `kind` is its type's number in the blob file, `size` what its shape needs.

        Raises BundleError for a file that is truncated or altered.
        """
        data = self._weights.get(name.removeprefix(_MODEL_PATH))
        if data is None:
            raise BundleError(f"{self.path} lacks {name}, which its model refers to; export the bundle again")
        _, version = _unpack("<II", data, 0, self.path)
        if version != STORAGE_VERSION:
            raise BundleError(
                f"{self.path}: {name} has storage version {version}; this burnish reads {STORAGE_VERSION}"
            )
        sentinel, stored, length, start = _unpack("<IIQQ", data, offset, self.path)
        if offset % ALIGNMENT or start % ALIGNMENT or sentinel != SENTINEL:
            raise BundleError(f"{self.path}: {name} has no constant at {offset}; the file is damaged, export it again")
        if stored != kind or length != size:
            raise BundleError(
                f"{self.path}: {name} holds {length} bytes of type {stored} at {offset}; the model says {size} of {kind}"
            )
        if start + length > len(data):
            raise BundleError(
                f"{self.path}: {name} ends at {len(data)}, a constant at {start + length}; it is truncated"
            )
        return memoryview(data)[start : start + length]


def seal(path: Path) -> None:
    """Write the SHA-256 of the specification and of the weights into the manifest's descriptions."""
    file = path / "Manifest.json"
    manifest = _read_manifest(path)
    items: dict[str, Any] = {}
    for key, item in manifest.itemInfoEntries.items():
        place = _place(path, item)
        (content,) = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
        description = f"{_DIGEST.sub('', item.description)}, sha256 {sha256(content)}"
        items[key] = item.model_copy(update={"description": description})
    sealed = manifest.model_copy(update={"itemInfoEntries": items})
    file.write_text(json.dumps(sealed.model_dump(), indent=4) + "\n")


def _read_manifest(path: Path) -> _Manifest:
    file = path / "Manifest.json"
    if not file.is_file():
        raise BundleError(f"{path} is not a Core ML package: it has no Manifest.json; export the bundle again")
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{file} has {file.stat().st_size} bytes; expected at most {MAX_MANIFEST_BYTES}")
    try:
        manifest = _Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{file} is damaged: {place}: {first['msg']}; export the bundle again") from None
    if manifest.fileFormatVersion != FORMAT:
        raise BundleError(f"{file} has format {manifest.fileFormatVersion!r}; this burnish reads {FORMAT}")
    return manifest


def _place(path: Path, item: _Item) -> Path:
    """An item's file or folder, inside the package."""
    parts = PurePosixPath(item.path).parts
    place = path / "Data" / item.path
    if not parts or ".." in parts or "\0" in item.path:
        raise BundleError(f"{path}: {item.path!r} leads out of the package; refuse it")
    for file in (place, *place.rglob("*")):
        if not file.resolve().is_relative_to(path.resolve()):
            raise BundleError(f"{file} leads out of the package; refuse it")
    if not place.exists():
        raise BundleError(f"{path} lacks {item.path}; export the bundle again")
    return place


def _check_file(file: Path, item: _Item, *, alone: bool, limit: int) -> None:
    if file.stat().st_size > limit:
        raise BundleError(f"{file} has {file.stat().st_size} bytes; expected at most {limit}")
    digest = _DIGEST.search(item.description)
    if digest and not (alone and sha256(file) == digest.group(1)):
        raise BundleError(f"{file} is damaged: its hash differs from the manifest's; export the bundle again")


def _parse(path: Path, data: bytes) -> Any:
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    model: Any = Model_pb2.Model()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise BundleError(
            f"{path}: the model specification cannot be decoded; it is damaged, export it again"
        ) from None
    if model.specificationVersion not in SPECIFICATIONS:
        known = ", ".join(f"{number} ({system})" for number, system in SPECIFICATIONS.items())
        raise BundleError(f"{path} has specification version {model.specificationVersion}; this burnish reads {known}")
    if model.WhichOneof("Type") != "mlProgram" or model.mlProgram.version != 1:
        raise BundleError(f"{path} holds {model.WhichOneof('Type')}; expected an ML program of version 1")
    return model


def _unpack(layout: str, data: bytes, offset: int, path: Path) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, data, offset)
    except (struct.error, OverflowError):
        raise BundleError(f"{path}: the weights end at {len(data)}, before {offset}; they are truncated") from None
