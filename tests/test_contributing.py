"""The examples of CONTRIBUTING.md work as printed: put where they say, in a copy of the repository, and run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"^```python\n# (new: )?(\S+\.py)(?:, (in|before) (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


def put(copy: Path, new: str, file: str, how: str, name: str, code: str) -> None:
    """Put a block of CONTRIBUTING.md where its first line says."""
    if new:
        assert not (copy / file).exists()
        (copy / file).write_text(code)
        return
    lines = (copy / file).read_text().splitlines(keepends=True)
    [at] = [i for i, line in enumerate(lines) if re.match(rf"{name}\b.* = [\[{{(]$", line)]
    lines.insert(at + 1 if how == "in" else at, code if how == "in" else f"{code}\n\n")
    (copy / file).write_text("".join(lines))


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, ...]]:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    found = BLOCK.findall(text)
    assert len(found) == text.count("```python") > 10
    return found


@pytest.fixture(scope="module")
def copy(blocks: list[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with every example in its place."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("curate", "train", "tests"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    for block in blocks:
        put(folder, *block)
    return folder


def run(copy: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_examples_pass_their_tests_and_the_laws(copy: Path, blocks: list[tuple[str, ...]]) -> None:
    own = [file for new, file, *_ in blocks if new and file.startswith("tests/")]
    assert len(own) == 4
    laws = ["tests/curate/ops/test_operation_laws.py", "tests/train/transfer/test_families.py"]
    words = "balance or flat or resisc45 or nearest_mean or quarters or has_examples or every_task"
    told = run(copy, "-m", "pytest", "-p", "no:cacheprovider", "-vv", *own, *laws, "-k", words)
    for file in [*own, *laws]:
        assert re.search(rf"^{re.escape(file)}::\S.* PASSED", told, re.MULTILINE), file


def test_the_commands_know_the_examples(copy: Path) -> None:
    commands = (["ops", "balance"], ["ops", "flat"], ["train", "--help"])
    told = run(
        copy,
        "-c",
        "from typer.testing import CliRunner; from train.cli.__main__ import app\n"
        f"for command in {commands}: print(CliRunner().invoke(app, command).output)",
    )
    assert "Keep as many rows of every class as the smallest class has" in told
    assert "each named after its class" in told
    assert "rotation    Learn without labels" in told


def test_the_examples_keep_to_the_style(copy: Path) -> None:
    pytest.importorskip("ruff", reason="needs ruff: curate-train[dev]")
    run(copy, "-m", "ruff", "check", "--no-cache", ".")
    run(copy, "-m", "ruff", "format", "--no-cache", "--check", ".")
