"""The bundle: a folder with a manifest, programs, weights and reports, read defensively.

Sizes and hashes are checked, no path leaves the folder, nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from .errors import BundleError, InputError
from .routing import Routing

FORMAT = 1
MANIFEST = "bundle.json"
MAX_MANIFEST_BYTES = 1 << 20
# What every file system takes for one name.
MAX_PATH_BYTES = 255
_WORDS = r"^[a-z0-9]+(-[a-z0-9]+)*$"
# Resolved: an editable install links every file, and a bundle's files may not be links that lead out of it.
_SHIPPED = Path(__file__).resolve().parent / "embedded"


def embedded(size: str) -> Path:
    """The folder of the bundle that comes with the package, by its student's size."""
    return _SHIPPED / f"{size}.bundle"


EMBEDDED = embedded("small")
# The teacher that comes with the package: a student of size `base`, which only distillation and validation read.
EMBEDDED_TEACHER = _SHIPPED / "teacher.safetensors"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(_Entry):
    """One file of a bundle: its path below the bundle, its size in bytes and its SHA-256."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        safe = parts and not path.startswith("/") and ".." not in parts and "\\" not in path and ":" not in path
        if not safe or re.search(r"[\x00-\x1f]", path):
            raise ValueError(f"path {path[:200]!r} leaves the bundle; expected a relative path without '..'")
        if len(path.encode(errors="replace")) > MAX_PATH_BYTES:
            raise ValueError(f"path {path[:60]!r}… is too long; expected at most {MAX_PATH_BYTES} bytes")
        return path


class Calibration(_Entry):
    """Maps a program's raw predicted quality q to slope·q + offset, fitted on dev photographs."""

    slope: float = 1.0
    offset: float = 0.0

    def apply(self, quality: float) -> float:
        """Calibrated quality, clipped to [0, 1]."""
        return min(1.0, max(0.0, self.slope * quality + self.offset))


class Program(_Entry):
    """One exported artifact for one target and precision; what is in it and what made it."""

    # Together the name of its folder.
    target: str = Field(pattern=_WORDS, max_length=64)
    precision: str = Field(pattern=_WORDS, max_length=64)
    files: tuple[File, ...]
    made_with: dict[str, str] = Field(default_factory=dict, description="library → version")
    verified: str = Field(default="", description="how the written artifact was executed and compared")
    boundary_bytes: dict[str, PositiveInt] = Field(default_factory=dict, description="bytes in and out, by method")
    delegates: dict[str, dict[str, int]] = Field(
        default_factory=dict, description="method → delegate → partitions; 'none': operations outside every delegate"
    )
    calibration: Calibration = Calibration()
    speed: str = "unmeasured"

    @field_validator("files")
    @classmethod
    def _own_folder(cls, files: tuple[File, ...], info: ValidationInfo) -> tuple[File, ...]:
        name = "-".join(str(info.data.get(part)) for part in ("target", "precision"))
        for file in files:
            if not file.path.startswith(f"programs/{name}/"):
                raise ValueError(f"path {file.path!r} is not in programs/{name}")
        return files

    @property
    def name(self) -> str:
        """target-precision, also its folder's name."""
        return f"{self.target}-{self.precision}"


class StudentInfo(_Entry):
    """Which student the programs are."""

    size: str
    config: dict[str, Any]
    parameters: int
    macs: dict[str, int] = Field(description="multiply-adds a method at 256²")
    rank: int = Field(gt=0, le=4096)
    estimate_features: tuple[int, ...] = Field(default=(1, 2), description="which scales of the estimate refine takes")


class Profile(_Entry):
    """Measured milliseconds of one program on one class of device: mean and deviation of each method."""

    device: str
    program: str
    encode_ms: tuple[NonNegativeFloat, NonNegativeFloat]
    refine_ms: tuple[NonNegativeFloat, NonNegativeFloat]


class Teacher(_Entry):
    """Where knowledge came from and whether it may be shipped."""

    name: str
    licence: str
    commercial_use: bool


class Provenance(_Entry):
    """What went into the weights, and under which licence they stand (None: not stated)."""

    teachers: tuple[Teacher, ...] = ()
    data: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    licence: str | None = None


class Expectation(_Entry):
    """What a program answered where it was made: the tensors of `runtime.selftest.Answer`, and who computed them."""

    program: str
    file: File
    computed_by: str
    least_psnr: float = Field(description="dB between its restored picture and the one elsewhere")
    quality_tolerance: float = Field(description="largest difference of predicted quality")


class SelfTest(_Entry):
    """Inputs for a device to try its programs on: image and current as uint8 (1, 3, tile, tile), and gates."""

    inputs: File
    expected: tuple[Expectation, ...]


class ExpertPack(_Entry):
    """Other experts for the same student: in int8 with scales, and as each program that can exchange them reads them."""

    name: str
    weights: File
    verified: str = Field(default="", description="how far the int8 weights are from the student they were written of")
    programs: dict[str, File] = Field(description="program → its file of experts")


class Manifest(_Entry):
    """bundle.json."""

    format: int
    student: StudentInfo
    tile: int = Field(ge=64, multiple_of=16, le=4096)
    routing: Routing
    weights: File
    programs: tuple[Program, ...]
    profiles: tuple[Profile, ...] = ()
    self_test: SelfTest | None = None
    experts: tuple[ExpertPack, ...] = ()
    provenance: Provenance = Provenance()
    licence: str


def locate(bundle: str | Path | None) -> Path:
    """The folder meant by a path, by the size of an embedded bundle where no file here is called so ("nano"), or by None.

    None is the embedded bundle of size `small`. A path has no "./" of its own: of a name alone the size is meant too.
    Raises InputError for what is no path.
    """
    if bundle is None:
        return EMBEDDED
    try:
        path = Path(bundle)
    except TypeError:
        raise InputError(f"bundle={bundle!r}: expected a bundle's folder, or the size of an embedded one") from None
    shipped = embedded(path.name)
    return shipped if path == Path(path.name) and not path.exists() and shipped.is_dir() else path


def is_embedded(path: Path) -> bool:
    """Whether a bundle's folder belongs to the installation, which nothing is written into."""
    return path.resolve().parent == _SHIPPED


class Bundle:
    """An opened bundle: the manifest was checked, files are checked when they are asked for."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, bundle: str | Path | None = None) -> Bundle:
        """Read and check the manifest of what `locate` finds. Raises BundleError with what is wrong."""
        path = locate(bundle)
        file = path / MANIFEST
        if not file.is_file():
            raise BundleError(
                f"{path} is not a bundle: it has no {MANIFEST}; expected a folder `burnish export` wrote, "
                f"or the size of an embedded one: {', '.join(sorted(p.stem for p in _SHIPPED.glob('*.bundle')))}"
            )
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{file} has {file.stat().st_size} bytes; expected at most {MAX_MANIFEST_BYTES}")
        try:
            content = json.loads(file.read_bytes())
            version = content.get("format") if isinstance(content, dict) else None
            if version != FORMAT:
                raise BundleError(f"{file} has format {version!r}; this burnish reads {FORMAT}: export it again")
            return cls(path, Manifest.model_validate(content))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BundleError(f"{file}: {place}: {first['msg']}") from None
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{file} is not valid JSON ({str(error)[:80]}); export the bundle again") from None

    def program(self, name: str) -> Program:
        """The program called `name` (target-precision). Raises BundleError listing what there is."""
        for program in self.manifest.programs:
            if program.name == name:
                return program
        there = ", ".join(p.name for p in self.manifest.programs) or "none"
        raise BundleError(f"{self.path} has no program {name!r}; it has: {there}")

    def file(self, entry: File) -> Path:
        """The path of a file whose size and hash are as the manifest says. Raises BundleError."""
        path = self.path / entry.path
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise BundleError(f"{path} leads out of the bundle; refuse it")
        if not path.is_file():
            raise BundleError(f"{path} is missing; export the bundle again")
        size = path.stat().st_size
        if size != entry.bytes or sha256(path) != entry.sha256:
            raise BundleError(f"{path} is damaged: {size} bytes, hash differs from {MANIFEST}; export the bundle again")
        return path

    def expert_pack(self, name: str) -> ExpertPack:
        """The pack of experts called `name`. Raises BundleError listing what there is."""
        for pack in self.manifest.experts:
            if pack.name == name:
                return pack
        there = ", ".join(pack.name for pack in self.manifest.experts) or "none"
        raise BundleError(f"{self.path} has no pack of experts {name!r}; it has: {there}")

    def program_folder(self, program: Program) -> Path:
        """The folder of a program, all its files checked."""
        for entry in program.files:
            self.file(entry)
        return self.path / "programs" / program.name


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    total = hashlib.sha256()  # Python 3.10 has no file_digest
    for block in iter(lambda: file.read(1 << 20), b""):
        total.update(block)
    return total.hexdigest()
