"""A web on the loopback that misbehaves on cue: the first part of a path says how.

`with Web({"a.jpg": data}) as web: web.url("/ok/a.jpg")` in a test; as a process of its own
`python webs.py FOLDER --port 0`, which prints its URL, then answers `/hits` and `POST /turn`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

DRIP_S = 0.5  # between the bytes of a slow server
SLOW_S = 0.02  # before the answer of /slow


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True
    block_on_close = False
    web: Web

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what is tested."""


class Web:
    """A server of these images, for as long as the block runs.

    Args:
        images: name → bytes, found at `/ok/NAME` and at what misbehaves with an image.
        host: "127.0.0.1" or "::1".

    Attributes:
        hits: path → how often it was asked.
        agents: the user agents that asked.
        most_at_once: the most requests that were answered at the same time, but for robots.txt.
        robots: the text of /robots.txt; None for 404, a number for that status.
    """

    def __init__(self, images: Mapping[str, bytes], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.images = dict(images)
        self.hits: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.most_at_once = 0
        self.robots: str | int | None = None
        self.turned = False
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.at_once = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = type("_Server", (_Server,), {"address_family": family})
        self.server = server((host, port), _Handler)
        self.server.web = self
        self.host, self.port = self.server.server_address[:2]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def url(self, path: str, *, host: str | None = None) -> str:
        """Return the URL of a path, at this server or at another name of it."""
        host = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}{path}"

    def turn(self) -> None:
        """Let time pass: /changed has another image from now on, and /gone none."""
        self.turned = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    counted = False  # among those that are answered now

    def log_message(self, format: str, *args: Any) -> None:
        """Keep no log."""

    def do_GET(self) -> None:
        web = self.server.web
        with web.lock:
            web.hits[self.path] += 1
            web.agents.add(self.headers["User-Agent"])
        kind, _, name = self.path.split("?")[0].strip("/").partition("/")
        if kind == "robots.txt":
            self._robots()
            return
        if kind == "hits":
            with web.lock:
                hits = dict(web.hits)
            self.answer(json.dumps(hits).encode())
            return
        self._come()
        try:
            BEHAVIOURS.get(kind, _status)(self, kind, name)
        finally:
            self._leave()

    def _come(self) -> None:
        web = self.server.web
        with web.lock:
            self.counted = True
            web.at_once += 1
            web.most_at_once = max(web.most_at_once, web.at_once)

    def _leave(self) -> None:
        with self.server.web.lock:
            self.server.web.at_once -= self.counted
            self.counted = False

    def do_POST(self) -> None:
        if self.path == "/turn":
            self.server.web.turn()
        self.answer(b"", status=200 if self.path == "/turn" else 404)

    def _robots(self) -> None:
        robots = self.server.web.robots
        if isinstance(robots, str):
            self.answer(robots.encode(), kind="text/plain")
        else:
            self.answer(b"", status=robots or 404)

    def head(self, status: int = 200, **headers: object) -> None:
        """Send a status and headers; `_` in their names stands for `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer(self, body: bytes, *, status: int = 200, kind: str = "image/jpeg", **headers: object) -> None:
        self.head(status, Content_Type=kind, Content_Length=len(body), **headers)
        self._leave()  # before the client has all, and may be here again
        self.wfile.write(body)

    def hang_up(self) -> None:
        self.close_connection = True

    def image(self, name: str, **headers: object) -> None:
        """Answer with an image, or with 404 where there is none of that name."""
        body = self.server.web.images.get(name)
        self.answer(body or b"", status=404 if body is None else 200, **headers)


def _status(handler: _Handler, kind: str, name: str) -> None:
    handler.answer(b"", status=int(kind) if kind.isdecimal() and len(kind) == 3 else 404)


def _failing_once(status: int, **headers: object) -> Callable[[_Handler, str, str], None]:
    def behave(handler: _Handler, kind: str, name: str) -> None:
        if handler.server.web.hits[handler.path] == 1:
            handler.answer(b"", status=status, **headers)
        else:
            handler.image(name)

    return behave


def _redirecting(location: str) -> Callable[[_Handler, str, str], None]:
    def behave(handler: _Handler, kind: str, name: str) -> None:
        handler.answer(b"", status=302, Location=location.replace("NAME", name))

    return behave


def _slow_loop(handler: _Handler, kind: str, name: str) -> None:
    time.sleep(DRIP_S / 2)
    handler.answer(b"", status=302, Location=f"/slow-loop/{name}")


def _endless(handler: _Handler, kind: str, name: str) -> None:
    handler.head()
    handler.hang_up()
    while not handler.server.web.closing.is_set():
        handler.wfile.write(bytes(1 << 16))


def _endless_chunks(handler: _Handler, kind: str, name: str) -> None:
    handler.head(Transfer_Encoding="chunked")
    while not handler.server.web.closing.is_set():
        handler.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


def _drip(handler: _Handler, kind: str, name: str) -> None:
    """Send a body a byte at a time, with its length or to the end of the connection."""
    if kind == "drip":
        handler.head(Content_Length=10_000)
    else:
        handler.head()
    _drop_by_drop(handler)


def _drip_headers(handler: _Handler, kind: str, name: str) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _drop_by_drop(handler)


def _drop_by_drop(handler: _Handler) -> None:
    handler.hang_up()
    while not handler.server.web.closing.wait(DRIP_S):
        handler.wfile.write(b"x")


def _hang(handler: _Handler, kind: str, name: str) -> None:
    handler.hang_up()
    handler.server.web.closing.wait()


def _slow(handler: _Handler, kind: str, name: str) -> None:
    time.sleep(SLOW_S)
    handler.image(name)


def _truncated(handler: _Handler, kind: str, name: str) -> None:
    data = handler.server.web.images[name]
    handler.answer(data[: len(data) // 2])


def _short(handler: _Handler, kind: str, name: str) -> None:
    data = handler.server.web.images[name]
    handler.head(Content_Length=len(data) + 1000)
    handler.wfile.write(data)
    handler.hang_up()


def _short_chunk(handler: _Handler, kind: str, name: str) -> None:
    handler.head(Transfer_Encoding="chunked")
    handler.wfile.write(b"10000\r\nonly this")
    handler.hang_up()


def _reset(handler: _Handler, kind: str, name: str) -> None:
    handler.hang_up()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())  # at once: the server would first say that it is done


def _garbage(handler: _Handler, kind: str, name: str) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    handler.hang_up()


def _deflate(handler: _Handler, kind: str, name: str) -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = packer.compress(handler.server.web.images[name]) + packer.flush()
    handler.answer(data, Content_Encoding="deflate")


def _changed(handler: _Handler, kind: str, name: str) -> None:
    """Answer with the image, or once time has turned with the one after it, so there must be two."""
    web = handler.server.web
    names = sorted(web.images)
    handler.image(names[(names.index(name) + web.turned) % len(names)])


def _gone(handler: _Handler, kind: str, name: str) -> None:
    handler.image("" if handler.server.web.turned else name)


def picture(seed: int = 0, *, kind: str = "JPEG", size: tuple[int, int] = (160, 120)) -> bytes:
    """Return a small image that no other seed gives: stripes of a few kilobytes."""
    image = Image.new("RGB", size, (seed * 37 % 256, seed * 91 % 256, 128))
    for x in range(0, size[0], 8):
        image.paste((x * seed % 256, x * 3 % 256, (x + seed) % 256), (x, 0, x + 4, size[1]))
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@cache
def bomb() -> bytes:
    """Return a PNG of a few kilobytes whose header says 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@cache
def gzip_bomb() -> bytes:
    """Return 64 MB of zeros as gzip of 64 kB: one block, again and again."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = struct.pack("<II", zlib.crc32(bytes(64_000_000)), 64_000_000)
    return gzip.compress(b"")[:10] + block * 64 + b"\x03\0" + end


_PAGE = b"<!doctype html><title>Not here</title><p>The image has moved." * 20

BEHAVIOURS: dict[str, Callable[[_Handler, str, str], None]] = {
    "ok": lambda handler, _, name: handler.image(name),
    "slow": _slow,
    "500-then-200": _failing_once(500),
    "429": _failing_once(429, Retry_After=1),
    "429-long": lambda handler, *_: handler.answer(b"", status=429, Retry_After=3600),
    "loop": _redirecting("/loop/NAME"),
    "slow-loop": _slow_loop,
    "redirect": _redirecting("/ok/NAME"),
    "private": _redirecting("http://10.0.0.1/NAME"),
    "metadata": _redirecting("http://169.254.169.254/latest/"),
    "file": _redirecting("file:///etc/passwd"),
    "endless": _endless,
    "endless-chunks": _endless_chunks,
    "drip": _drip,
    "drip-to-the-end": _drip,
    "drip-headers": _drip_headers,
    "hang": _hang,
    "wrong-type": lambda handler, _, name: handler.image(name, kind="text/html"),
    "html": lambda handler, *_: handler.answer(_PAGE),
    "truncated": _truncated,
    "short": _short,
    "short-chunk": _short_chunk,
    "bomb": lambda handler, *_: handler.answer(bomb(), kind="image/png"),
    "gzip": lambda handler, _, name: handler.answer(
        gzip.compress(handler.server.web.images[name]), Content_Encoding="gzip"
    ),
    "deflate": _deflate,
    "brotli": lambda handler, *_: handler.answer(b"whatever", Content_Encoding="br"),
    "gzip-bomb": lambda handler, *_: handler.answer(gzip_bomb(), Content_Encoding="gzip"),
    "noai": lambda handler, _, name: handler.image(name, X_Robots_Tag="noai"),
    "noai-other": lambda handler, _, name: handler.image(name, X_Robots_Tag="otherbot: noai"),
    "reset": _reset,
    "garbage": _garbage,
    "empty": lambda handler, *_: handler.answer(b""),
    "changed": _changed,
    "gone": _gone,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="its files are the images")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    images = {file.name: file.read_bytes() for file in sorted(options.folder.iterdir()) if file.is_file()}
    with Web(images, host=options.host, port=options.port) as web:
        print(web.url(""), flush=True)
        web.closing.wait()


if __name__ == "__main__":
    main()
