"""Take odd files through source, lint, gallery and decoding in one process; print what became of each as JSON.

`python odd_walk.py FOLDER OUT`: what the test of odd files runs as a child, to measure its memory.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import time
from pathlib import Path

from curate.builds.build import build
from curate.datasets.gallery import write_gallery
from curate.datasets.lint.tars import lint
from curate.errors import CurateError
from curate.io.image_headers import EXTENSIONS, BadImage
from curate.io.images import decode
from curate.recipes.recipe import parse


def main(odd: Path, out: Path) -> None:
    """Write nothing but the answer to stdout; whatever else is said is seen on stderr by the test."""
    answer: dict[str, object] = {"slowest": ["", 0.0]}

    def timed(name: str, work):
        begin = time.process_time()
        try:
            return work()
        finally:
            answer["slowest"] = max(
                answer["slowest"], [name, time.process_time() - begin], key=lambda n: n[1]
            )

    def told(work) -> str:
        try:
            work()
        except (BadImage, CurateError) as error:
            return str(error) or "no reason"
        return ""

    images = sorted((odd / "images").iterdir())
    answer["decoded"] = {
        f.name: timed(f.name, lambda f=f: told(lambda: decode(f.read_bytes()))) for f in images
    }

    for file in images:  # some names differ in nothing but their extension: a class for each
        below = out / "pool" / (file.suffix[1:] or "none")
        below.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, below)
    recipe = parse({"name": "folder", "source": {"folder": str(out / "pool")}, "steps": []})
    [made] = timed("a build of the folder", lambda: build(recipe, out / "folder", overlay=True))
    info = made.dataset.info
    files = [os.path.basename(f) for f in made.dataset.table(["file"])["file"].to_pylist()]
    answer["folder"] = {"files": files, "left_out": info.source["left_out"]}
    page = timed("the gallery", lambda: write_gallery(out / "folder", per_class=1000)).read_text()
    answer["gallery"] = {"figures": page.count("<figure"), "broken": page.count("class=broken")}

    tars = sorted((odd / "tars").iterdir())
    answer["sources"] = {
        f.name: timed(
            f.name,
            lambda f=f: told(
                lambda: build(
                    parse({"name": "t", "source": {"shards": str(f)}, "steps": []}),
                    out / f.name,
                    overlay=True,
                )
            ),
        )
        for f in tars
    }
    lints = {f.name: timed(f.name, lambda f=f: lint([str(f)]).document()) for f in tars}
    answer["lints"] = {name: {"errors": r["errors"], "members": r["members"]} for name, r in lints.items()}
    packed = out / "images.tar"  # all images in a tar, as anybody might have packed them
    with tarfile.open(packed, "w") as archive:
        for file in images:
            archive.add(file, f"{file.suffix[1:]}/{file.name.replace('.', '_')}{file.suffix}")
    report = timed("the lint of all images", lambda: lint([str(packed)]))
    answer["packed"] = {"images": dict(report.images), "counts": dict(report.counts)}
    answer["taken"] = [f.name for f in images if f.suffix[1:].lower() in EXTENSIONS]
    answer["peak_bytes"] = _peak_bytes()
    json.dump(answer, sys.stdout)


def _peak_bytes() -> int:
    """Return the most memory that this program had; `getrusage` also counts what its parent had when it forked."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
