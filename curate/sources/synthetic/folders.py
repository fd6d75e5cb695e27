"""Generated images as a plain folder of JPEGs, `split/class/class_0000.jpg`, finished or not there at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from curate.errors import CurateError, DataError, RecipeError, reject_unknown
from curate.io.executors import cores
from curate.sources.synthetic.classes import SyntheticClass
from curate.sources.synthetic.images import DRAWING_VERSION, PAINTERS, draw, jpeg

MARKER = "synthetic.json"  # says what the folder holds
SPLIT_STARTS = {
    "train": 0,
    "val": 1_000_000,
    "test": 2_000_000,
}  # first index of a split, so none share an image
SPLIT_MAX = 1_000_000  # images of one class in one split
JPEG_QUALITY = 90
IMAGES_PER_JOB = 125
INLINE_MAX = 500  # so few images are drawn sooner than a process starts


class _Job(NamedTuple):
    cls: SyntheticClass
    split: str
    numbers: range
    folder: Path
    size: int
    seed: int


def write_folder(
    out: Path,
    *,
    classes: Sequence[SyntheticClass],
    images_per_class: Mapping[str, int],
    size: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> None:
    """Draw a set of images into a folder that ImageFolder and `source: {folder: …}` can read.

    The first n images of a split are the same whatever its size, so that a smaller folder is inside a larger
    one, and no image is in two splits. The folder appears under its name when it is complete; asking for it again
    does nothing. With more than one worker, a script must call this below `if __name__ == "__main__":`.

    Args:
        images_per_class: split ("train", "val" or "test") to number of images of each class.
        size: width and height in pixels.
        progress: called with the number of images written since its last call.
        workers: processes; by default one a core, or none where there is little to draw.

    Raises:
        RecipeError: the arguments make no set, or `out` holds something else.
        DataError: `out` holds a marker that cannot be read.
    """
    out = Path(out)
    _check(classes, images_per_class, size)
    parameters = _parameters(classes, images_per_class, size, seed)
    if _is_done(out, parameters):
        return
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for split in images_per_class:
            for cls in classes:
                (partial / split / cls.id).mkdir(parents=True)
        _run(list(_jobs(partial, classes, images_per_class, size, seed)), progress, workers)
        with (partial / MARKER).open("w") as file:
            json.dump(parameters, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        _publish(partial, out, parameters)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(classes: Sequence[SyntheticClass], images_per_class: Mapping[str, int], size: int) -> None:
    ids = [cls.id for cls in classes]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if not ids or twice:
        raise RecipeError(
            f"synthetic: class {twice[0]!r} is named twice" if twice else "synthetic: no classes",
            hint="pass curate.sources.synthetic.classes.POOL, DOWNSTREAM or a part of one",
        )
    for cls in classes:
        reject_unknown(cls.shape, PAINTERS, f"synthetic: class {cls.id!r} has no painter {cls.shape!r}")
    for split, count in images_per_class.items():
        reject_unknown(split, SPLIT_STARTS, f"synthetic: no split {split!r}")
        if not 0 <= count <= SPLIT_MAX:
            raise RecipeError(
                f"synthetic: {count} images per class in {split!r}", hint=f"ask for 0..{SPLIT_MAX:_}"
            )
    if size < 8:
        raise RecipeError(
            f"synthetic: size {size} pixels", hint="ask for 8 pixels or more; 48 suits small networks"
        )


def _parameters(
    classes: Sequence[SyntheticClass], images_per_class: Mapping[str, int], size: int, seed: int
) -> dict[str, Any]:
    return {
        "drawing_version": DRAWING_VERSION,
        "jpeg_quality": JPEG_QUALITY,
        "size": size,
        "seed": seed,
        "images_per_class": dict(images_per_class),
        "classes": [asdict(cls) for cls in classes],
    }


def _is_done(out: Path, parameters: dict[str, Any]) -> bool:
    if not out.exists():
        return False
    if not out.is_dir():
        raise RecipeError(f"{out}: is a file, not a folder", hint="choose another folder")
    if not (out / MARKER).exists():
        if not any(out.iterdir()):
            return False
        raise RecipeError(
            f"{out}: is not empty and holds no {MARKER}", hint="choose a new or an empty folder"
        )
    try:
        found = json.loads((out / MARKER).read_text())
    except ValueError as error:
        raise DataError(f"{out / MARKER}: {error}", hint="delete the folder to draw it anew") from error
    if found == parameters:
        return True
    other = next((name for name in parameters if found.get(name) != parameters[name]), MARKER)
    raise RecipeError(
        f"{out}: holds generated images with another {other}" + _difference(found, parameters, other),
        hint="choose another folder, or delete this one to draw it anew",
    )


def _difference(found: Any, parameters: dict[str, Any], name: str) -> str:
    short = name in parameters and name != "classes"
    return f": {found.get(name)}, not {parameters[name]}" if short else ""


def _jobs(
    folder: Path, classes: Sequence[SyntheticClass], images_per_class: Mapping[str, int], size: int, seed: int
) -> Iterator[_Job]:
    for split, count in images_per_class.items():
        for cls in classes:
            for first in range(0, count, IMAGES_PER_JOB):
                numbers = range(first, min(first + IMAGES_PER_JOB, count))
                yield _Job(cls, split, numbers, folder, size, seed)


def _write(job: _Job) -> int:
    infix = "" if job.split == "train" else f"{job.split}_"  # a file's name alone says which image it is
    for number in job.numbers:
        image = draw(job.cls, SPLIT_STARTS[job.split] + number, seed=job.seed, size=job.size)
        path = job.folder / job.split / job.cls.id / f"{job.cls.id}_{infix}{number:04d}.jpg"
        path.write_bytes(jpeg(image, JPEG_QUALITY))
    return len(job.numbers)


def _run(jobs: list[_Job], progress: Callable[[int], None] | None, workers: int | None) -> None:
    report = progress or (lambda _: None)
    images = sum(len(job.numbers) for job in jobs)
    if workers is None:
        workers = 1 if images <= INLINE_MAX else cores()
    if workers <= 1:
        for job in jobs:
            report(_write(job))
        return
    # A spawned process is safe wherever this is called from: it inherits no threads and no locks.
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(_write, job) for job in jobs]):
                report(done.result())
        except BrokenProcessPool as error:
            raise CurateError(
                "synthetic: a drawing process ended early",
                hint='in a script, call write_folder below `if __name__ == "__main__":`, or pass workers=1',
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _publish(partial: Path, out: Path, parameters: dict[str, Any]) -> None:
    try:
        os.replace(partial, out)  # an empty folder gives way
    except OSError:
        if not _is_done(out, parameters):  # somebody else may have finished the same one meanwhile
            raise
