"""Exports: what other libraries need to read a dataset, one format a file; this folder is their registry.

A **sidecar** is small and stands beside the shards that it describes. A **copy** holds the bytes in another form, in
a folder of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curate.errors import DataError, RecipeError
from curate.recipes.registry import Registry

if TYPE_CHECKING:
    from curate.datasets.dataset import Dataset
    from curate.io.progress import Quiet

    Write = Callable[[Dataset, Path, Quiet], list[Path]]

MARK = ".export.json"  # in a copy: what it is a copy of; a folder without it is not ours
URL = re.compile("[a-z][a-z0-9+.-]*:/")  # one slash: of `s3://bucket` a `Path` keeps only that


@dataclass(frozen=True)
class Format:
    """A format: its function, and where it may stand.

    Args:
        write: takes the dataset, the folder to write to, and what shows progress; returns the files it wrote.
        kind: a sidecar of the shards, or a copy of the bytes.
        use: the Python that opens it. `{path}` stands for the dataset, `{out}` for where the files are, `{shards}` for
            the shards as one pattern without its extension.
        movable: whether a sidecar may stand in another folder than the dataset's.
        version: of a copy; goes up when the same dataset gives other files.
    """

    write: Write
    kind: Literal["sidecar", "copy"]
    use: str
    movable: bool = False
    version: int = 1

    @property
    def name(self) -> str:
        """The word that the command takes."""
        return self.write.__name__


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Args:
        format: its name.
        files: what stands there now: a sidecar's files, or a copy's folder.
        use: the Python that opens it.
        unchanged: whether the copy was there already and nothing was done.
        note: what a reader of these files would take amiss, in words.
    """

    format: str
    files: list[Path]
    use: str
    unchanged: bool = False
    note: str | None = None


def sidecar(*, use: str, movable: bool = False) -> Callable[[Write], Format]:
    """Make a function a format that stands beside the shards."""
    return lambda function: Format(function, "sidecar", use, movable)


def copy(*, use: str, version: int) -> Callable[[Write], Format]:
    """Make a function a format that holds the bytes in a folder of its own."""
    return lambda function: Format(function, "copy", use, version=version)


_registry = Registry[Format](__name__, "format")
names, find = _registry.names, _registry.find


def export(
    path: str | Path, to: list[str], out: str | Path | None = None, *, progress: Quiet | None = None
) -> list[Exported]:
    """Write a dataset's sidecars, or a copy of it in another form.

    The dataset itself stays as it is. A build that replaces it takes its sidecars away, so that none describes
    shards that are gone.

    Args:
        path: the dataset.
        to: names of formats.
        out: the folder of a copy; or another place for a sidecar that may stand elsewhere.

    Raises:
        RecipeError: no such dataset or format, a sidecar of an overlay, or an `out` that does not fit.
        DataError: the shards or the images are not what the dataset says.
    """
    from curate.datasets.contracts import outside
    from curate.datasets.dataset import open_dataset
    from curate.datasets.staging import WITHIN
    from curate.io.files import clear_unfinished
    from curate.io.progress import Quiet

    formats = [find(name, where="--to") for name in to]
    dataset = open_dataset(path)
    _refuse(dataset, formats, out)
    for line in outside(dataset):
        (progress or Quiet()).warn(line)
    if out is not None and formats[0].kind == "copy":
        return [_copy(formats[0], dataset, Path(out), progress or Quiet())]
    folder = Path(out or str(dataset.path))
    clear_unfinished(*(folder / name for name in ("", *WITHIN)))
    done, note = [], _mixed(dataset)
    for form in formats:
        folder.mkdir(parents=True, exist_ok=True)
        files = form.write(dataset, folder, progress or Quiet())
        done.append(Exported(form.name, files, _use(form, folder, dataset), note=note))
    return done


def _mixed(dataset: Dataset) -> str | None:
    """Return what to know of shards of several splits: their readers take all rows for one."""
    from curate.datasets.exports._contents import contents

    splits = contents(str(dataset.manifest)).splits
    if len(splits) < 2:
        return None
    held = " and ".join(f"{rows:,} rows of {name}" for name, rows in splits.items())
    warning = f"{dataset.path}: holds {held}; its shards mix them: "
    return warning + "`--to parquet` keeps splits apart, or filter by `split` in .json"


def _refuse(dataset: Dataset, formats: list[Format], out: str | Path | None) -> None:
    """Refuse what cannot be, before any of it is done."""
    from curate.io.stores import is_remote

    if out is not None and URL.match(str(out)):
        raise RecipeError(f"--out {out}: exports are local files", hint="export to a folder, then upload it")
    if out is not None and len(formats) > 1:
        raise RecipeError(f"--out takes one format, got {len(formats)}", hint="export them one by one")
    for form in formats:
        where = f"--to {form.name}"
        if form.kind == "copy":
            if out is None:
                raise RecipeError(f"{where}: --out is missing", hint="name the folder that gets the copy")
            continue
        if out is not None and not form.movable:
            raise RecipeError(
                f"{where}: its files go beside the shards, not into --out", hint="leave out --out"
            )
        if is_remote(str(dataset.path)):
            raise RecipeError(f"{dataset.path}: {where} writes local files", hint="export it, then upload it")
        if not dataset.sharded:
            raise RecipeError(
                f"{dataset.path}: is an overlay, and {form.name} describes shards",
                hint=f"`curate shard {dataset.path}` gives it some",
            )
        if not len(dataset):
            raise DataError(f"{dataset.path}: no rows, and so no shards", hint="build it with some")


def _copy(form: Format, dataset: Dataset, out: Path, progress: Quiet) -> Exported:
    """Make a copy beside its place and put it there; leave one alone that is up to date."""
    from curate.datasets.staging import Staging
    from curate.io.files import write_atomic
    from curate.io.working import restore
    from curate.rows.manifest import digest

    wanted = {"format": form.name, "dataset": dataset.name, "digest": dataset.digest, "version": form.version}
    done = Exported(form.name, [out], _use(form, out, dataset), unchanged=True)
    restore(out)
    there = _mark(out)
    if there == wanted:
        return done
    _refuse_inside(out, dataset)
    _refuse_other(out, there, wanted)
    with Staging(out) as staging:
        staging.begin(digest(wanted))
        form.write(dataset, staging.path, progress)
        write_atomic(staging.path / MARK, (json.dumps(wanted, indent=1, ensure_ascii=False) + "\n").encode())
        staging.publish()
    return Exported(form.name, done.files, done.use)


def _refuse_inside(out: Path, dataset: Dataset) -> None:
    """Refuse a copy that would replace what it is made of, or stand in the dataset as a foreign thing."""
    from curate.io.stores import is_remote

    here = out.resolve()
    homes = [Path(home).resolve() for home in (str(dataset.path), dataset.byte_root) if not is_remote(home)]
    if any(home.is_relative_to(here) for home in homes):
        raise RecipeError(f"{out}: the copy would replace its own source", hint="choose another --out")
    if homes and here.is_relative_to(Path(str(dataset.path)).resolve()):
        raise RecipeError(f"{out}: is inside the dataset", hint="give --out a folder elsewhere")


def _refuse_other(out: Path, there: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    """Refuse to replace a copy of another dataset or format; an older copy of this one goes."""
    if there is None or all(there.get(name) == wanted[name] for name in ("dataset", "format")):
        return
    held = f"the export {there.get('format')!r} of {there.get('dataset')!r}" if there else "an unknown export"
    asked = f"{wanted['format']!r} of {wanted['dataset']!r}"
    raise RecipeError(
        f"{out}: holds {held}, not {asked}; nothing was touched",
        hint="remove it first, or choose another --out",
    )


def _mark(out: Path) -> dict[str, Any] | None:
    """Return what the copy in `out` was made of, empty where that cannot be read; None where nothing is yet.

    Raises:
        RecipeError: there is something else.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise RecipeError(f"{out}: is a file", hint="give --out a folder")
    if (out / MARK).is_file():
        try:
            found = json.loads((out / MARK).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
    names = [entry.name for entry in out.iterdir()]
    if names:
        raise RecipeError(
            f"{out}: holds {len(names)} things and is no export (such as {min(names)!r}); nothing was touched",
            hint="give --out a new folder",
        )
    return None


def _use(form: Format, out: Path, dataset: Dataset) -> str:
    from curate.datasets.exports._shards import brace

    shards = brace(dataset) if dataset.sharded else ""
    return form.use.format(path=dataset.path, out=out, shards=shards)
