"""The page: self-contained, and alive in a browser."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from burnish.device_tests.compare import compare, describe
from burnish.device_tests.contents import NUMERICS, Contents, Pictures, known_of
from burnish.device_tests.devices import Identity
from burnish.device_tests.gate import Gate
from burnish.device_tests.markdown import markdown
from burnish.device_tests.numerics import Numerics
from burnish.device_tests.operations import Operation
from burnish.device_tests.pairs import Pair
from burnish.device_tests.perf import EMULATED, DevicePerf, Perf, ProgramPerf, Temperature, timing
from burnish.device_tests.protocol import Condition
from burnish.device_tests.report import render, write_report
from burnish.device_tests.samples import detail, whole
from burnish.device_tests.scores import Scorer
from burnish.device_tests.summary import summarise, worst_pictures
from burnish.device_tests.trajectory import Qualities, Trajectory
from burnish.runtime.bundle import EMBEDDED, Bundle
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Prospect
from numpy.typing import NDArray
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

QUALITIES = Qualities((0.3, 0.5), (0.5, 0.6), (0.0, 0.001), Prospect(1.0, 0.1, upright=True))


@pytest.fixture(scope="module")
def contents(photo: NDArray[np.float32]) -> Contents:
    """Two iterations of a program that leaves a spot; it ran on a phone too, and there is a teacher."""
    clean = photo[100:400, 180:500]
    degraded = np.clip(clean * np.float32(0.6), 0, 1)
    spot = np.zeros_like(clean)
    spot[260:280, 10:30] = 0.2
    gates = ({"rain": 0.5},) * 2
    student = Trajectory((clean + np.float32(0.02), clean + np.float32(0.01)), None, (QUALITIES,), gates)
    program = student._replace(pictures=(student.pictures[0] + spot, student.pictures[1] + 2 * spot))
    scorer = Scorer(Condition(name="<rain>", group="pairs", severities={}), Pair("a & b.png", degraded, clean), student)
    name = "executorch-xnnpack-int8"
    run = scorer.score(program, name)
    runs = [scorer.score_teacher(Trajectory((clean, clean))), scorer.student, run, scorer.score(program, name, "adb:1")]
    numerics = Numerics(
        **dict(summarise(runs, Gate(), 2)),
        bundle="photo.bundle",
        student="small",
        protocol_sha256="0" * 64,
        picture_set="a set",
        speed={name: "unmeasured"},
        worst=tuple(worst_pictures(runs)),
    )
    shown = whole(scorer, run, program, student), detail(scorer, run, program, student)
    pictures = Pictures(whole=shown[:1], details=shown[1:])
    perf = profiled(("host", 20.0), ("adb:1", 40.0), ("arm:cortex-a76", 3777.0))
    return Contents("photo.bundle", Bundle.open(EMBEDDED).manifest, numerics, pictures, perf)


def profiled(*devices: tuple[str, float]) -> Perf:
    """What `burnish profile` writes: one program on devices, at so many milliseconds an iteration; `arm` is emulated."""
    rows = []
    for name, ms in devices:
        emulated = name.startswith("arm")
        times = timing([ms / 2, ms / 2 + 1e-3])
        row = ProgramPerf(
            program="executorch-xnnpack-int8",
            sha256="0" * 64,
            runner="a runner",
            threads=2,
            note=EMULATED if emulated else "",
            encode=times,
            refine=times,
            iteration=timing([ms, ms + 1e-3]),
            drift=1.3,
            throttled=not emulated,
            load_cold_ms=5,
            load_warm_ms=2,
            first_run_ms=3,
            program_bytes=80 << 20,
            process_bytes=90 << 20,
            temperature=Temperature(before_c=40, after_c=44),
            operations=(
                Operation(
                    method="refine", name="Convolution (NHWC, QC8) IGEMM", count=9, ms=None if emulated else 7.25
                ),
            ),
            digest="0" * 16,
        )
        what = Identity(platform="linux-aarch64", model="<b>a | model</b>", emulated="qemu 10" if emulated else "")
        rows.append(DevicePerf(device=name, identity=what, programs=(row,)))
    rows.append(DevicePerf(device="ssh:gone", failure="ssh:gone: does not answer"))
    made = "2026-01-02T03:04:05+00:00"
    return Perf(bundle="photo.bundle", student="small", made=made, versions={"burnish": "1"}, devices=tuple(rows))


def test_the_page_holds_everything_and_fetches_nothing(contents: Contents) -> None:
    page = render(contents)
    assert page.count("<svg") == 3
    assert page.count("data:image/jpeg") == 2 * 4
    assert "&lt;rain&gt;" in page
    assert "<rain>" not in page
    for word in (
        "teacher",
        "on adb:1",
        "alarm",
        "failed",
        "unmeasured",
        "does not answer",
        "QC8",
        "slowed down",
        EMULATED,
    ):
        assert word in page, word
    rest = page
    for namespace in ("http://www.w3.org", "http://purl.org", "http://creativecommons.org", "https://matplotlib.org"):
        rest = rest.replace(namespace, "")
    assert "http://" not in rest
    assert "https://" not in rest
    assert ' src="data:' in page
    assert "<b>a |" not in page
    assert "20.00" in page
    assert "3777" not in page, "an emulator's time"


def test_what_was_not_measured_is_left_out(contents: Contents) -> None:
    only_times = render(Contents("x", perf=contents.perf))
    assert "Latency" in only_times
    assert "The gate" not in only_times
    only_accuracy = render(Contents("x", numerics=contents.numerics))
    assert "The gate" in only_accuracy
    assert "Latency" not in only_accuracy
    assert "Provenance" not in only_accuracy


def test_markdown_has_the_same_and_no_time_of_an_emulator(contents: Contents) -> None:
    text = markdown(contents)
    assert "| adb:1 | executorch-xnnpack-int8 | 2 | 40.0 |" in text
    assert "3777" not in text
    assert f"- arm:cortex-a76: executorch-xnnpack-int8: {EMULATED}" in text
    assert "Gate: **failed** by executorch-xnnpack-int8." in text
    assert "<" not in text
    for line in (line for line in text.splitlines() if line.startswith("|")):
        assert line.endswith("|")


def test_reports_are_read_back_and_those_of_another_bundle_left_out(contents: Contents, tmp_path: Path) -> None:
    assert contents.numerics is not None
    assert contents.perf is not None
    (tmp_path / NUMERICS).write_text(contents.numerics.model_dump_json())
    (tmp_path / "pictures.json").write_text(contents.pictures.model_dump_json())
    (tmp_path / "perf.json").write_text(contents.perf.model_copy(update={"bundle": "other.bundle"}).model_dump_json())
    known = known_of(tmp_path, tmp_path)
    assert known == Contents("photo.bundle", None, contents.numerics, contents.pictures, None)
    write_report(known, tmp_path)
    assert (tmp_path / "report.html").read_text() == render(known)
    assert (tmp_path / "report.md").read_text() == markdown(known)
    with pytest.raises(InputError, match=r"no numerics\.json and no perf\.json of small\.bundle"):
        known_of(EMBEDDED, tmp_path)
    (tmp_path / NUMERICS).write_text("{}")
    with pytest.raises(InputError, match=r"numerics\.json cannot be read .*burnish validate"):
        known_of(tmp_path, tmp_path)


def test_two_bundles_side_by_side(contents: Contents) -> None:
    same = compare(contents, contents)
    assert not same.regressed
    assert same.differences
    assert {row.verdict for row in same.differences} == {""}
    perf = profiled(("host", 22.0), ("adb:1", 30.0), ("arm:cortex-a76", 9999.0))
    assert contents.numerics is not None
    rows = contents.numerics.model_dump()["rows"]
    for row in rows:
        row["truth"]["psnr"] -= 0.2 if row["candidate"].startswith("executorch") and row["device"] is None else 0.0
    worse = Numerics.model_validate(contents.numerics.model_dump() | {"rows": rows})
    found = compare(contents, contents._replace(numerics=worse, perf=perf))
    assert found.regressed
    verdicts = {(row.measure, row.where): (row.verdict, row.change) for row in found.differences}
    place = "{}, executorch-xnnpack-int8, 2 threads"
    assert verdicts["iteration p50, ms", place.format("host")] == ("worse", "+10.0%")
    assert verdicts["iteration p50, ms", place.format("adb:1")] == ("better", "-25.0%")
    assert not any("arm" in where for _, where in verdicts)
    lost = [
        where for (measure, where), (verdict, _) in verdicts.items() if measure == "PSNR, dB" and verdict == "worse"
    ]
    assert lost
    assert all("executorch-xnnpack-int8, iteration" in where for where in lost)
    text = describe(found)
    assert "**worse**" in text
    assert "(before)" in text


def test_what_was_measured_otherwise_is_not_compared(contents: Contents) -> None:
    assert contents.numerics is not None
    other = contents.numerics.model_copy(update={"picture_set": "another set"})
    found = compare(contents, contents._replace(numerics=other, perf=None))
    assert {row.measure for row in found.differences} == {"program, MiB"}
    assert any("another set" in reason for reason in found.missing)
    assert any("burnish profile" in reason for reason in found.missing)


def test_a_detail_is_where_program_and_student_differ_most(contents: Contents) -> None:
    (sample,) = contents.pictures.details
    assert sample.iteration == 2
    assert sample.drop_db > 1
    program, student = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(sample.images[name].partition(",")[2]))), np.float32)
        for name in ("program", "student")
    )
    assert program.shape == (192, 192, 3)
    assert (np.abs(program - student).mean(axis=2) > 50).sum() == pytest.approx(400, rel=0.2)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs it")
def test_sliders_and_choices_work_in_a_browser(contents: Contents, tmp_path: Path) -> None:
    probe = """<script>
      window.onerror = message => { document.title = "ERROR " + message; };
      window.addEventListener("load", () => {
        const card = document.querySelector(".compare"), before = card.querySelector(".right").src;
        const input = card.querySelector("input");
        input.value = 25; input.dispatchEvent(new Event("input"));
        card.nextElementSibling.children[1].click();
        const wide = document.documentElement.scrollWidth > window.innerWidth;
        const loaded = [...document.images].every(image => image.naturalWidth > 0);
        document.title = ["DONE", card.style.getPropertyValue("--x"), card.querySelector(".righttag").textContent,
          card.querySelector(".right").src !== before, loaded, wide].join(" ");
      });
    </script>"""
    page = tmp_path / "report.html"
    page.write_text(render(contents).replace("<title>", probe + "<title>", 1))
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [*command, "--window-size=1180,2000", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
    )
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    assert title == "DONE 25% student true true false", done.stderr[-500:]
