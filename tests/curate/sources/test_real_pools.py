"""Real images: awkward files that others collected, and the classes of ImageNet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curate.builds.build import build
from curate.builds.sharding import shard
from curate.datasets.diffs import chain
from curate.datasets.queries import query
from curate.datasets.verification import verify
from curate.errors import DataError, RecipeError
from curate.io.image_headers import BadImage, probe
from curate.recipes.recipe import parse

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")


def pillow(file: Path) -> tuple[str, int, int] | None:
    """Return what Pillow says of a file after decoding it, or None."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            image.convert("RGB")
            return {"JPEG": "jpg", "MPO": "jpg"}.get(
                image.format or "", str(image.format).lower()
            ), *image.size
    except Exception:  # whatever a damaged file leads it to
        return None


@pytest.mark.filterwarnings("ignore")  # Pillow has a word to say on many of them
def test_every_odd_image_is_a_row_or_counted_and_verify_names_those_that_do_not_decode(
    odd_files: Path, tmp_path: Path
) -> None:
    pool = tmp_path / "pool" / "all"
    pool.mkdir(parents=True)
    files = sorted((odd_files / "images").iterdir())
    for number, file in enumerate(files):  # many differ only by their extension
        (pool / f"{number:04d}{file.suffix}").symlink_to(file)
    recipe = parse({"name": "odd", "source": {"folder": str(pool.parent)}, "samples_per_shard": 300})
    made = build(recipe, tmp_path / "odd", workers=2)[0].dataset
    left_out = made.info.source["left_out"]
    assert len(made) + sum(left_out.values()) == len(files) > 800
    known = {"no image by its extension", "not an image", "damaged header", "empty"}
    known |= {"no 8-bit pixels (float)", "no 8-bit pixels (signed integers)"}
    known |= {"no 8-bit pixels (32-bit integers)", "no 8-bit pixels (12-bit JPEG)"}
    assert left_out.keys() <= known | {"a side of 0 pixels", "a side of 2^31 pixels or more"}

    bad = {p.where for p in verify(made.path)}
    rows = {row["key"]: row for row in made.table(["key", "ext", "width", "height"]).to_pylist()}
    assert bad < rows.keys()
    sound, cut, told = 0, 0, {file: pillow(file) for file in pool.iterdir()}
    for file, seen in told.items():
        row = rows.get(f"all/{file.stem}")
        if row is None or row["key"] in bad:
            # What Pillow decodes is in; but for files without an image's extension.
            assert seen is None or row is None
            assert seen is None or file.suffix in (".ff", ".md", ".txt", ".pbm", "") or _deeper(file)
        else:
            here = (row["ext"], row["width"], row["height"])
            if seen == ("tiff", row["height"], row["width"]):
                pass  # Pillow turns it as it says that it is to be turned
            elif seen != here:  # a first frame larger than the screen, which it is cut to
                assert seen is not None
                assert seen[0] == row["ext"] == "gif"
                assert seen > here
                cut += 1
            sound += 1
    assert sound > 650
    assert cut == 2


def _deeper(file: Path) -> bool:
    """Whether an image is refused for pixels that have no meaning as 8 bits."""
    try:
        probe(file.read_bytes())
    except BadImage as error:
        return str(error).startswith("no 8-bit pixels")
    return False


@pytest.mark.filterwarnings("ignore")
def test_every_odd_tar_is_read_or_refused_in_words(odd_files: Path, tmp_path: Path) -> None:
    tars = sorted((odd_files / "tars").iterdir())
    assert len(tars) > 60
    for tar in tars:
        recipe = parse({"name": "odd", "source": {"shards": str(tar)}})
        with pytest.raises((RecipeError, DataError)) as refused:  # none of them holds an image
            build(recipe, tmp_path / "odd", overlay=True)
        assert str(tar.parent) in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_real_classes_nest_and_are_noisy_exactly(tiny: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "name": "tiny",
        "source": {"folder": str(tiny)},
        "steps": [{"per_class": "${images}"}, {"noise": {"rate": 0.2}}, {"caption": "openai-80"}],
        "matrix": {"images": [25, 50, 100]},
        "expect": {"classes": 85, "noise_rate": 0.2, "captions": True},
    }
    sets = [b.dataset for b in build(parse(document), tmp_path, overlay=True)]
    assert [len(s) for s in sets] == [2_125, 4_250, 8_500]
    assert [d.relation for d in chain([s.path for s in sets])] == ["⊂", "⊂"]
    for one in sets:
        answer = query(
            f"SELECT count(*) FILTER (label <> clean_label) / count(*) AS rate, count(DISTINCT template) AS templates, "
            f'count(*) FILTER (caption IS NULL) AS silent, count(DISTINCT wnid) AS classes FROM "{one.name}"',
            tmp_path,
        )
        assert answer.to_pylist() == [{"rate": 0.2, "templates": 80, "silent": 0, "classes": 85}]
    per_class = query('SELECT DISTINCT count(*) AS n FROM "tiny-images-100" GROUP BY clean_label', tmp_path)
    assert per_class.to_pylist() == [{"n": 100}]
    named = query("SELECT DISTINCT c.wnid = t.wnid AS same FROM \"tiny-images-100\" t JOIN classes c "
                  "ON c.dataset = 'tiny-images-100' AND c.label = t.clean_label", tmp_path)  # fmt: skip
    assert named.to_pylist() == [{"same": True}]


def test_real_overlay_gets_shards_of_the_original_bytes(
    tiny: Path, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    recipe = parse({"name": "few", "source": {"folder": str(tiny)}, "steps": [{"per_class": 5}]})
    build(recipe, tmp_path / "few", overlay=True)
    made = shard(tmp_path / "few").dataset
    reader = made.reader()
    for row in made.table(["key", "file", "offset", "size"]).to_pylist():
        [original] = tiny.glob(f"{row['key']}.*")
        assert reader.read(row["file"], row["offset"], row["size"]) == original.read_bytes()
    assert run_curate("verify", tmp_path / "few").exit_code == 0
    assert os.listdir(tmp_path) == ["few"]
