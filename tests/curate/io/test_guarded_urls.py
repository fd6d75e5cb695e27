"""http and https that a file of anybody names are read from the public internet alone, as `fetch` does."""

from __future__ import annotations

import io
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from strangers import reseal
from webs import Web, picture

from curate.builds.build import build
from curate.builds.sharding import shard
from curate.datasets.dataset import Dataset, open_dataset
from curate.datasets.exports import export
from curate.datasets.verification import check
from curate.errors import CurateError, DataError
from curate.io import stores
from curate.io.byte_ranges import ByteRangeReader
from curate.io.paths import RemotePath
from curate.io.web.sessions import LOOPBACK
from curate.recipes.recipe import parse
from curate.sources import open_source

pytest.importorskip("aiohttp", reason="needs aiohttp")
TABLE = b"url,caption\nhttp://a.example/1.jpg,a cat\n"


def tar(*images: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number, image in enumerate(images):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))
    return stream.getvalue()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.delenv(LOOPBACK, raising=False)
    monkeypatch.setattr(stores, "WAIT_S", 0.001)
    with Web({"t.csv": TABLE, "a.jpg": picture(1), "a.tar": tar(picture(1), picture(2))}) as web:
        yield web


def pointing(dataset: Dataset, url: str, size: int) -> Path:
    def rows(found: list[dict[str, Any]]) -> None:
        del found[1:]
        found[0] |= {"file": url, "offset": 0, "size": size}

    return reseal(dataset.path, rows)


@pytest.mark.parametrize(
    ("host", "said"),
    [(None, "refused address"), ("localhost", "refused address"), ("0.0.0.0", "refused address"),
     ("[::1]", "`::`|never opened")],
)  # fmt: skip
def test_a_server_of_this_machine_is_not_asked(
    host: str | None, said: str, web: Web, built: Callable[..., Dataset], tmp_path: Path
) -> None:
    url = web.url("/ok/", host=host)
    folder = pointing(built([]), f"{url}a.jpg", 5)
    for use in (
        lambda: open_source({"table": f"{url}t.csv"}),
        lambda: open_source({"shards": f"{url}a.tar"}),
        lambda: open_source({"dataset": f"{url}set"}),
        lambda: check([f"{url}a.tar"]),
        lambda: RemotePath(f"{url}a.jpg").exists(),
        lambda: ByteRangeReader(tmp_path).read(f"{url}a.jpg", 0, 5),
        lambda: shard(folder),
        lambda: build(parse({"name": "b", "source": {"dataset": str(folder)}}), tmp_path / "b"),
        lambda: export(folder, ["parquet"], tmp_path / "copy"),
    ):
        with pytest.raises(CurateError, match=said):
            use()
    assert not web.hits


def test_who_means_his_own_server_says_so(
    web: Web, monkeypatch: pytest.MonkeyPatch, built: Callable[..., Dataset], tmp_path: Path,
    run_curate: Callable[..., Any],
) -> None:  # fmt: skip
    monkeypatch.setenv(LOOPBACK, "0")  # which the option sets, and this takes back at the end
    folder = pointing(built([]), web.url("/ok/a.jpg"), len(picture(1)))
    refused = run_curate("shard", folder, "-q")
    assert refused.exit_code == 3
    assert "--allow-loopback" in refused.stderr
    taken = run_curate("shard", folder, "-q", "--allow-loopback")
    assert taken.exit_code == 0
    assert f"{folder}: its images lie outside of its folder, in {web.url('')}\n" in taken.stderr
    with ByteRangeReader(folder) as reader:
        row = open_dataset(folder).table().to_pylist()[0]
        assert reader.read(row["file"], row["offset"], row["size"]) == picture(1)
    assert open_source({"table": web.url("/ok/t.csv")}).columns["url"] == "VARCHAR"
    tars = open_source({"shards": web.url("/ok/a.tar")})
    assert tars.index(fingerprint=tars.fingerprint()).rows == 2


class Ranges(BaseHTTPRequestHandler):
    """Answers with the part of a tar that is asked for."""

    data = tar(picture(1), picture(2))

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/a.tar" else 404)
        self.send_header("Content-Length", str(len(self.data)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self) -> None:
        if self.path != "/a.tar":
            self.send_error(404)
            return
        asked = self.headers.get("Range", f"bytes=0-{len(self.data) - 1}")
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        part = self.data[first : last + 1]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(self.data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Keep no log."""


def test_tars_are_read_from_a_web_server_by_ranges(
    monkeypatch: pytest.MonkeyPatch, run_curate: Callable[..., Any], tmp_path: Path
) -> None:
    monkeypatch.setenv(LOOPBACK, "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/a.tar"
        assert (found := run_curate("verify", url)).exit_code == 0, found.stdout + found.stderr
        [made] = build(parse({"name": "b", "source": {"shards": url}}), tmp_path / "b")
        server.shutdown()
    with made.dataset.reader() as reader:
        rows = made.dataset.table().to_pylist()
        found = {row["key"]: reader.read(row["file"], row["offset"], row["size"]) for row in rows}
    assert found == {"0": picture(1), "1": picture(2)}


def test_no_other_private_address_is_permitted_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOOPBACK, "1")
    for host in ("10.0.0.1", "169.254.169.254", "192.168.1.1", "[fd00:0:0:0:0:0:0:1]", "0.0.0.0"):
        with pytest.raises(DataError, match="refused address"):
            RemotePath(f"http://{host}/x").read_bytes()


def test_a_name_is_as_good_as_its_address(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    names = {"inside.example": ["10.0.0.1"], "mixed.example": ["93.184.215.14", "127.0.0.1"]}

    def getaddrinfo(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        found = names.get(host, [host])
        return [row for address in found for row in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for host in names:
        with pytest.raises(DataError, match=rf"refused address: {host} is"):
            RemotePath(web.url("/ok/a.jpg", host=host)).read_bytes()
    assert not web.hits


@pytest.mark.parametrize("kind", ["private", "metadata", "file"])
def test_a_redirect_leads_nowhere_else(kind: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ip_address("127.0.0.1")
    monkeypatch.setattr("curate.io.web.addresses.public", lambda ip: ip == real)
    assert RemotePath(web.url("/redirect/a.jpg")).read_bytes() == picture(1)
    with pytest.raises(DataError, match="store failed" if kind == "file" else "refused address"):
        RemotePath(web.url(f"/{kind}/a.jpg")).read_bytes()


def test_no_more_is_read_than_was_asked_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOOPBACK, "1")
    monkeypatch.setattr("curate.io.web.sessions.MAX_BODY_BYTES", 100_000)
    for kind in ("endless", "endless-chunks"):
        with pytest.raises(DataError, match="sends more than the 11 bytes"):
            ByteRangeReader("/").read(web.url(f"/{kind}/a.jpg"), 0, 10)
        with pytest.raises(DataError, match="sends more than the 100,000 bytes"):
            RemotePath(web.url(f"/{kind}/a.jpg")).read_bytes()


def test_nothing_is_written_to_a_web_server(built: Callable[..., Dataset]) -> None:
    recipe = parse({"name": "b", "source": {"dataset": str(built([]).path)}})
    with pytest.raises(CurateError):
        build(recipe, "http://a.example/x")


def test_an_aiohttp_that_cannot_be_held_to_it_is_not_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    import aiohttp

    class Old(aiohttp.TCPConnector):
        def __init__(self, *, resolver: Any = None) -> None:
            pytest.fail("used")

    monkeypatch.setattr(aiohttp, "TCPConnector", Old)
    from fsspec.implementations.http import HTTPFileSystem

    HTTPFileSystem.clear_instance_cache()
    with pytest.raises(CurateError, match=r"aiohttp .* is too old"):
        RemotePath(web.url("/ok/a.jpg")).read_bytes()
    HTTPFileSystem.clear_instance_cache()
