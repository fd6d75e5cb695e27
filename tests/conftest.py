"""What all tests share: a cache of their own, small pools of images, and the command line."""

from __future__ import annotations

import io
import logging
import lzma
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image
from processes import end_server
from stores import Store
from typer.testing import CliRunner, Result

from curate.io import stores

REPOSITORY = Path(__file__).resolve().parents[1]
# tench, crane (the bird), dog, cat, car, crane (the machine): two of them share a name.
TINY_IMAGES = 110  # of each class, of 250: enough to draw 100 from
WNIDS = ("n01440764", "n02012849", "n02084071", "n02121620", "n02958343", "n03126707")

pytest_plugins = ["campaigns"]


def pytest_unconfigure() -> None:
    end_server()


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests make out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CURATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared real data: CURATE_SHARED, or the one beside the repository; else skip."""
    folder = Path(os.environ.get("CURATE_SHARED") or REPOSITORY.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}: CURATE_SHARED names its folder")
    return folder


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give fsspec's store in memory, whose URLs are otherwise not opened."""
    monkeypatch.setattr(stores, "STORES", stores.STORES | {"memory"})
    return fsspec.filesystem("memory")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give Ray on a cluster of its own, whose workers find the module that asks; it ends with the module.

    Every test that starts Ray in its own process uses this: a second one would meet the first's cluster.
    """
    ray = pytest.importorskip("ray", reason="needs ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns of what it will do one day
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(request.path.parent), str(REPOSITORY / "tests" / "support")])
        )
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )  # fmt: skip
        yield ray
        ray.shutdown()


@pytest.fixture(scope="session")
def odd_files(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the awkward files of the shared data: `images/` of 830 and `tars/` of 68; to read, not to change."""
    folder = tmp_path_factory.mktemp("odd")
    with tarfile.open(shared / "data" / "odd-files.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "odd-files"


@pytest.fixture(scope="session")
def tiny(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack class folders of 64-pixel ImageNet, 85 of 110 images; to read, not to change."""
    archive = shared / "data" / "tiny-imagenet.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    folder = tmp_path_factory.mktemp("tiny")
    taken: Counter[str] = Counter()
    with lzma.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|") as stream:
        for member in stream:
            _, split, *rest = member.name.split("/")
            if split != "train" and taken:
                break
            if split == "train" and member.isfile() and taken[rest[0]] < TINY_IMAGES:
                taken[rest[0]] += 1
                data = stream.extractfile(member)
                assert data is not None
                (folder / rest[0]).mkdir(exist_ok=True)
                (folder / rest[0] / rest[1]).write_bytes(data.read())
    return folder


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    """Return a small JPEG that differs by its number: `jpeg(7, size=(40, 32), mode="RGB")`."""

    def encode(number: int, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> bytes:
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).resize(size).convert(mode).save(stream, "JPEG")
        return stream.getvalue()

    return encode


@pytest.fixture(scope="session")
def make_pool(jpeg: Callable[..., bytes]) -> Callable[..., Path]:
    """Write class folders of JPEGs: `make_pool(path, classes=WNIDS, images=10)`; return the path."""

    def write(path: Path, classes: tuple[str, ...] = WNIDS, images: int = 10) -> Path:
        for c, name in enumerate(classes):
            (path / name).mkdir(parents=True)
            for i in range(images):
                (path / name / f"{name}_{i}.jpg").write_bytes(jpeg(c * images + i))
        return path

    return write


@pytest.fixture(scope="session")
def pool(make_pool: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six wnid folders of ten JPEGs, for all tests to read and none to change."""
    return make_pool(tmp_path_factory.mktemp("pools") / "pool")


@pytest.fixture
def run_curate() -> Callable[..., Result]:
    """Run the command line in this process: `run_curate("build", recipe, "--out", out).exit_code`."""
    from train.cli.__main__ import app

    return lambda *args: CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def curate_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a user does, in a process of its own."""

    def run(*args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None):
        command = [sys.executable, "-m", "train.cli", *map(str, args)]
        environment = {**os.environ, **(env or {})}
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)

    return run


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """An S3 server; whatever speaks to S3 speaks to it."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        found = Store()
        patch.setenv("AWS_ENDPOINT_URL", found.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # of the client; ours come on top
        patch.setattr(stores, "WAIT_S", 0.01)
        patch.setattr("curate.io.byte_ranges.WAIT_S", 0.01)
        s3fs.S3FileSystem.clear_instance_cache()  # which would go on speaking to another test's server
        yield found
        found.stop()


@pytest.fixture
def bucket(store: Store, tmp_path: Path) -> Iterator[str]:
    """An empty bucket: its URL."""
    name = "b-" + "".join(c for c in tmp_path.name.lower() if c.isalnum())[-40:]
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.mkdir(name)
    yield f"s3://{name}"
    files.rm(name, recursive=True)
