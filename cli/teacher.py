"""`burnish teacher`: the restorers that students learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..runtime.errors import InputError

if TYPE_CHECKING:
    from ..distill.teachers.protocol import Card, Teacher

app = typer.Typer(no_args_is_help=True, help="The restorers that students learn from.")
console = Console(stderr=True)

Name = Annotated[str, typer.Argument(help="a teacher of `burnish teacher list`")]
Weights = Annotated[Path | None, typer.Option(help="our .safetensors, or the authors' checkpoint")]
AsJson = Annotated[bool, typer.Option("--json", help="print as JSON")]
Base = Annotated[
    Path | None, typer.Option(help="folder of the model a checkpoint builds on: sd-turbo, stable-diffusion-3.5-medium")
]
# The side at which the literature states multiply-adds.
SIDE = 256


@app.command(name="list")
def list_teachers(as_json: AsJson = False) -> None:
    """Every teacher, whose it is, and whether what it taught may be sold."""
    from ..distill.teachers.registry import TEACHERS

    if as_json:
        rows = [{"name": name} | entry.card.model_dump(mode="json") for name, entry in TEACHERS.items()]
        typer.echo(json.dumps(rows, indent=1))
        return
    for name, entry in TEACHERS.items():
        typer.echo(f"{name:18}{entry.card.title} ({_use(entry.card)})")


@app.command()
def info(name: Name, as_json: AsJson = False) -> None:
    """Parameters, and multiply-adds of each pass at 256², attention products counted."""
    import torch

    from ..distill.macs import count_macs
    from ..distill.teachers.registry import create

    # On the meta device nothing is allocated and nothing computed.
    with torch.device("meta"):
        teacher = create(name).eval().requires_grad_(False)
        with torch.no_grad():
            passes = teacher.passes(torch.zeros(1, 3, SIDE, SIDE))
            macs = {what: count_macs(call) for what, call in passes.items()}
    card, parameters = teacher.card, sum(p.numel() for p in teacher.parameters())
    if as_json:
        row: dict[str, Any] = {"name": name} | card.model_dump(mode="json") | {"parameters": parameters, "macs": macs}
        typer.echo(json.dumps(row, indent=1))
        return
    typer.echo(f"{card.title}\n{card.paper}\nlicence: {card.licence} ({_use(card)})")
    typer.echo(f"parameters: {parameters / 1e6:.2f} M")
    for what, count in macs.items():
        typer.echo(f"multiply-adds at {SIDE}², {what}: {count / 1e9:.1f} G")


@app.command()
def run(
    name: Name,
    picture: Annotated[Path, typer.Argument(metavar="IN", help="a picture")],
    out: Annotated[Path, typer.Argument(help="folder for round_0.png, round_1.png, …, meta.json")],
    weights: Weights = None,
    base: Base = None,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Restore a picture; what it writes is what the `folder` teacher reads."""
    import torch

    from ..runtime.files import replace
    from ..runtime.pictures import Picture, read, write
    from ..runtime.tree import LEAVES

    degraded = read(picture)
    teacher = _load(name, weights, base)
    trajectory = teacher.restore(torch.from_numpy(degraded.rgb.transpose(2, 0, 1)[None].copy()), rounds)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [degraded.rgb, *(step.picture[0].permute(1, 2, 0).numpy() for step in trajectory)]
    for turn, rgb in enumerate(pictures):
        write(Picture(rgb), out / f"round_{turn}.png")
    meta: dict[str, Any] = {"teacher": name}
    qualities = [step.quality for step in trajectory if step.quality is not None]
    if qualities:
        meta["quality"] = [float(quality) for quality in qualities]
    if trajectory[0].degradation is not None:
        meta["degradation"] = dict(zip(LEAVES, trajectory[0].degradation[0].tolist(), strict=True))
    replace(out / "meta.json", lambda beside: beside.write_text(json.dumps(meta, indent=1) + "\n"))
    typer.echo(str(out))


@app.command()
def cache(
    name: Annotated[str, typer.Argument(help="a teacher, or `folder` for trajectories that another program wrote")],
    data: Annotated[Path, typer.Argument(help="photographs; for `folder`: NAME/round_0.png, NAME/round_1.png, …")],
    out: Annotated[Path, typer.Argument(help="folder of the cache")],
    weights: Weights = None,
    base: Base = None,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    samples: Annotated[int, typer.Option(min=1, help="patches to restore")] = 4096,
    patch: Annotated[int, typer.Option(min=32, help="side of a patch, a multiple of 16")] = 96,
    seed: Annotated[int, typer.Option()] = 0,
    devices: Annotated[int, typer.Option(min=1, help="processes or GPUs")] = 1,
) -> None:
    """Write a teacher's trajectories once, to distil from many times; finished shards are kept when started again."""
    import torch
    from rich.progress import Progress

    from ..distill.data import Mixture, Photographs
    from ..distill.teachers.cache import Manifest, Producer, TeacherProducer, launch, write_cache
    from ..distill.teachers.folder import CARD, NAME, FolderTrajectories
    from ..distill.teachers.protocol import origin

    if patch % 16:
        raise InputError(f"patch is {patch}; expected a multiple of 16")
    fabric = launch(devices)
    producer: Producer
    if name == NAME:
        folder = FolderTrajectories(data, patch, seed)
        producer, rounds, card, width = folder, folder.rounds, CARD, None
    else:
        teacher = _load(name, weights, base)
        source = Photographs(data, Mixture(), patch, seed)
        producer = TeacherProducer(teacher, source, rounds, torch.device(fabric.device))
        card, width = teacher.card, teacher.feature_width
    manifest = Manifest(
        teacher=origin(name, card),
        weights=None if weights is None else weights.name,
        rounds=rounds,
        feature_width=width,
        samples=samples,
        patch=patch,
        seed=seed,
        data=data.name,
    )
    if not card.commercial_use:
        console.print(f"warning: {name}: {card.licence}; what learns from it may not be shipped in a product")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("cache", total=None)
        write_cache(producer, manifest, out, fabric, lambda done, total: bar.update(task, completed=done, total=total))
    console.print(f"cache: {out}")


def _use(card: Card) -> str:
    return "commercial use allowed" if card.commercial_use else "NO commercial use"


def _load(name: str, weights: Path | None, base: Path | None) -> Teacher:
    from ..distill.teachers.registry import find
    from ..distill.weights import load_teacher

    find(name)
    if weights is None:
        raise InputError(f"{name} has no weights of its own; give them with --weights")
    return load_teacher(weights, name, base)
