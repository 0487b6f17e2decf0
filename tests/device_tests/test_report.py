"""The page: self-contained, and alive in a browser."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from burnish.device_tests.gate import Gate
from burnish.device_tests.numerics import Numerics
from burnish.device_tests.pairs import Pair
from burnish.device_tests.protocol import Condition
from burnish.device_tests.report import render
from burnish.device_tests.samples import detail, whole
from burnish.device_tests.scores import Scorer
from burnish.device_tests.summary import summarise, worst_pictures
from burnish.device_tests.trajectory import Trajectory
from burnish.device_tests.validate import Validation
from numpy.typing import NDArray
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def validation(photo: NDArray[np.float32]) -> Validation:
    """Two iterations of a program that leaves a spot; it ran on a phone too, and there is a teacher."""
    clean = photo[100:400, 180:500]
    degraded = np.clip(clean * np.float32(0.6), 0, 1)
    spot = np.zeros_like(clean)
    spot[260:280, 10:30] = 0.2
    gates = ({"rain": 0.5},) * 2
    student = Trajectory((clean + np.float32(0.02), clean + np.float32(0.01)), None, ((0.3, 0.5, 0.6),), gates)
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
    return Validation(numerics=numerics, whole=shown[:1], details=shown[1:])


def test_the_page_holds_everything_and_fetches_nothing(validation: Validation) -> None:
    page = render(validation)
    assert page.count("<svg") == 2
    assert page.count("data:image/jpeg") == 2 * 4
    assert "&lt;rain&gt;" in page
    assert "<rain>" not in page
    for word in ("teacher", "on adb:1", "alarm", "failed", "unmeasured"):
        assert word in page, word
    rest = page
    for namespace in ("http://www.w3.org", "http://purl.org", "http://creativecommons.org", "https://matplotlib.org"):
        rest = rest.replace(namespace, "")
    assert "http://" not in rest
    assert "https://" not in rest
    assert ' src="data:' in page


def test_a_detail_is_where_program_and_student_differ_most(validation: Validation) -> None:
    (sample,) = validation.details
    assert sample.iteration == 2
    assert sample.drop_db > 1
    program, student = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(sample.images[name].partition(",")[2]))), np.float32)
        for name in ("program", "student")
    )
    assert program.shape == (192, 192, 3)
    assert (np.abs(program - student).mean(axis=2) > 50).sum() == pytest.approx(400, rel=0.2)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs it")
def test_sliders_and_choices_work_in_a_browser(validation: Validation, tmp_path: Path) -> None:
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
    page.write_text(render(validation).replace("<title>", probe + "<title>", 1))
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
