"""An S3 server on the loopback for tests, which may go away and come back."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest


class Store:
    """An S3 server that can be stopped and started; what it holds stays."""

    def __init__(self) -> None:
        server = pytest.importorskip("moto.server", reason="needs moto[server]")
        self._server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        from moto import server

        self._server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()


def fetched(url: str, folder: Path) -> Path:
    """Copy what is below a URL into a folder, by s3fs itself."""
    files = fsspec.filesystem("s3", use_listings_cache=False)
    top = url.removeprefix("s3://")
    for name in files.find(top):
        file = folder / name[len(top) + 1 :]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(files.cat_file(name))
    return folder


def moved(tree: dict[str, str]) -> dict[str, str]:
    """Return a tree without `dataset.json`, which says where the pool is from there."""
    return {name: data for name, data in tree.items() if name != "dataset.json"}
