"""The names of `curate` for scripts: imported when they are used, also from a script that is called `train.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from handmade import pictures, write_dataset

import curate

ROOT = Path(__file__).resolve().parents[1]


def run_script(folder: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    """Write a script and run it in its folder, as `python NAME` does."""
    (folder / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, name], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("name", curate.__all__)
def test_each_name_is_what_its_module_calls_so(name: str) -> None:
    assert callable(getattr(curate, name))


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        curate.trian  # noqa: B018


def test_importing_curate_imports_nothing_large(tmp_path: Path) -> None:
    text = "import sys\nimport curate\nprint({'duckdb', 'numpy', 'pydantic', 'torch', 'train'} & set(sys.modules))\n"
    assert run_script(tmp_path, "look.py", text).stdout == "set()\n"


def test_script_that_is_called_train_uses_the_package_of_that_name(tmp_path: Path) -> None:
    text = (
        "print('begins')\nimport curate\n"
        "print(curate.open_run.__module__, curate.Loader.__module__, curate.train.__module__)\n"
    )
    ended = run_script(tmp_path, "train.py", text)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "begins\ntrain.runs train.data.loader train.methods.registry\n"  # once, not again


def test_script_that_has_imported_another_train_hears_which(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("BATCH = 64\n")
    ended = run_script(tmp_path, "evaluate.py", "import train, curate\nprint(train.BATCH)\ncurate.Loader\n")
    assert ended.stdout == "64\n"
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path / 'train.py'} is imported as `train`")
    assert "give your file another name" in last


def test_verbs_of_train_go_from_a_dataset_to_a_report(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", pictures(16))
    options = {"model": "convnet", "image_size": 16, "samples": 16, "batch_size": 8, "workers": 0}
    run = curate.train("supervised", tmp_path / "set", tmp_path / "run", quiet=True, **options)
    assert curate.open_run(tmp_path / "run").digest == run.digest
    (task,) = curate.open_tasks("digits")
    rows = curate.transfer(run, [task], curate.Grid([1], 1, ["knn"]), out=tmp_path / "results.parquet")
    assert set(rows["run"].to_pylist()) == {"run"}
    page, _ = curate.report(tmp_path)
    assert page == tmp_path / "report" / "index.html"
