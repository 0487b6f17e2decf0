"""`burnish report`: a page of what was measured, two bundles compared, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from burnish.cli.main import app
from burnish.device_tests.devices import Identity
from burnish.device_tests.perf import DevicePerf, Perf, ProgramPerf, Temperature, timing
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.errors import BurnishError
from typer.testing import CliRunner


def measured(folder: Path, ms: float) -> Path:
    """A copy of the embedded bundle with a profile of this machine."""
    bundle = folder / "photo.bundle"
    shutil.copytree(EMBEDDED, bundle)
    row = ProgramPerf(
        program="onnx-fp32",
        sha256="0" * 64,
        runner="a runner",
        threads=1,
        encode=timing([ms / 2]),
        refine=timing([ms / 2]),
        iteration=timing([ms]),
        drift=1.0,
        throttled=False,
        load_cold_ms=1,
        load_warm_ms=1,
        first_run_ms=1,
        program_bytes=1 << 20,
        process_bytes=1 << 21,
        temperature=Temperature(),
        digest="0" * 16,
    )
    device = DevicePerf(device="host", identity=Identity(platform="linux-x86_64", model="this"), programs=(row,))
    perf = Perf(bundle=bundle.name, student="small", made="2026-01-02T03:04:05+00:00", versions={}, devices=(device,))
    (bundle / "reports").mkdir()
    (bundle / "reports" / "perf.json").write_text(perf.model_dump_json())
    return bundle


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout


def test_a_bundle_keeps_its_report(tmp_path: Path) -> None:
    bundle = measured(tmp_path, 20.0)
    status, said = run(bundle)
    assert status == 0
    assert str(bundle / "reports" / "report.html") in said
    assert "20.00" in (bundle / "reports" / "report.html").read_text()
    assert "| host | onnx-fp32 | 1 | 20.0 |" in (bundle / "reports" / "report.md").read_text()


def test_two_bundles_and_two_folders_of_reports(tmp_path: Path) -> None:
    before, after = (measured(tmp_path / name, ms) for name, ms in (("a", 20.0), ("b", 30.0)))
    status, said = run("--compare", before, after)
    assert status == 1
    assert "| iteration p50, ms | host, onnx-fp32, 1 threads | 20.00 | 30.00 | +50.0% | **worse** |" in said
    status, said = run("--compare", after / "reports", before / "reports", "--json")
    assert status == 0
    rows = json.loads(said)["differences"]
    assert next(row for row in rows if row["measure"] == "iteration p50, ms")["verdict"] == "better"
    assert not (tmp_path / "a" / "photo.bundle" / "reports" / "report.html").exists()


def test_what_cannot_be_reported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = measured(tmp_path, 20.0)
    for arguments, says in (
        ([bundle, "--reports", tmp_path / "none"], "burnish profile"),
        ([tmp_path / "none"], "is not a bundle"),
        (["--compare", "small", "nano"], r"reports/small holds no numerics\.json"),
        (["--compare", bundle, tmp_path / "none"], "not a folder"),
        ([bundle, "--compare", bundle, bundle], "takes the two bundles itself"),
    ):
        with pytest.raises(BurnishError, match=says):
            run(*arguments)
