"""Every odd file goes through source, lint, gallery and decoding: it works, or it is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curate.io.images import MAX_PIXELS

WALK = Path(__file__).parents[2] / "support" / "odd_walk.py"
KINDS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
SECONDS_PER_FILE = 30  # of the processor
PEAK_BYTES = 1_000_000_000


@pytest.fixture(scope="module")
def walked(odd_files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the odd files, in a process of their own."""
    command = [sys.executable, str(WALK), str(odd_files), str(tmp_path_factory.mktemp("walk"))]
    environment = {**os.environ, "PYTHONPATH": str(WALK.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""  # no library talks past us
    return json.loads(done.stdout)


def test_no_file_takes_long_or_much_memory(walked: dict[str, Any]) -> None:
    assert walked["peak_bytes"] < PEAK_BYTES
    assert walked["slowest"][1] < SECONDS_PER_FILE, walked["slowest"]


def test_every_image_decodes_or_has_a_reason(walked: dict[str, Any], odd_files: Path) -> None:
    assert len(walked["decoded"]) == 830
    refused = {name for name, reason in walked["decoded"].items() if reason}
    assert len(refused) < 150
    assert "no reason" not in walked["decoded"].values()
    unfit = {name for name, reason in walked["decoded"].items() if reason.startswith("no 8-bit pixels")}
    assert len(unfit) == 6  # Pillow takes some of them, and clips
    taken = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in walked["decoded"]:
            try:
                with Image.open(odd_files / "images" / name, formats=KINDS) as image:
                    if image.width * image.height > MAX_PIXELS:
                        continue
                    image.convert("RGB")
            except Exception:  # whatever it is that Pillow does not read
                continue
            assert name not in refused - unfit, walked["decoded"][name]
            taken += 1
    assert taken > 650


def test_folder_takes_or_counts_every_file(walked: dict[str, Any]) -> None:
    folder = walked["folder"]
    assert len(folder["files"]) + sum(folder["left_out"].values()) == 830
    assert folder["left_out"]["not an image"] > 20


def test_gallery_shows_every_row_or_its_reason(walked: dict[str, Any]) -> None:
    files = walked["folder"]["files"]
    broken = [f for f in files if walked["decoded"][f]]
    assert broken
    assert walked["gallery"] == {"figures": len(files), "broken": len(broken)}


def test_lint_decodes_or_names_every_image(walked: dict[str, Any]) -> None:
    counts, images = walked["packed"]["counts"], walked["packed"]["images"]
    assert sum(images.values()) + counts["undecodable image"] + counts["oversize image"] == len(
        walked["taken"]
    )
    refused = [name for name in walked["taken"] if walked["decoded"][name]]
    # An image that only fails while it is made RGB is sound to the lint.
    assert counts["undecodable image"] + counts["oversize image"] <= len(refused)
    assert counts["oversize image"] >= 3
    assert set(images) == {"jpg", "png", "gif", "bmp", "tiff", "webp"}


def test_every_tar_is_refused_by_name_as_a_source(walked: dict[str, Any]) -> None:
    assert len(walked["sources"]) == len(walked["lints"]) == 68
    for name, reason in walked["sources"].items():
        assert name in reason  # none of them holds an image


def test_lint_names_the_tars_that_gnu_tar_refuses(walked: dict[str, Any], odd_files: Path) -> None:
    # It only complains of attributes, of a line's end, and of a header's own size; names and bytes are sound.
    lenient = {"tar-split-archive-tar-testdata-pax-nul-xattrs.tar"}
    refused = 0
    for name, report in walked["lints"].items():
        command = ["tar", "tf", str(odd_files / "tars" / name)]
        if subprocess.run(command, capture_output=True, check=False).returncode and name not in lenient:
            assert report["errors"], name
            refused += 1
    assert refused >= 8
