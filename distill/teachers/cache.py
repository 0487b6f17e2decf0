"""Teachers' trajectories on disk: computed once, in shards that survive a kill, and read back as training samples.

A cache is a folder with `cache.json` (what it was made from) and `shard-00000.safetensors` …: pictures as 8-bit,
features as 16-bit numbers. A shard depends on its number alone, so an interrupted run writes the files that an
uninterrupted one would have written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...runtime.bundle import Teacher as Origin
from ...runtime.errors import InputError
from ...runtime.files import remove_leftovers, replace
from ..data import Batch, Mixture, Photographs
from ..recipe import Frozen
from .protocol import Teacher

MANIFEST = "cache.json"
SHARD = 64  # samples a file
TOGETHER = 8  # samples that a teacher restores at once; 32 took a quarter longer each on a CPU
OPEN = 256  # files that a reader keeps open


class Manifest(Frozen):
    """What a cache holds and what it was made from; a run with other settings refuses the folder."""

    version: Literal[2] = 2
    made_with: str = Field(default_factory=lambda: f"burnish {version('burnish')}")
    teacher: Origin
    weights: str | None = Field(description="file name")
    weights_sha256: str | None = Field(description="of the loaded teacher (`digest`)")
    settings: dict[str, Any] = Field(description="of the teacher, beyond its weights")
    rounds: int
    feature_width: int | None
    samples: int
    patch: int
    seed: int
    mixture: Mixture | None = Field(description="what degraded the photographs; null where another program did")
    data: str = Field(description="folder name")
    data_sha256: str = Field(description="of names and sizes (`data.fingerprint`)")


class Producer(Protocol):
    """Computes samples with their trajectories."""

    def batch(self, start: int, stop: int) -> Batch:
        """Samples `start` … `stop`, batched; each depends on its index alone."""
        ...


@dataclass
class TeacherProducer:
    """A teacher at work on degraded photographs."""

    teacher: Teacher
    source: Photographs
    rounds: int
    device: torch.device

    def batch(self, start: int, stop: int) -> Batch:
        loader = DataLoader(self.source.samples(start, stop), stop - start)
        batch = Batch(*next(iter(loader)))
        teacher = self.teacher.to(self.device).eval()
        rounds, features = [], []
        for degraded in batch.degraded.split(TOGETHER):
            trajectory = teacher.restore(degraded.to(self.device), self.rounds)
            rounds.append(torch.stack([step.picture for step in trajectory], 1).cpu())
            told = [step.features for step in trajectory if step.features is not None]
            features += [torch.stack(told, 1).float().cpu()] if told else []
        return batch._replace(rounds=torch.cat(rounds), features=torch.cat(features) if features else batch.features)


def digest(teacher: Teacher) -> str:
    """SHA-256 over a teacher's tensors by name, wherever they were loaded from."""
    total = hashlib.sha256()
    for name, value in sorted(teacher.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def begin_cache(manifest: Manifest, out: Path) -> None:
    """Make the folder of a cache, or see that it is this cache's. Raises InputError where it is another's.

    What failed before it wrote a shard leaves the folder to any other cache.
    """
    path = out / MANIFEST
    if path.exists() and any(out.glob("shard-*.safetensors")):
        try:
            found: Any = json.loads(path.read_text())
        except ValueError:
            raise InputError(f"{path} is damaged; choose another folder") from None
        settings = manifest.model_dump(mode="json")
        others = [name for name, value in settings.items() if not isinstance(found, dict) or found.get(name) != value]
        if others:
            raise InputError(f"{out} holds a cache with other {', '.join(others)} (see {path}); choose another folder")
        return
    out.mkdir(parents=True, exist_ok=True)
    replace(path, lambda beside: beside.write_text(manifest.model_dump_json(indent=2) + "\n"))


def launch(devices: int) -> Fabric:
    """The processes that share the work, one a device; each of the others runs the same command again up to here."""
    fabric = Fabric(accelerator="auto", devices=devices)
    fabric.launch()
    return fabric


def write_cache(
    producer: Producer, manifest: Manifest, out: Path, fabric: Fabric, progress: Callable[[int, int], None]
) -> None:
    """Write the shards of a begun cache that are missing; several processes share them out."""
    if fabric.is_global_zero:
        remove_leftovers(out)
    fabric.barrier()
    shards = -(-manifest.samples // SHARD)
    for number in range(fabric.global_rank, shards, fabric.world_size):
        shard = _shard(out, number)
        if not shard.exists():
            batch = producer.batch(number * SHARD, min((number + 1) * SHARD, manifest.samples))
            tensors = {
                "clean": _bytes(batch.clean),
                "degraded": _bytes(batch.degraded),
                "severities": batch.severities.contiguous(),
                "rounds": _bytes(batch.rounds),
                "features": batch.features.half().contiguous(),
            }
            replace(shard, lambda beside, tensors=tensors: save_file(tensors, beside))
        progress(number + 1, shards)
    fabric.barrier()


def read_manifest(folder: Path) -> Manifest:
    """Raises InputError where there is no complete cache."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} is not a cache of trajectories; `burnish teacher cache` makes one")
    try:
        manifest = Manifest.model_validate_json(path.read_text())
    except ValueError:
        raise InputError(f"{path} is damaged or of another burnish version; make the cache again") from None
    missing = [n for n in range(-(-manifest.samples // SHARD)) if not _shard(folder, n).exists()]
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} shards; run the same `burnish teacher cache` again to finish it"
        )
    return manifest


@dataclass(frozen=True)
class CachedTrajectories:
    """A cache as a source of training samples, in a new random order every epoch."""

    folder: Path
    patch: int
    seed: int

    def samples(self, start: int, stop: int) -> Dataset[Batch]:
        """Raises InputError when the folder is no cache, is incomplete, or has patches of another size."""
        manifest = read_manifest(self.folder)
        if manifest.patch != self.patch:
            raise InputError(f"{self.folder} holds patches of {manifest.patch}²; the recipe asks for {self.patch}²")
        return CachedSamples(self.folder, manifest.samples, self.seed, start, stop)


class CachedSamples(Dataset[Batch]):
    def __init__(self, folder: Path, count: int, seed: int, start: int, stop: int) -> None:
        self.folder, self.count, self.seed, self.start, self.stop = folder, count, seed, start, stop
        self._open: dict[int, Any] = {}
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        epoch, place = divmod(self.start + index, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        number, row = divmod(int(self._order[place]), SHARD)
        if number not in self._open:
            if len(self._open) == OPEN:
                self._open.pop(next(iter(self._open)))
            path = _shard(self.folder, number)
            try:
                self._open[number] = safe_open(path, "pt")
            except (SafetensorError, OSError):
                raise InputError(
                    f"{path} is damaged; delete it and run the same `burnish teacher cache` again"
                ) from None
        shard = self._open[number]

        def read(name: str) -> Tensor:
            return shard.get_slice(name)[row]

        degraded = read("degraded").float() / 255
        return Batch(
            clean=read("clean").float() / 255,
            degraded=degraded,
            look=degraded,
            severities=read("severities"),
            rounds=read("rounds").float() / 255,
            features=read("features").float(),
        )


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
