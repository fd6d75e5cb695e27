"""Folders that one process at a time works in, whatever end the process comes to."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from curate.errors import MissingError, RecipeError
from curate.io.working import WorkingFolder, locked


def working(path: Path, *, keep: bool = False, result: Path | None = None) -> WorkingFolder:
    return WorkingFolder(path, busy=f"{path}: busy", keep=keep, result=result, unwritable=MissingError)


def test_a_second_one_is_told_while_the_first_works(tmp_path: Path) -> None:
    with working(tmp_path / "a"):
        (tmp_path / "a" / "half").touch()
        with pytest.raises(RecipeError, match="a: busy"), working(tmp_path / "a"):
            pass
        assert (tmp_path / "a" / "half").exists(), "nothing of the first one's is touched"
    with working(tmp_path / "a"):
        pass


@pytest.mark.parametrize(("keep", "left"), [(False, []), (True, ["a", "a/half"])])
def test_what_is_kept_stays_without_its_lock_and_the_rest_goes(
    tmp_path: Path, keep: bool, left: list[str]
) -> None:
    with working(tmp_path / "a", keep=keep):
        (tmp_path / "a" / "half").touch()
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*")) == left


def test_an_empty_folder_never_stays(tmp_path: Path) -> None:
    with working(tmp_path / "a", keep=True):
        pass
    assert not (tmp_path / "a").exists()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a" / "shards").mkdir(parents=True)
    for name in (".b.json.17.tmp", "shards/.000000.tar.17.tmp", "whole.tmp", "shards/000000.tar"):
        (tmp_path / "a" / name).touch()
    with working(tmp_path / "a", keep=True):
        assert {f.name for f in (tmp_path / "a").rglob("*")} == {"lock", "shards", "whole.tmp", "000000.tar"}


def test_a_published_folder_takes_the_place_of_its_result(tmp_path: Path) -> None:
    out = tmp_path / "set"
    for content in ("first", "second"):
        with working(tmp_path / "a", keep=True, result=out) as folder:
            (folder.path / "content").write_text(content)
            folder.publish()
        assert [f.name for f in tmp_path.iterdir()] == ["set"]
        assert {f.name: f.read_text() for f in out.iterdir()} == {"content": content}


def test_a_result_put_aside_by_a_kill_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".set.old").mkdir()
    with working(tmp_path / "a", result=tmp_path / "set"):
        assert (tmp_path / "set").is_dir()
    assert [f.name for f in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(MissingError, match=r"file/a: cannot be written \(Not a directory\)"),
        working(tmp_path / "file" / "a"),
    ):
        pass


@pytest.mark.parametrize("made_again", [True, False])
def test_a_lock_that_its_holder_removed_meanwhile_is_not_taken_for_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_again: bool
) -> None:
    flock = fcntl.flock

    def after_its_end(lock: object, flags: int) -> None:
        os.replace(tmp_path / "other", tmp_path / "lock")  # another process's, which made its own
        if not made_again:
            (tmp_path / "lock").unlink()
        flock(lock, flags)  # type: ignore[arg-type]

    (tmp_path / "other").touch()
    monkeypatch.setattr(fcntl, "flock", after_its_end)
    with pytest.raises(RecipeError, match="busy"), locked(tmp_path / "lock", "busy"):
        pass
