"""The page, in a real browser against a real server; and what the server refuses."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burnish.distill.degradations import degrade
from burnish.runtime import Restorer
from burnish.runtime.pictures import Picture, encode, read
from numpy.typing import NDArray

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def start(bundle: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A server on a free port, and its address."""
    command = [sys.executable, "-m", "burnish.cli.main", "serve", "--bundle", str(bundle), "--port", "0"]
    server = subprocess.Popen([*command, "--backend", "onnxruntime", *options], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said = ""
    for line in server.stderr:
        said += line
        if match := re.search(r"http://127\.0\.0\.1:\d+", said):
            return server, match[0]
    raise AssertionError(said)


def stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGINT)
    server.wait(20)
    assert server.stderr is not None
    server.stderr.close()


@pytest.fixture(scope="module")
def address(onnx_bundle: Path) -> Iterator[str]:
    server, address = start(onnx_bundle)
    yield address
    stop(server)


@pytest.fixture(scope="module")
def rainy(photo: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "rainy.png"
    path.write_bytes(encode(Picture(degrade(photo[100:260, 150:390], {"rain": 0.6}, seed=1)), ".png"))
    return path


def ask(address: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(address, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def rows(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_iterations_arrive_and_the_result_is_what_the_runtime_gives(
    address: str, rainy: Path, onnx_bundle: Path
) -> None:
    status, data = ask(f"{address}/restore?max_iterations=2", rainy.read_bytes())
    assert status == 200
    first, *updates, last = rows(data)
    assert (first["event"], first["width"], first["height"]) == ("start", 240, 160)
    assert len(updates) == len([e for e in last["trace"] if e["ran"] == "refine"])
    status, png = ask(f"{address}/picture/{first['token']}/restored.png")
    assert status == 200
    expected = Restorer.load(onnx_bundle, backend="onnxruntime").restore(rainy, max_iterations=2)
    np.testing.assert_array_equal(read(io.BytesIO(png)).pixels, expected.pixels)


def test_what_is_refused_is_refused_in_a_line(address: str, rainy: Path) -> None:
    data = rainy.read_bytes()
    for status, got in (
        (400, ask(f"{address}/restore", b"no picture")),
        (400, ask(f"{address}/restore?budget_ms=soon", data)),
        (400, ask(f"{address}/restore?speed=9", data)),
        (403, ask(f"{address}/restore", data, Origin="http://elsewhere.example")),
        (404, ask(f"{address}/picture/none/restored.png")),
        (400, ask(address, Host="elsewhere.example")),
        (404, ask(f"{address}/../../etc/passwd")),
        (404, ask(f"{address}/serve.py")),
    ):
        assert got[0] == status, got
        assert b"Traceback" not in got[1]
    failed = rows(ask(f"{address}/restore?min_quality=7", data)[1])[-1]
    assert failed["event"] == "error"
    assert "min_quality" in failed["error"]


def test_sizes_and_rates_are_limited(onnx_bundle: Path, rainy: Path) -> None:
    server, address = start(onnx_bundle, "--upload-mb", "1", "--a-minute", "3", "--seconds", "0.1")
    try:
        status, data = ask(f"{address}/restore", bytes(2 << 20))
        assert status == 413
        assert "1 MB" in json.loads(data)["error"]
        row = rows(ask(f"{address}/restore?budget_ms=60000", rainy.read_bytes())[1])[-1]
        assert row["elapsed_ms"] < 2000
        ask(f"{address}/restore", b"")
        assert ask(f"{address}/restore", rainy.read_bytes())[0] == 429
    finally:
        stop(server)


def test_a_port_in_use_is_one_line(address: str, onnx_bundle: Path) -> None:
    port = address.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "burnish.cli.main", "serve", "--bundle", str(onnx_bundle), "--port", port],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot listen on 127.0.0.1")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
def test_the_page_in_a_browser(address: str, rainy: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(180_000)  # on a machine that others use too
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith((address, "data:")) else None)
        page.goto(address)
        page.wait_for_selector("#about:has-text('onnx-fp32 on onnxruntime')")
        page.locator("#iterations").fill("2")
        page.set_input_files("#file", rainy)
        page.wait_for_selector("#status:has-text('stopped:')")
        assert page.locator("#trace tbody tr").count() >= 2
        assert page.locator("#found tbody tr").count() == 7
        assert "Stopped (" in page.locator("#reason").inner_text()

        shot = page.locator("#frame")
        views = []
        for at in ("0", "100", "50"):
            page.locator("#compare").fill(at)
            views.append(shot.screenshot())
        assert len(set(views)) == 3, "the slider does not change what is seen"
        with page.expect_download() as download:
            page.locator("#save").click()
        assert read(Path(download.value.path())).pixels.shape == (160, 240, 3)

        (tmp_path / "text.png").write_text("no picture")
        page.set_input_files("#file", tmp_path / "text.png")
        page.wait_for_selector("#status.error:has-text('no picture')")
        complaints = [line for line in complaints if "400" not in line]  # the browser notes the refusal
        large = np.tile(read(rainy).rgb, (8, 8, 1))  # of so many tiles that there is time to stop it
        (tmp_path / "large.jpg").write_bytes(encode(Picture(large), ".jpg"))
        page.locator("#iterations").fill("8")
        page.set_input_files("#file", tmp_path / "large.jpg")
        page.locator("#stop").click()
        page.wait_for_selector("#status:has-text('topped')")
        browser.close()
    assert not complaints
