"""A file is there wholly or not at all, and what a kill leaves of one is known by its name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from curate.errors import DataError, RecipeError
from curate.fetch.pools import Pool
from curate.io.files import inside, is_unfinished, unfinished, write_atomic
from curate.rows.sql import copy_parquet


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomic(file, b"old")
    with pytest.raises(KeyboardInterrupt), unfinished(file) as beside:  # noqa: PT012
        beside.write_bytes(b"n")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old"
    with unfinished(file) as beside:
        beside.write_bytes(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_kill_leaves_of_a_file_is_known_by_its_name(tmp_path: Path) -> None:
    killed = (
        "import os, sys, pathlib; from curate.io.files import unfinished\n"
        "with unfinished(pathlib.Path(sys.argv[1])) as beside:\n"
        "    beside.write_bytes(b'n'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "file")])
    assert done.returncode == -signal.SIGKILL
    [left] = os.listdir(tmp_path)
    assert is_unfinished(left)
    assert not any(map(is_unfinished, ["file", ".file", "file.tmp", ".nv-meta"]))


def test_a_query_that_fails_leaves_the_parquet_that_was_there(tmp_path: Path, engine: Any) -> None:
    file = tmp_path / "it's *.parquet"
    copy_parquet(engine, "SELECT 1 AS n", file)
    before = file.read_bytes()
    with pytest.raises(duckdb.Error, match="spoiled"):
        copy_parquet(engine, "SELECT if(n = 500000, error('spoiled'), n) AS n FROM range(1000000) t(n)", file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == [file.name]


def test_who_holds_a_pool_clears_what_kills_left_there(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pool")
    pool.path.mkdir()
    (pool.path / ".request.parquet.4711.tmp").write_bytes(b"PAR1")
    pool.refuse_foreign()
    with pool.locked():
        assert [entry.name for entry in pool.path.iterdir()] == [pool.fetched.name]
    assert not pool.path.exists()
    pool.path.mkdir()
    (pool.path / "mine.txt").write_text("")
    with pytest.raises(RecipeError, match="is no pool"):
        pool.refuse_foreign()


@pytest.mark.parametrize("below", ["../x", "a/../../x", "/etc/x", "", "a\0b"])
def test_no_name_leads_out_of_the_folder_that_is_written_to(tmp_path: Path, below: str) -> None:
    with pytest.raises(DataError, match="leads out of"):
        inside(tmp_path, below)


def test_no_link_leads_out_of_the_folder_that_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shards").symlink_to(tmp_path)
    with pytest.raises(DataError, match="a link leads out of"):
        inside(tmp_path / "out", "shards/a.idx")
    assert inside(tmp_path / "out", "new/a.idx") == tmp_path / "out" / "new" / "a.idx"
