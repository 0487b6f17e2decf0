"""The `burnish` command: plain verbs over the packages below; heavy imports wait until a verb needs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..runtime.errors import BurnishError, InputError
from .quiet import libraries_silenced, silence_advice
from .report import compare_command, report_command, reports_of
from .restore import restore_file
from .stages import export_command, quantize_command, validate_command
from .teacher import app as teacher_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(teacher_app, name="teacher")
console = Console(stderr=True)

_A_BUNDLE = "a bundle's folder, or the size of an embedded one: nano, small; small without"
_A_STUDENT = "student.safetensors, or the size of an embedded one: nano, small"
BundleOption = Annotated[Path | None, typer.Option(help=_A_BUNDLE)]
BundleArgument = Annotated[Path | None, typer.Argument(help=_A_BUNDLE)]


@app.command()
def restore(
    picture: Annotated[Path, typer.Argument(metavar="IN", help="a picture")],
    out: Annotated[Path | None, typer.Argument(help="where to write; IN_restored.png without")] = None,
    bundle: BundleOption = None,
    budget_ms: Annotated[
        float | None, typer.Option(min=0, help="milliseconds at most, loading and files aside")
    ] = None,
    min_quality: Annotated[float | None, typer.Option(min=0, max=1, help="stop at this predicted quality")] = None,
    max_iterations: Annotated[int, typer.Option(min=0)] = 4,
    degradation: Annotated[str | None, typer.Option(help="experts by hand: rain=0.7,noise=0.3")] = None,
    backend: Annotated[str, typer.Option(help="auto, or the name of a backend")] = "auto",
    program: Annotated[str | None, typer.Option(help="a program of the bundle, such as onnx-fp32")] = None,
    experts: Annotated[
        str | None, typer.Option(help="a pack of the bundle's experts, instead of the program's own")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="folder for one PNG a step and trace.json")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Restore a picture within a budget."""
    result = restore_file(
        picture,
        out or picture.with_name(f"{picture.stem}_restored.png"),
        bundle=bundle,
        budget_ms=budget_ms,
        min_quality=min_quality,
        max_iterations=max_iterations,
        degradation=degradation,
        backend=backend,
        program=program,
        experts=experts,
        trace=trace,
    )
    _print(result, as_json, result["summary"])


@app.command()
def distill(
    recipe: Annotated[Path | None, typer.Argument(help="a recipe with a distill section")] = None,
    out: Annotated[Path, typer.Option(help="folder of the training run")] = Path("runs/distill"),
    data: Annotated[
        Path | None, typer.Option(help="your own photographs instead of the recipe's; pairs for --add-expert")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="minutes at most, over all sessions")] = None,
    add_expert: Annotated[str | None, typer.Option(help="name of a new degradation: one more expert and leaf")] = None,
    parent: Annotated[str, typer.Option(help="the new leaf's parent in the degradation tree")] = "weather",
    start: Annotated[
        Path | None, typer.Option(help="the student that gets the expert; the embedded small without")
    ] = None,
) -> None:
    """Train a student (or, where the recipe's `model` names one, a teacher); resumes when started again.

    With --add-expert NAME --data PAIRS (degraded/ and clean/) a student learns one more degradation; nothing else of it moves.
    """
    from .training import add_expert_command, distill_command

    if add_expert is not None:
        if recipe is not None or data is None:
            raise InputError("--add-expert takes --data PAIRS (degraded/ and clean/ with the same names) and no recipe")
        from ..distill.experts import EXPERT_SCHEDULE

        schedule = EXPERT_SCHEDULE if minutes is None else EXPERT_SCHEDULE.model_copy(update={"minutes": minutes})
        weights = add_expert_command(add_expert, data, parent, start, schedule, out, console)
    elif recipe is not None:
        weights = distill_command(recipe, out, data, minutes, console)
    else:
        raise InputError("nothing to train; give a recipe, or --add-expert NAME --data PAIRS")
    console.print(f"weights: {weights}")


@app.command()
def quantize(
    student: Annotated[Path, typer.Argument(help=_A_STUDENT)],
    out: Annotated[Path, typer.Argument(help="folder for the quantised graphs")],
    calibration: Annotated[Path, typer.Option(help="folder of photographs to calibrate on")],
    tile: Annotated[int, typer.Option(help="side of a tile in pixels, a multiple of 16")] = 272,
    target: Annotated[list[str] | None, typer.Option(help="only for xnnpack, coreml or tensorrt")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="calibration pictures")] = None,
    train_minutes: Annotated[
        float | None, typer.Option(min=0.1, help="quantisation-aware training of every target, after calibration")
    ] = None,
    max_drop_db: Annotated[
        float | None, typer.Option(min=0, help="keep the fewest layers in float so that no condition loses more")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="print what every layer's rounding costs")] = False,
) -> None:
    """Quantise a student to int8 with NNCF, calibrated on trajectories."""
    quantize_command(student, out, calibration, tile, target, pictures, train_minutes, max_drop_db, explain, console)
    console.print(f"quantised graphs: {out}")


@app.command()
def export(
    student: Annotated[str, typer.Argument(help=f"{_A_STUDENT}; with --check any size, or package.module:factory")],
    out: Annotated[Path | None, typer.Argument(help="the bundle's folder")] = None,
    calibration: Annotated[Path | None, typer.Option(help="folder of photographs to compare programs on")] = None,
    quantized: Annotated[Path | None, typer.Option(help="folder `burnish quantize` wrote, for int8 programs")] = None,
    program: Annotated[list[str] | None, typer.Option(help="a program to write; all that can be without")] = None,
    tile: Annotated[int, typer.Option(help="side of a tile in pixels, a multiple of 16")] = 272,
    experts: Annotated[
        list[str] | None, typer.Option(help="NAME=STUDENT.safetensors: its experts as a pack, exchanged at run time")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="only say what each target would make of the model")] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="with --check: only executorch-xnnpack-fp32, …-int8, coreml or tensorrt")
    ] = None,
    max_partitions: Annotated[int, typer.Option(min=1, help="with --check: partitions a method may have")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="with --check: print the result as JSON")] = False,
) -> None:
    """Write a bundle; every program is loaded and compared before the bundle exists.

    With --check nothing is written: exit status 1 when a method falls into more partitions than allowed.
    """
    if check:
        from .check import check_model

        result, passed = check_model(student, tile, target, max_partitions, console)
        _print(result, as_json, result["summary"])
        if not passed:
            raise typer.Exit(1)
        return
    if target or as_json or max_partitions > 1:
        raise InputError("--target, --max-partitions and --json are of --check; what to write --program says")
    if out is None:
        raise InputError("nothing to write to; give the bundle's folder and --calibration PHOTOS, or --check")
    if calibration is None:
        raise InputError("no photographs to compare programs on; give --calibration PHOTOS")
    path = Path(student)
    command = f"burnish export {path.name}"
    export_command(path, out, calibration, quantized, program, tile, experts or [], command, console)
    console.print(f"bundle: {out}")


@app.command(name="build-engine")
def build_engine_command(
    bundle: BundleArgument = None,
    program: Annotated[str, typer.Option(help="a TensorRT program of the bundle")] = "tensorrt-int8",
    built_with: Annotated[str, typer.Option("--with", help="tensorrt or torch-tensorrt")] = "tensorrt",
    cache: Annotated[Path | None, typer.Option(help="folder of engines; the user's cache without")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Build TensorRT engines for this machine, or find those that fit it in the cache."""
    from .engine import build_engine

    result = build_engine(bundle, program, built_with, cache, console)
    _print(result, as_json, result["summary"])


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Compare what is installed with what burnish was tried with; exit status 1 when something installed is broken."""
    from .doctor import describe as describe_health
    from .doctor import diagnose

    with console.status("load what is installed"):
        result = diagnose()
    _print(result, as_json, describe_health(result))
    if result["problems"]:
        raise typer.Exit(1)


@app.command()
def validate(
    data: Annotated[Path, typer.Option(help="clean photographs, or pairs: DIR/degraded/NAME and DIR/clean/NAME")],
    bundle: BundleArgument = None,
    report: Annotated[Path | None, typer.Option(help="folder for reports; BUNDLE/reports without")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="only the first N pictures")] = None,
    condition: Annotated[list[str] | None, typer.Option(help="only these conditions of the protocol")] = None,
    program: Annotated[list[str] | None, typer.Option(help="only these programs")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="a teacher's weights, or 'embedded', to show the whole chain")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1)] = 4,
    max_drop_db: Annotated[
        float | None, typer.Option(min=0, help="mean PSNR lost to the student (0.15; Core ML, TensorRT 0.2)")
    ] = None,
    max_worst_drop_db: Annotated[float | None, typer.Option(min=0, help="on the worst 5 % of pictures (0.5)")] = None,
    max_ssim_drop: Annotated[float | None, typer.Option(min=0, help="mean SSIM lost (0.01)")] = None,
    max_delta_e: Annotated[float | None, typer.Option(min=0, help="mean ΔE2000 to the student (0.5)")] = None,
    max_bias: Annotated[float | None, typer.Option(min=0, help="brightness bias in 1/255 (0.3)")] = None,
    min_same_stop: Annotated[float | None, typer.Option(min=0, max=1, help="share that stops alike (0.9)")] = None,
    keep_slow: Annotated[bool, typer.Option(help="let int8 pass that was measured not to be faster")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="processes, of about 1 GB each")] = 1,
    device: Annotated[
        str | None, typer.Option(help="run programs there too: adb:SERIAL, ssh:USER@HOST, arm:CORE or ios:UDID")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure every program against the full-precision student; exit status 1 when the gate fails."""
    from ..device_tests.gate import Gate
    from ..device_tests.validate import Plan
    from .training import teacher_path

    given = {
        "max_drop_db": max_drop_db,
        "max_worst_drop_db": max_worst_drop_db,
        "max_ssim_drop": max_ssim_drop,
        "max_delta_e": max_delta_e,
        "max_bias": max_bias,
        "min_same_stop": min_same_stop,
    }
    plan = Plan(
        data=data,
        pictures=pictures,
        conditions=tuple(condition or ()),
        programs=tuple(program or ()),
        iterations=iterations,
        teacher=teacher_path(teacher, Path()),
        gate=Gate.model_validate({name: limit for name, limit in given.items() if limit is not None}),
        keep_slow=keep_slow,
        jobs=jobs,
        device=device,
    )
    result, passed = validate_command(bundle, plan, report or reports_of(bundle), console)
    _print(result, as_json, result["summary"])
    if not passed:
        raise typer.Exit(1)


@app.command()
def profile(
    bundle: BundleArgument = None,
    device: Annotated[
        list[str] | None, typer.Option(help="host, arm:CORE, adb:SERIAL, ssh:USER@HOST or ios:UDID; several at once")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="folder for reports; BUNDLE/reports without")] = None,
    program: Annotated[list[str] | None, typer.Option(help="only these programs")] = None,
    threads: Annotated[str, typer.Option(help="numbers of threads, such as 1,2,4; 0: the library's choice")] = "0",
    runs: Annotated[int, typer.Option(min=1, help="timed runs of each program")] = 50,
    warm_up: Annotated[int, typer.Option(min=0, help="runs before each block of timed ones")] = 3,
    blocks: Annotated[int, typer.Option(min=1, help="processes that the runs are spread over")] = 5,
    max_temperature: Annotated[float | None, typer.Option(help="wait until the device is below, in °C")] = None,
    limit_s: Annotated[int, typer.Option(min=1, help="seconds at most for one block")] = 300,
    seed: Annotated[bool, typer.Option(help="put the measured times into the bundle, for its cost model")] = True,
    by_app: Annotated[bool, typer.Option("--app", help="on Android phones the demo app measures")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure a bundle's programs on devices: latency, load time, memory, heat, kernels, determinism, numerics."""
    from ..device_tests.profile import Plan
    from .profile import parse_threads, profile_command

    plan = Plan(
        programs=tuple(program or ()),
        threads=parse_threads(threads),
        runs=runs,
        warm_up=warm_up,
        blocks=min(blocks, runs),
        max_temperature_c=max_temperature,
        limit_s=limit_s,
    )
    result, complete = profile_command(
        bundle, device or ["host"], plan, report or reports_of(bundle), seed, by_app, console
    )
    _print(result, as_json, result["summary"])
    if not complete:
        raise typer.Exit(1)


@app.command()
def report(
    bundle: BundleArgument = None,
    reports: Annotated[
        Path | None, typer.Option(help="folder that validate and profile wrote to; BUNDLE/reports without")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="two bundles or sizes, before and after, or folders of their reports"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Put everything that was measured of a bundle on one page, and into Markdown.

    With --compare BEFORE AFTER nothing is written: exit status 1 when something got worse.
    """
    if compare is None:
        result = report_command(bundle, reports)
        _print(result, as_json, result["summary"])
        return
    if bundle is not None or reports is not None:
        raise InputError("--compare takes the two bundles itself; give no other, and no --reports")
    result, passed = compare_command(*compare)
    _print(result, as_json, result["summary"])
    if not passed:
        raise typer.Exit(1)


@app.command()
def devices(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List what programs can be measured on."""
    from .devices import list_devices

    result = list_devices()
    _print(result, as_json, result["summary"])


@app.command(name="run")
def run_recipe(
    recipe: Annotated[Path, typer.Argument(help="a recipe, such as recipes/demo.yaml")],
    out: Annotated[Path, typer.Option(help="folder for everything the run makes")],
) -> None:
    """Run a whole recipe: distil, quantise, export, validate, profile, restore. Finished stages are skipped."""
    from .pipeline import run_pipeline

    run_pipeline(recipe, out, console)


@app.command()
def inspect(
    bundle: BundleArgument = None,
    run: Annotated[bool, typer.Option("--run", help="also run its programs here on the bundle's own test")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show what is in a bundle, its files checked; exit status 1 when --run finds a program that answers otherwise."""
    from .inspect import describe, inspection

    result = inspection(bundle, run)
    _print(result, as_json, describe(result))
    if not result["passed"]:
        raise typer.Exit(1)


@app.command()
def serve(
    bundle: BundleOption = None,
    backend: Annotated[str, typer.Option(help="auto, or the name of a backend")] = "auto",
    program: Annotated[str | None, typer.Option(help="a program of the bundle, such as onnx-fp32")] = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; others than loopback let other machines in")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8471,
    upload_mb: Annotated[int, typer.Option(min=1, help="largest picture file")] = 40,
    a_minute: Annotated[int, typer.Option(min=1, help="pictures a minute and visitor")] = 30,
    seconds: Annotated[float, typer.Option(min=0.1, help="time for one picture at most")] = 60.0,
) -> None:
    """Open a page on this machine: drop a picture, watch it get better, compare."""
    try:
        from .serve import Limits, serve
    except ImportError as error:
        raise InputError(f"burnish serve needs {error.name}; pip install 'burnish[serve]'") from None
    from ..runtime import Restorer

    with libraries_silenced():
        restorer = Restorer.load(bundle, backend=backend, program=program)
    limits = Limits(upload_mb=upload_mb, requests_a_minute=a_minute, seconds=seconds)
    serve(restorer, host, port, limits, lambda address: console.print(f"burnish: {address}  (Ctrl+C ends it)"))


def _print(result: dict[str, Any], as_json: bool, text: str) -> None:
    sys.stdout.write(
        (json.dumps({k: v for k, v in result.items() if k != "summary"}, indent=1) if as_json else text) + "\n"
    )


def run() -> None:
    """Entry point: errors become one line and an exit status."""
    silence_advice()
    try:
        app()
    except BurnishError as error:
        # A worker process of torch's loader puts its traceback before an error's own words.
        _fail(str(error).rpartition(f"{type(error).__name__}: ")[2], error.exit_status)
    except MemoryError:
        _fail("out of memory; use smaller pictures, fewer --jobs or a smaller batch", InputError.exit_status)
    except OSError as error:
        _fail(f"{error.strerror or error} ({error.filename or 'no file'}); check the path and the room on disk", 2)


def _fail(message: str, status: int) -> None:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    run()
