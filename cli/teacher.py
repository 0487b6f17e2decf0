"""`burnish teacher`: the restorers that students learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..runtime.bundle import EMBEDDED_TEACHER
from ..runtime.errors import InputError

if TYPE_CHECKING:
    from ..distill.data import Mixture
    from ..distill.teachers.protocol import Card, Teacher

app = typer.Typer(no_args_is_help=True, help="The restorers that students learn from.")
console = Console(stderr=True)

Name = Annotated[str, typer.Argument(help="a teacher of `burnish teacher list`")]
Weights = Annotated[
    Path | None, typer.Option(help="our .safetensors, or the authors' checkpoint; sipl-student comes with its own")
]
AsJson = Annotated[bool, typer.Option("--json", help="print as JSON")]
Base = Annotated[
    Path | None, typer.Option(help="folder of the model a checkpoint builds on: sd-turbo, stable-diffusion-3.5-medium")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="a setting of the teacher, such as input=replace"),
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
    published = card.figures
    typer.echo(f"{card.title}\n{card.paper}\nlicence: {card.licence} ({_use(card)})")
    for setting, field in type(teacher.settings).model_fields.items():
        typer.echo(f"setting {setting}: {getattr(teacher.settings, setting)!r}, {field.description}")
    if card.published_rounds is not None:
        typer.echo(f"rounds: {card.published_rounds} as published; later ones, on the output, are our extension")
    typer.echo(_beside("parameters", f"{parameters / 1e6:.2f} M", published.parameters, "M"))
    for what, count in macs.items():
        typer.echo(_beside(f"multiply-adds at {SIDE}², {what}", f"{count / 1e9:.1f} G", published.macs.get(what), "G"))
    typer.echo(
        "counted: convolutions and matrix products, attention's included; no element-wise work, no Fourier transform"
    )
    if published.note:
        typer.echo(f"published: {published.note}")


def _beside(what: str, measured: str, published: float | None, unit: str) -> str:
    """A measured figure and, where there is one, what was published."""
    return f"{what}: {measured}" + ("" if published is None else f" (published: {published:g} {unit})")


@app.command()
def run(
    name: Name,
    picture: Annotated[Path, typer.Argument(metavar="IN", help="a picture")],
    out: Annotated[Path, typer.Argument(help="folder for round_0.png, round_1.png, …, meta.json")],
    weights: Weights = None,
    base: Base = None,
    settings: Settings = None,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Restore a picture; what it writes is what the `folder` teacher reads."""
    from ..distill.data import to_tensor
    from ..runtime.files import check_folder, replace
    from ..runtime.pictures import Picture, read, write
    from ..runtime.tree import LEAVES

    degraded = read(picture)
    check_folder(out)
    teacher = _load(name, weights, base, settings)
    trajectory = teacher.restore(to_tensor(degraded.rgb)[None], rounds)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [degraded.rgb, *(step.picture[0].permute(1, 2, 0).numpy() for step in trajectory)]
    for turn, rgb in enumerate(pictures):
        write(Picture(rgb), out / f"round_{turn}.png")
    meta: dict[str, Any] = {"teacher": name, "published_rounds": teacher.card.published_rounds}
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
    settings: Settings = None,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    samples: Annotated[int, typer.Option(min=1, help="patches to restore")] = 4096,
    patch: Annotated[int, typer.Option(min=32, help="side of a patch, a multiple of 16")] = 96,
    seed: Annotated[int, typer.Option()] = 0,
    mixture: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="whose `distill.mixture` degrades the photographs")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="processes or GPUs")] = 1,
) -> None:
    """Write a teacher's trajectories once, to distil from many times; finished shards are kept when started again."""
    import torch
    from rich.progress import Progress

    from ..distill.data import Mixture, Photographs, fingerprint
    from ..distill.teachers.cache import Manifest, Producer, TeacherProducer, begin_cache, digest, launch, write_cache
    from ..distill.teachers.folder import CARD, NAME, FolderTrajectories
    from ..distill.teachers.protocol import origin
    from ..distill.teachers.registry import TEACHERS
    from .training import warn_of_licences

    if patch % 16:
        raise InputError(f"patch is {patch}; expected a multiple of 16")
    if name not in (NAME, *TEACHERS):
        raise InputError(f"unknown teacher {name!r}; expected one of {', '.join((*TEACHERS, NAME))}")
    source = Photographs(data, Mixture() if mixture is None else _mixture(mixture, name), patch, seed)
    folder = FolderTrajectories(data, patch, seed) if name == NAME else None
    teacher = None if folder else _load(name, weights, base, settings)
    card = teacher.card if teacher else CARD
    manifest = Manifest(
        teacher=origin(name, card),
        weights=weights and weights.name,
        weights_sha256=teacher and digest(teacher),
        settings=teacher.settings.model_dump(mode="json") if teacher else {},
        rounds=folder.rounds if folder else rounds,
        feature_width=teacher and teacher.feature_width,
        samples=samples,
        patch=patch,
        seed=seed,
        mixture=None if folder else source.mixture,
        data=data.name,
        data_sha256=fingerprint(data),
    )
    begin_cache(manifest, out)
    fabric = launch(devices)
    console.quiet = not fabric.is_global_zero
    producer: Producer
    if folder:
        producer = folder
    else:
        assert teacher is not None
        producer = TeacherProducer(teacher, source, rounds, torch.device(fabric.device))
    warn_of_licences((manifest.teacher,), console)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("cache", total=None)
        write_cache(producer, manifest, out, fabric, lambda done, total: bar.update(task, completed=done, total=total))
    console.print(f"cache: {out}")


def _mixture(recipe: Path, teacher: str) -> Mixture:
    """What a recipe's photographs are degraded by, where a cache can hold it. Raises InputError."""
    from ..distill.teachers.folder import NAME
    from .recipe import distill_section, read_recipe

    section = distill_section(read_recipe(recipe), recipe)
    if teacher == NAME:
        raise InputError("--mixture is of photographs that are degraded here; those of a folder are degraded already")
    if section.mixture.wide:
        raise InputError(
            f"{recipe}: mixture.wide is {section.mixture.wide:g}; expected 0, since a cache holds no looks at larger pictures"
        )
    return section.mixture


def _use(card: Card) -> str:
    return "commercial use allowed" if card.commercial_use else "NO commercial use"


def _load(name: str, weights: Path | None, base: Path | None, settings: list[str] | None) -> Teacher:
    from ..distill.teachers.registry import find
    from ..distill.weights import STUDENT_TEACHER, load_teacher

    find(name)
    if weights is None and name == STUDENT_TEACHER:
        weights = EMBEDDED_TEACHER
    if weights is None:
        raise InputError(f"{name} has no weights of its own; give them with --weights")
    teacher = load_teacher(weights, name, base)
    for setting in settings or ():
        key, given, value = setting.partition("=")
        if not given:
            raise InputError(f"--set {setting}: expected NAME=VALUE")
        teacher.configure({key: _value(value)})
    return teacher


def _value(text: str) -> Any:
    """A setting's value: JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
