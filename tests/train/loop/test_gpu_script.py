"""`benchmarks/gpu.sh`, which needs a GPU for its numbers, runs from end to end without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from handmade import picture

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu.sh"
MOST_FILES, MOST_BYTES = 8, 16 << 20


def run(part: str, out: Path, **environment: str) -> str:
    """Run a part of it on as little as there is, and return what it printed."""
    told = {
        "OUT": str(out),
        "PYTHON": sys.executable,
        "CURATE_CACHE": str(out.parent / "cache"),
        **environment,
    }
    done = subprocess.run(
        ["bash", str(SCRIPT), "--dry", part],
        env={**os.environ, **told}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    logs = "".join(log.read_text() for log in out.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    sizes = [file.stat().st_size for file in out.iterdir()]
    assert len(sizes) <= MOST_FILES
    assert max(sizes) <= MOST_BYTES
    return done.stdout


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of little pictures to learn from, and to be measured on."""
    for split, count in (("train", 20), ("val", 4)):
        for shift, wnid in enumerate(("n01440764", "n02084071")):
            folder = tmp_path / "images" / split / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.jpg").write_bytes(picture(number, shift, kind="JPEG"))
    return tmp_path / "images"


def test_the_check_runs_the_tests_and_profiles_a_step_of_each_kind(tmp_path: Path) -> None:
    run("check", tmp_path / "out")
    assert "skipped" in (tmp_path / "out/tests.log").read_text()
    steps = (tmp_path / "out/steps.md").read_text()
    for kind in ("eager", "compiled"):
        assert f"{kind}: " in steps
        assert (tmp_path / f"out/trace-{kind}.json.gz").exists()
    assert steps.count("samples/s") == 2
    assert "not measured" not in steps


def test_the_measurement_has_a_row_of_each_trainer_and_of_each_method(tmp_path: Path, images: Path) -> None:
    run("measure", tmp_path / "out", IMAGES=str(images))
    speed = (tmp_path / "out/speed.md").read_text()
    assert speed.count("| ours, step |") == speed.count("| ours, end to end |") == 4
    assert speed.index("supervised resnet50") < speed.index("resnet18 at 32 px") < speed.index("clip ViT")
    methods = (tmp_path / "out/methods.md").read_text()
    rows = [line for line in methods.splitlines() if line.startswith(("| supervised", "| clip", "| simclr"))]
    assert len(rows) == 3
    assert all("%" in row and "failed" not in row for row in rows)


def test_a_part_that_is_none_is_refused_by_name() -> None:
    done = subprocess.run(["bash", str(SCRIPT), "tests"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "check, measure, transfer" in done.stderr
