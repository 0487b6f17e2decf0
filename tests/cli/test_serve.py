"""The page, in a real browser against a real server; and what the server refuses."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from burnish.distill.degradations import degrade
from burnish.runtime import Restorer
from burnish.runtime.pictures import Picture, encode, read
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Trained, so that there is something to show: an untrained student improves nothing.
BUNDLE = "nano"
COMMAND = ("-m", "burnish.cli.main", "serve", "--bundle", BUNDLE, "--backend", "onnxruntime", "--port", "0")
# What only one who builds the page himself may set.
IMPATIENT = """
import sys
from burnish.cli.serve import Limits, serve
from burnish.runtime import Restorer
restorer = Restorer.load(sys.argv[1], backend="onnxruntime")
limits = Limits(patience=1, upload_seconds=2, kept_mb=1)
try:
    serve(restorer, "127.0.0.1", 0, limits, lambda address: print(address, file=sys.stderr))
except KeyboardInterrupt:
    sys.exit(130)
"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """The address of a server on a free port; it is interrupted in the end, and that is to be quick and quiet."""
    # Whoever runs the tests in the background has interrupts ignored, which a new process takes over.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    server = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, preexec_fn=heeding)
    assert server.stderr is not None
    with server.stderr:
        said = ""
        for line in server.stderr:
            said += line
            if match := re.search(r"http://127\.0\.0\.1:\d+", said):
                break
        else:
            raise AssertionError(said)
        try:
            yield match[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
        assert "Traceback" not in server.stderr.read()
        assert server.returncode == 130


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(*COMMAND) as address:
        yield address


@pytest.fixture(scope="module")
def rainy(photo: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "rainy.png"
    path.write_bytes(encode(Picture(degrade(photo[100:260, 150:390], {"rain": 0.6}, seed=1)), ".png"))
    return path


@pytest.fixture(scope="module")
def large(rainy: Path) -> Path:
    """Of so many tiles that there is time to do something about it."""
    path = rainy.with_name("large.jpg")
    path.write_bytes(encode(Picture(np.tile(read(rainy).pixels, (12, 12, 1))), ".jpg"))
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


@contextmanager
def sending(address: str, length: int) -> Iterator[socket.socket]:
    """A connection on which a picture of so many bytes may be sent to /restore: the server has begun to wait for it."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # soon full when nobody reads
        connection.settimeout(60)
        host, _, port = urlsplit(address).netloc.partition(":")
        connection.connect((host, int(port)))
        head = f"POST /restore HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        yield connection


def read_until(connection: socket.socket, text: bytes) -> bytes:
    """What comes until `text` has come."""
    data = b""
    while text not in data and (more := connection.recv(4096)):
        data += more
    return data


def in_srgb(data: bytes) -> NDArray[np.float64]:
    """A picture file's pixels as a viewer that minds its profile shows them."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    shown = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    assert shown is not None
    return np.asarray(shown, np.float64)


def test_iterations_arrive_and_the_result_is_what_the_runtime_gives(address: str, rainy: Path) -> None:
    status, data = ask(f"{address}/restore?max_iterations=2", rainy.read_bytes())
    assert status == 200
    first, *updates, last = rows(data)
    assert (first["event"], first["width"], first["height"]) == ("start", 240, 160)
    assert len(updates) == len([e for e in last["trace"] if e["ran"] == "refine"])
    status, png = ask(f"{address}/picture/{first['token']}/restored.png")
    assert status == 200
    expected = Restorer.load(BUNDLE, backend="onnxruntime").restore(rainy, max_iterations=2)
    np.testing.assert_array_equal(read(io.BytesIO(png)).pixels, expected.pixels)
    assert (expected.pixels != read(rainy).pixels).any()


def test_a_grey_picture_is_shown_grey_as_it_will_be_saved(address: str, rainy: Path) -> None:
    grey = io.BytesIO()
    Image.open(rainy).convert("LA").save(grey, "PNG")
    first, update, *_ = rows(ask(f"{address}/restore?max_iterations=1", grey.getvalue())[1])
    before = ask(f"{address}/picture/{first['token']}/before.jpg")[1]
    patch = base64.b64decode(update["patch"].partition(",")[2])
    assert [Image.open(io.BytesIO(jpeg)).mode for jpeg in (before, patch)] == ["L", "L"]


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


def test_sizes_rates_and_times_are_limited(rainy: Path, large: Path) -> None:
    with serving(*COMMAND, "--upload-mb", "4", "--a-minute", "3", "--seconds", "0.2") as address:
        status, data = ask(f"{address}/restore", bytes(5 << 20))
        assert status == 413
        assert "4 MB" in json.loads(data)["error"]
        row = rows(ask(f"{address}/restore?budget_ms=60000&max_iterations=9", large.read_bytes())[1])[-1]
        assert row["reason"] == "budget"
        assert row["elapsed_ms"] < 2000  # a round of it takes longer
        ask(f"{address}/restore", b"")
        assert ask(f"{address}/restore", rainy.read_bytes())[0] == 429


def test_no_more_may_send_pictures_than_may_wait(address: str, rainy: Path) -> None:
    with ExitStack() as stack:
        one, *_ = [stack.enter_context(sending(address, 10)) for _ in range(5)]  # one to be served, four to wait
        status, data = ask(f"{address}/restore", rainy.read_bytes())
        assert status == 503
        assert "waiting" in json.loads(data)["error"]
        one.sendall(b"no picture")
        assert read_until(one, b"}").startswith(b"HTTP/1.1 400")
        assert ask(f"{address}/restore", rainy.read_bytes())[0] == 200


@pytest.fixture(scope="module")
def impatient() -> Iterator[str]:
    with serving("-c", IMPATIENT, BUNDLE) as address:
        yield address


def test_whoever_stops_reading_loses_his_turn(impatient: str, rainy: Path, large: Path) -> None:
    data = large.read_bytes()
    with sending(impatient, len(data)) as idle:
        idle.sendall(data)
        read_until(idle, b'"update"')
        assert rows(ask(f"{impatient}/restore?max_iterations=1", rainy.read_bytes())[1])[-1]["event"] == "result"
        assert b'"result"' not in read_until(idle, b'"result"')


def test_whoever_stops_sending_is_answered(impatient: str) -> None:
    with sending(impatient, 10) as idle:
        assert b"not here after 2 s" in read_until(idle, b"}")


def test_results_are_kept_while_there_is_room(impatient: str, rainy: Path, large: Path) -> None:
    tokens = [
        rows(ask(f"{impatient}/restore?max_iterations=0", path.read_bytes())[1])[0]["token"]
        for path in (rainy, rainy, large)
    ]
    # The small ones had room beside each other, and the last is kept whatever it takes.
    assert [ask(f"{impatient}/picture/{token}/before.jpg")[0] for token in tokens] == [404, 404, 200]
    both = [rows(ask(f"{impatient}/restore?max_iterations=0", rainy.read_bytes())[1])[0]["token"] for _ in range(2)]
    assert [ask(f"{impatient}/picture/{token}/before.jpg")[0] for token in (tokens[-1], *both)] == [404, 200, 200]


def test_an_interrupt_ends_what_runs_and_what_waits(large: Path) -> None:
    data = large.read_bytes()
    with ExitStack() as visitors, serving(*COMMAND) as address:
        for _ in range(2):
            visitor = visitors.enter_context(sending(address, len(data)))
            visitor.sendall(data)
        visitors.enter_context(sending(address, len(data)))


def test_a_port_in_use_is_one_line(address: str) -> None:
    port = address.rpartition(":")[2]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "burnish.cli.main",
            "serve",
            "--bundle",
            BUNDLE,
            "--backend",
            "onnxruntime",
            "--port",
            port,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot listen on 127.0.0.1")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, opened; nothing may go wrong in it, and it may ask nobody but its server."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(180_000)  # on a machine that others use too
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith((address, "data:")) else None)
    page.goto(address)
    page.wait_for_selector("#about:has-text('onnx-fp32 on onnxruntime')")
    yield page
    page.close()
    assert not [line for line in complaints if "400" not in line]  # the browser notes what is refused


SEEN = np.s_[8:120, 8:-8]


def views(page: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is seen before and after, without the labels, the divider and the frame's edge."""
    seen: list[NDArray[np.float64]] = []
    for at in ("100", "0"):
        page.locator("#compare").fill(at)
        shot = Image.open(io.BytesIO(page.locator("#frame").screenshot())).convert("RGB")
        seen.append(np.asarray(shot, np.float64)[SEEN])
    return seen[0], seen[1]


def saved(page: Any) -> bytes:
    with page.expect_download() as download:
        page.locator("#save").click()
    return Path(download.value.path()).read_bytes()


def test_the_page_shows_before_and_after_and_saves(page: Any, rainy: Path, tmp_path: Path) -> None:
    page.locator("#iterations").fill("2")
    page.set_input_files("#file", rainy)
    page.wait_for_selector("#status:has-text('stopped:')")
    assert page.locator("#trace tbody tr").count() >= 2
    assert page.locator("#found tbody tr").count() == 7
    assert "Stopped (" in page.locator("#reason").inner_text()
    before, after = views(page)
    result = read(io.BytesIO(saved(page))).pixels
    for seen, pixels in ((before, read(rainy).pixels), (after, result)):
        assert np.abs(seen - pixels[SEEN]).mean() < 6
    assert np.abs(before - after).mean() > 12

    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "text.png")
    page.wait_for_selector("#status.error:has-text('no picture')")


def test_the_page_shows_colours_by_the_pictures_profile(page: Any, rainy: Path, tmp_path: Path) -> None:
    """A profile that takes red for green: without it a picture is seen to be another."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    pixels = read(rainy).pixels
    file = encode(Picture(pixels, icc_profile=swapped), ".png")
    (tmp_path / "swapped.png").write_bytes(file)
    page.locator("#iterations").fill("1")
    page.set_input_files("#file", tmp_path / "swapped.png")
    page.wait_for_selector("#status:has-text('stopped:')")
    for seen, data in zip(views(page), (file, saved(page)), strict=True):
        assert np.abs(seen - in_srgb(data)[SEEN]).mean() < 6
    assert np.abs(in_srgb(file) - pixels).mean() > 12


def test_the_page_scales_both_sides_alike(page: Any, large: Path) -> None:
    page.locator("#iterations").fill("0")
    page.set_input_files("#file", large)
    page.wait_for_selector("#status:has-text('stopped:')")
    before, after = views(page)
    assert np.abs(before - after).mean() < 2


def test_stop_stops_the_server_too(page: Any, address: str, rainy: Path, large: Path) -> None:
    page.locator("#iterations").fill("1")
    page.set_input_files("#file", large)
    page.wait_for_selector("#status:has-text('tile ')")
    page.locator("#stop").click()
    page.wait_for_selector("#status:has-text('Stopped;')")
    # Served in turn: what was going on has ended, and with the iteration done everything would be changed.
    assert rows(ask(f"{address}/restore", rainy.read_bytes())[1])[-1]["event"] == "result"
    changed = (read(io.BytesIO(saved(page))).pixels != read(large).pixels).any(axis=2)
    assert 0 < changed.mean() < 0.9
