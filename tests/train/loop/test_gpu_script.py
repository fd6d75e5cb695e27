"""`benchmarks/gpu.sh`, which needs a GPU for its numbers, runs from end to end without one.

Its commands are noted by a Python that is none, and then run here: the campaign runs them as the script does.
"""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from campaigns import Campaign
from handmade import picture

REPOSITORY = Path(__file__).parents[3]
BENCHMARKS = REPOSITORY / "benchmarks"
MOST_FILES, MOST_BYTES = 8, 16 << 20
NOTE = '#!/usr/bin/env bash\nprintf "%q " "$@" >>"$NOTES"\necho >>"$NOTES"\n'
COLOURS = ("n01440764", "n02084071")


def run(part: str, out: Path, python: str = sys.executable, **environment: str) -> str:
    """Run a part of it on as little as there is, and return what it printed."""
    told = {
        "OUT": str(out),
        "PYTHON": python,
        "CURATE_CACHE": str(out.parent / "cache"),
        "TMPDIR": str(out.parent),
        **environment,
    }
    done = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu.sh"), "--dry", part],
        env={**os.environ, **told}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    logs = "".join(log.read_text() for log in out.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return done.stdout


def run_here(part: str, out: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[list[str]]:
    """Run the benchmarks of a part in this process; return the other commands."""
    note, notes = out.parent / "python", out.parent / "notes"
    note.write_text(NOTE)
    note.chmod(0o755)
    run(part, out, str(note), NOTES=str(notes), **environment)
    others = []
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(torch, "compile", torch.compile)  # which a dry run replaces
    for command in map(shlex.split, notes.read_text().splitlines()):
        if command[0].startswith("benchmarks/"):
            monkeypatch.setattr(sys, "argv", command)
            runpy.run_path(command[0], run_name="__main__")
        else:
            others.append(command)
    return others


def files_are_few_and_small(out: Path) -> bool:
    sizes = [file.stat().st_size for file in out.iterdir()]
    return len(sizes) <= MOST_FILES and max(sizes) <= MOST_BYTES


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of little pictures to learn from, and to be measured on."""
    for split, count in (("train", 20), ("val", 4)):
        for shift, wnid in enumerate(COLOURS):
            folder = tmp_path / "images" / split / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.jpg").write_bytes(picture(number, shift, kind="JPEG"))
    return tmp_path / "images"


def check_steps(out: Path) -> None:
    steps = (out / "steps.md").read_text()
    for kind in ("eager", "compiled"):
        assert f"{kind}: " in steps
        assert (out / f"trace-{kind}.json.gz").exists()
    assert steps.count("samples/s") == 2
    assert "not measured" not in steps
    assert files_are_few_and_small(out)


def check_measurements(out: Path) -> None:
    speed = (out / "speed.md").read_text()
    assert speed.count("| ours, step |") == speed.count("| ours, end to end |") == 4
    assert speed.index("supervised resnet50") < speed.index("resnet18 at 32 px") < speed.index("clip ViT")
    methods = (out / "methods.md").read_text()
    rows = [line for line in methods.splitlines() if line.startswith(("| supervised", "| clip", "| simclr"))]
    assert len(rows) == 3
    assert all("%" in row and "failed" not in row for row in rows)
    assert files_are_few_and_small(out)


def test_the_check_runs_the_tests_and_profiles_a_step_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    others = run_here("check", tmp_path / "out", monkeypatch)
    [tests] = [command for command in others if command[:2] == ["-m", "pytest"]]
    assert tests[tests.index("gpu") - 1] == "-m"
    files = [word for word in tests if word.startswith("tests/")]
    assert len(files) == 2
    assert all((REPOSITORY / file).is_file() for file in files)
    check_steps(tmp_path / "out")


def test_the_measurement_has_a_row_of_each_trainer_and_of_each_method(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import _trainers

    head = {"hidden_dim": 16, "projector_layers": 2, "projection_dim": 16, "probe": False, "knn_rows": 0}
    small = {  # of the same methods, for the campaign takes the networks as they are
        "supervised resnet50": _trainers.Setup("supervised", LITTLE, {"timm": "test_resnet"}, pixels=37),
        "supervised resnet18 at 32 px": _trainers.Setup(
            "supervised", LITTLE, {"timm": "test_resnet"}, pixels=37
        ),
        "clip ViT-S-32-alt": _trainers.Setup(
            "clip", LITTLE | {"text_width": 32, "text_layers": 1}, pixels=37
        ),
        "simclr resnet18": _trainers.Setup("simclr", LITTLE | head, {"lightly": "resnet18"}, pixels=37),
    }
    assert small.keys() < _trainers.TINY.keys()
    monkeypatch.setattr(_trainers, "TINY", small)
    run_here("measure", tmp_path / "out", monkeypatch, IMAGES=str(images))
    check_measurements(tmp_path / "out")


LITTLE = {"model": "convnet", "batch_size": 16, "image_size": 32}


@pytest.mark.campaign
def test_both_parts_run_as_the_script_runs_them(tmp_path: Path, images: Path, campaign: Campaign) -> None:
    campaign.tell(run("check", tmp_path / "check"))
    assert "skipped" in (tmp_path / "check/tests.log").read_text()
    check_steps(tmp_path / "check")
    campaign.tell(run("measure", tmp_path / "measure", IMAGES=str(images)))
    check_measurements(tmp_path / "measure")


def test_a_part_that_is_none_is_refused_by_name() -> None:
    done = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu.sh"), "tests"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "check, measure, transfer" in done.stderr
