"""`burnish serve`: a page on this machine where one drops a picture and watches it get better.

Bound to loopback unless told otherwise; sizes, rates and times are limited; nothing is written to disk or sent anywhere.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from anyio import fail_after
from PIL import Image, ImageCms
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..runtime import BurnishError, InputError, Picture, Restorer, Stream, Update
from ..runtime.pictures import encode, read, to_array, to_eight_bits
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
    """What visitors may ask for: one is served at a time, `waiting` more may send pictures and wait for their turn.

    `patience`: how many seconds a visitor who stops reading is waited for.
    """

    upload_mb: int = 40
    upload_seconds: float = 60.0
    requests_a_minute: int = 30
    waiting: int = 4
    seconds: float = 60.0
    patience: float = 10.0
    kept_mb: int = 512


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
            Route("/restore", service.restore, methods=["POST"], middleware=[Middleware(_Door, limits=limits)]),
            Route("/picture/{token}/{name}", service.picture),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["[::1]" if h == "::1" else h for h in hosts]),
            Middleware(_OwnPageOnly),
        ],
    )


def serve(restorer: Restorer, host: str, port: int, limits: Limits, ready: Callable[[str], None]) -> None:
    """Serve until interrupted. Raises InputError when the port cannot be had."""
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
    _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends without a word about the answers it cuts short: whoever interrupts it asked for that."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").disabled = True
        await super().shutdown(sockets)


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return FileResponse(PAGE / name)

    return answer


class _OwnPageOnly:
    """Refuses what another site's page sends; adds what keeps the page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._app
        headers = Headers(raw=scope.get("headers", []))
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            answer = _refusal(403, f"requests from {origin} are not answered; open this page itself")
        await answer(scope, receive, with_headers)


class _Door:
    """Lets so many pictures a minute and so many at a time through, counted before they are sent until all is answered."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._rate = _Rate(limits.requests_a_minute)
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._refusal(scope) or self._app
        self._inside += 1
        try:
            await answer(scope, receive, send)
        finally:
            self._inside -= 1

    def _refusal(self, scope: Scope) -> Response | None:
        limits = self._limits
        address = scope["client"][0] if scope.get("client") else ""
        if not self._rate.allows(address):
            return _refusal(429, f"more than {limits.requests_a_minute} pictures a minute; wait a little")
        if self._inside > limits.waiting:
            return _refusal(503, "too many pictures are waiting; try again in a while")
        return None


class _Lines(StreamingResponse):
    """Lines of JSON for a visitor who reads them; whoever takes none for `patience` seconds is left."""

    def __init__(self, lines: AsyncGenerator[bytes, None], patience: float) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._lines, self._patience = lines, patience

    async def stream_response(self, send: Send) -> None:
        async def in_time(message: Message) -> None:
            with fail_after(self._patience):
                await send(message)

        async with aclosing(self._lines):  # so that the turn ends here, not when the generator is collected
            with suppress(TimeoutError):
                await super().stream_response(in_time)


def _refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, {"Retry-After": "10"} if status in (429, 503) else None)


@dataclass
class _Shown:
    """A picture before and, once it is done, after."""

    before: Picture
    after: Picture | None = None

    @property
    def nbytes(self) -> int:
        """What both pictures take, the second of which may be still to come."""
        alpha = self.before.alpha
        return 2 * self.before.pixels.nbytes + (0 if alpha is None else alpha.nbytes)

    @cached_property
    def _to_srgb(self) -> ImageCms.ImageCmsTransform | None:
        """None without a profile and for one that is damaged or of other channels, which browsers leave aside too."""
        profile, mode = self.before.icc_profile, "L" if self.before.grey else "RGB"
        if profile is None:
            return None
        with suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None

    def jpeg(self, pixels: Pixels) -> bytes:
        """Pixels of either picture for the screen: in sRGB, which before, after and every browser have in common."""
        planes = to_eight_bits(to_array(replace(self.before, pixels=pixels, alpha=None)))
        image = Image.fromarray(planes.squeeze(2) if self.before.grey else planes)
        if self._to_srgb is not None:
            image = self._to_srgb.apply(image)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=92, subsampling=0)
        return stream.getvalue()


class _TooLarge(InputError):
    """An upload of more bytes than are taken."""


class _Service:
    def __init__(self, restorer: Restorer, limits: Limits) -> None:
        self._restorer, self._limits = restorer, limits
        self._turn = asyncio.Semaphore(1)
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
        try:
            options = self._options(request)
            picture = await asyncio.to_thread(read, io.BytesIO(await self._upload(request)))
        except ClientDisconnect:
            return Response(status_code=400)
        except _TooLarge as error:
            return _refusal(413, str(error))
        except BurnishError as error:
            return _refusal(400, str(error))
        return _Lines(self._lines(picture, options), self._limits.patience)

    async def picture(self, request: Request) -> Response:
        """before.jpg, or restored.png once it is there."""
        shown = self._shown.get(request.path_params["token"])
        name = request.path_params["name"]
        if shown is not None and name == "before.jpg":
            return Response(await asyncio.to_thread(shown.jpeg, shown.before.pixels), media_type="image/jpeg")
        if shown is not None and shown.after is not None and name == "restored.png":
            return Response(await asyncio.to_thread(encode, shown.after, ".png"), media_type="image/png")
        return _refusal(404, "no such picture here any more; restore it again")

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
        """The body, as far as it is allowed to be long and to take. Raises InputError."""
        limits, data = self._limits, bytearray()
        try:
            with fail_after(limits.upload_seconds):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > limits.upload_mb << 20:
                        raise _TooLarge(f"the picture has more than {limits.upload_mb} MB; send a smaller one")
        except TimeoutError:
            took = f"the picture was not here after {limits.upload_seconds:g} s"
            raise InputError(f"{took}; send a smaller one or over a faster network") from None
        return bytes(data)

    async def _lines(self, picture: Picture, options: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        stream: Stream | None = None
        shown = _Shown(picture)
        try:
            async with self._turn:
                token = self._remember(shown)
                height, width = picture.pixels.shape[:2]
                yield _line(event="start", token=token, width=width, height=height, notes=picture.notes)
                stream = self._restorer.stream(picture, **options)
                async for update in stream:
                    yield _line(event="update", **await asyncio.to_thread(_shown_update, update, shown))
                shown.after = stream.result.picture
                yield _line(event="result", **as_row(stream.result))
        except BurnishError as error:
            yield _line(event="error", error=str(error))
        finally:
            if stream is not None:  # the visitor may have stopped it
                stream.cancel()
                shown.after = stream.result.picture

    def _remember(self, shown: _Shown) -> str:
        token = secrets.token_urlsafe(16)
        self._shown[token] = shown
        while len(self._shown) > 1 and sum(kept.nbytes for kept in self._shown.values()) > self._limits.kept_mb << 20:
            self._shown.popitem(last=False)
        return token


def _shown_update(update: Update, shown: _Shown) -> dict[str, Any]:
    return {
        "tile": update.tile,
        "iteration": update.iteration,
        "improved": update.improved,
        "region": list(update.region),
        "predicted_psnr_db": round(quality_to_psnr(update.quality), 2),
        "elapsed_ms": round(update.elapsed_ms, 1),
        "done": update.done,
        "tiles": update.tiles,
        "patch": _data_uri(shown.jpeg(update.patch)) if update.improved else None,
    }


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _line(**row: Any) -> bytes:
    return json.dumps(row).encode() + b"\n"
