"""`burnish serve`: a page on this machine where one drops a picture and watches it get better.

Bound to loopback unless told otherwise; sizes, rates and times are limited; nothing is written to disk or sent anywhere.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..runtime import BurnishError, InputError, Picture, Restorer, Stream, Update
from ..runtime.pictures import encode, read
from ..runtime.quality import quality_to_psnr
from ..runtime.tiles import Pixels
from .restore import REASONS, as_row

# Resolved: an editable install links every file.
PAGE = Path(__file__).resolve().parent / "page"
FILES = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for."""

    upload_mb: int = 40
    requests_a_minute: int = 30
    waiting: int = 4
    seconds: float = 60.0
    kept_results: int = 4


@dataclass
class _Rate:
    """Requests of every address over the last minute."""

    limit: int
    seen: dict[str, list[float]] = field(default_factory=dict)

    def allows(self, address: str) -> bool:
        now = time.monotonic()
        self.seen = {who: kept for who, times in self.seen.items() if (kept := [t for t in times if now - t < 60])}
        recent = self.seen.setdefault(address, [])
        if len(recent) >= self.limit:
            return False
        recent.append(now)
        return True


def build_app(restorer: Restorer, limits: Limits, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """The page and what it talks to. `hosts`: names it answers to, so that no other site's name can be pointed at it."""
    service = _Service(restorer, limits)
    pages = [Route(path, _file(name)) for path, name in FILES.items()]
    return Starlette(
        routes=[
            *pages,
            Route("/about", service.about),
            Route("/restore", service.restore, methods=["POST"]),
            Route("/picture/{token}/{name}", service.picture),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["[::1]" if h == "::1" else h for h in hosts]),
            Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
        ],
    )


def serve(restorer: Restorer, host: str, port: int, limits: Limits, ready: Callable[[str], None]) -> None:
    """Serve until interrupted. Raises InputError when the port cannot be had."""
    import socket

    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # whoever comes before the server is up waits
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {host}:{port} ({error.strerror}); give another --port or --host") from None
    hosts = LOOPBACK if host in LOOPBACK else (*LOOPBACK, host) if host not in ("0.0.0.0", "::") else ("*",)
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{listener.getsockname()[1]}/")
    app = build_app(restorer, limits, hosts)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run(sockets=[listener])


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return FileResponse(PAGE / name)

    return answer


async def _with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse what another site's page sends; add what keeps the page to itself."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return _refusal(403, f"requests from {origin} are not answered; open this page itself")
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


def _refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, HEADERS | ({"Retry-After": "10"} if status in (429, 503) else {}))


@dataclass
class _Shown:
    """A picture before and, once it is done, after."""

    before: Picture
    after: Picture | None = None


class _Service:
    def __init__(self, restorer: Restorer, limits: Limits) -> None:
        self._restorer, self._limits = restorer, limits
        self._rate = _Rate(limits.requests_a_minute)
        self._turn = asyncio.Semaphore(1)
        self._here = 0
        self._shown: OrderedDict[str, _Shown] = OrderedDict()

    async def about(self, _: Request) -> Response:
        """What runs here."""
        restorer, limits = self._restorer, self._limits
        return JSONResponse(
            {
                "program": restorer.program.name,
                "backend": restorer.backend,
                "chosen_because": restorer.chosen_because,
                "degradations": list(restorer.bundle.manifest.routing.leaves),
                "licence": restorer.bundle.manifest.licence,
                "upload_mb": limits.upload_mb,
                "seconds": limits.seconds,
                "reasons": REASONS,
            }
        )

    async def restore(self, request: Request) -> Response:
        """A picture comes in; lines of JSON go out as it gets better."""
        address = request.client.host if request.client else ""
        if not self._rate.allows(address):
            return _refusal(429, f"more than {self._limits.requests_a_minute} pictures a minute; wait a little")
        if self._here > self._limits.waiting:
            return _refusal(503, "too many pictures are waiting; try again in a while")
        try:
            options = self._options(request)
            picture = await asyncio.to_thread(read, io.BytesIO(await self._upload(request)))
        except ClientDisconnect:
            return Response(status_code=400)
        except BurnishError as error:
            return _refusal(413 if "MB" in str(error) else 400, str(error))
        return StreamingResponse(self._lines(picture, options), media_type="application/x-ndjson")

    async def picture(self, request: Request) -> Response:
        """before.jpg, or restored.png once it is there."""
        shown = self._shown.get(request.path_params["token"])
        name = request.path_params["name"]
        wanted = None if shown is None else {"before.jpg": shown.before, "restored.png": shown.after}.get(name)
        if wanted is None:
            return _refusal(404, "no such picture here any more; restore it again")
        suffix = Path(name).suffix
        data = await asyncio.to_thread(encode, wanted, suffix)
        return Response(data, media_type={".jpg": "image/jpeg", ".png": "image/png"}[suffix])

    def _options(self, request: Request) -> dict[str, Any]:
        """budget_ms, min_quality and max_iterations of the address. Raises InputError."""
        kinds: dict[str, type] = {"budget_ms": float, "min_quality": float, "max_iterations": int}
        options: dict[str, Any] = {}
        for name, text in request.query_params.items():
            try:
                options[name] = kinds[name](text)
            except (KeyError, ValueError):
                raise InputError(
                    f"{name}={text[:40]!r} is not understood; expected numbers for {', '.join(kinds)}"
                ) from None
        options["budget_ms"] = min(options.get("budget_ms", float("inf")), self._limits.seconds * 1e3)
        options["max_iterations"] = min(options.get("max_iterations", 4), 16)
        return options

    async def _upload(self, request: Request) -> bytes:
        """The body, as far as it is allowed to be long. Raises InputError."""
        most = self._limits.upload_mb << 20
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise InputError(f"the picture has more than {self._limits.upload_mb} MB; send a smaller one")
        return bytes(data)

    async def _lines(self, picture: Picture, options: dict[str, Any]) -> AsyncIterator[bytes]:
        stream: Stream | None = None
        shown = _Shown(picture)
        self._here += 1
        try:
            async with self._turn:
                token = self._remember(shown)
                height, width = picture.pixels.shape[:2]
                yield _line(event="start", token=token, width=width, height=height, notes=picture.notes)
                stream = self._restorer.stream(picture, **options)
                async for update in stream:
                    yield _line(event="update", **await asyncio.to_thread(_shown_update, update))
                shown.after = stream.result.picture
                yield _line(event="result", **as_row(stream.result))
        except BurnishError as error:
            yield _line(event="error", error=str(error))
        finally:
            self._here -= 1
            if stream is not None:  # the visitor may have stopped it
                stream.cancel()
                shown.after = stream.result.picture

    def _remember(self, shown: _Shown) -> str:
        token = secrets.token_urlsafe(16)
        self._shown[token] = shown
        while len(self._shown) > self._limits.kept_results:
            self._shown.popitem(last=False)
        return token


def _shown_update(update: Update) -> dict[str, Any]:
    return {
        "tile": update.tile,
        "iteration": update.iteration,
        "improved": update.improved,
        "region": list(update.region),
        "predicted_psnr_db": round(quality_to_psnr(update.quality), 2),
        "elapsed_ms": round(update.elapsed_ms, 1),
        "done": update.done,
        "tiles": update.tiles,
        "patch": _data_uri(update.patch) if update.improved else None,
    }


def _data_uri(pixels: Pixels) -> str:
    shallow = pixels if pixels.dtype.itemsize == 1 else (pixels // 257).astype("uint8")
    stream = io.BytesIO()
    Image.fromarray(shallow).save(stream, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _line(**row: Any) -> bytes:
    return json.dumps(row).encode() + b"\n"
