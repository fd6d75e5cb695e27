"""Every recipe that is shipped: it builds, scaled down, on small pools, and keeps its promises over all of ImageNet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from campaigns import masses

from curate.builds.build import build
from curate.builds.plan import plan
from curate.datasets.dataset import Dataset
from curate.datasets.diffs import chain
from curate.recipes.recipe import load
from curate.sources.synthetic.classes import POOL
from curate.sources.synthetic.folders import write_folder
from curate.sources.table.layouts.guessing import find
from curate.wordnet.lists import wnids_of

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
# Recipe → what makes it fit a small pool; the folders and files it reads are filled in by their variable's name.
SMALL: dict[str, dict[str, str]] = {
    "huh2016/images-per-class": {"scale": "0.02"},
    "huh2016/classes-bottom-up": {"scale": "0.02"},
    "huh2016/classes-top-down": {"scale": "0.02"},
    "huh2016/budgets": {"scale": "0.02"},
    "huh2016/pascal-removed": {"scale": "0.02"},
    "huh2016/halves": {"scale": "0.02"},
    "entezari2023/laion-scale": {"scale": "0.00003"},
    "entezari2023/sources": {"scale": "0.0001"},
    "entezari2023/captions": {"scale": "0.02"},
    "entezari2023/noise-size": {"scale": "0.02"},
    "breeds/subpopulations": {"missing": "drop"},
    "datacomp/filters": {"min_side": "16"},
    "datacomp/pool": {"min_side": "16"},
    "entezari2023/laion-slices": {"scale": "0.00001"},
    "entezari2023/sources/cc3m": {"scale": "0.5"},
    "entezari2023/sources/cc12m": {"scale": "0.00002"},
    "entezari2023/sources/laion": {"scale": "0.00002"},
    "entezari2023/sources/redcaps": {"scale": "0.00002"},
    "entezari2023/sources/shutterstock": {"scale": "0.00002"},
    "entezari2023/sources/wit": {"scale": "0.5"},
    "entezari2023/sources/yfcc15m": {"scale": "0.00002"},
    "longtail/imagenet-lt": {"scale": "0.015"},
    "longtail/exponential-and-step": {"largest": "100"},
}
SOURCES = ("cc3m", "cc12m", "redcaps", "yfcc", "laion", "wit", "shutterstock")


def test_every_recipe_is_tested_here() -> None:
    there = {str(p.relative_to(RECIPES).with_suffix("")) for p in RECIPES.rglob("*.yaml")}
    assert set(SMALL) == there - {"demo"}


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_opens_with_its_command(name: str) -> None:
    head = (RECIPES / f"{name}.yaml").read_text().split("\nname:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"curate build recipes/{name}.yaml --set" in head
    assert "2 cores" in head or "seconds" in head


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], dict[str, str]]:
    """Return what a recipe reads, by variable, made from a folder of class folders."""
    made: dict[Path, dict[str, str]] = {}

    def of(folder: Path) -> dict[str, str]:
        if folder not in made:
            work = tmp_path_factory.mktemp("read")
            made[folder] = {"imagenet": str(folder), **_pairs(folder, work)}
        return made[folder]

    tables = _tables(tmp_path_factory.mktemp("tables"))

    def settings(name: str, folder: Path) -> dict[str, str]:
        text = (RECIPES / f"{name}.yaml").read_text()
        if "${table}" in text:
            return {"table": str(tables[name.split("/")[-1].partition("-")[0]])}
        given = {v: path for v, path in of(folder).items() if f"${{{v}}}" in text or f"${{{v}}}/" in text}
        if name.startswith("longtail/exp"):
            given["pool"] = str(folder)
        return given

    return settings


def _pairs(folder: Path, work: Path) -> dict[str, str]:
    """Make a dataset of image-text pairs, seven under the names of the papers' sources, and captions of some images."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    assert files
    lines = [
        {"filename": p.name, "title": f"title {i}", "tags": ["a", "b"], "description": None}
        for i, p in enumerate(files) if i % 2
    ]  # fmt: skip
    (work / "captions.json").write_text(json.dumps(lines))
    recipe = work / "pairs.yaml"
    recipe.write_text(
        f"name: pairs\nsource: {{folder: {folder}}}\nsteps:\n"
        "  - caption: {templates: ['a photo of a {} for you.', 'das Bild'' {}']}\n"
        "  - compute: {columns: {language: \"if(caption LIKE 'das%', 'de', 'en')\", "
        'similarity: "(md5_number(key) % 400)::DOUBLE / 1000"}}\n'
    )
    first, *others = (work / "pools" / source for source in SOURCES)
    build(load(recipe), first, overlay=True)
    for other in others:
        shutil.copytree(first, other)
    return {
        "pool": str(first), "laion": str(first), "pools": str(work / "pools"), "captions": str(work / "captions.json"),
    }  # fmt: skip


def _tables(work: Path) -> dict[str, Path]:
    """Write 400 rows in the layout of each source that recipes take from its table."""
    urls = [f"http://a.example/{i}.jpg" for i in range(400)]
    texts = [f"a photo of a dog with the number {i}" for i in range(400)]
    size = {
        "width": pa.array([400] * 400, pa.int32()),
        "height": pa.array([300 + i % 50 for i in range(400)], pa.int32()),
    }
    scores = [0.2 + i % 20 / 100 for i in range(400)]
    laion = {"URL": urls, "TEXT": texts, "WIDTH": size["width"], "HEIGHT": size["height"], "similarity": scores,
             "NSFW": ["UNLIKELY" if i % 8 else "NSFW" for i in range(400)]}  # fmt: skip
    datacomp = {"uid": [f"{i:032x}" for i in range(400)], "url": urls, "text": texts, "sha256": ["0" * 64] * 400,
                "original_width": size["width"], "original_height": size["height"],
                "clip_b32_similarity_score": scores, "clip_l14_similarity_score": scores}  # fmt: skip
    annotations = [{"image_id": str(i), "author": "a", "url": u, "raw_caption": t, "caption": t, "subreddit": "dogs"}
                   for i, (u, t) in enumerate(zip(urls, texts, strict=True))]  # fmt: skip
    wit = ["language\tpage_url\timage_url\tcaption_reference_description\toriginal_height\toriginal_width"]
    wit += [
        f"{'en' if i % 2 else 'de'}\thttp://w.example/{i}\t{u}\t{texts[i]}\t300\t400"
        for i, u in enumerate(urls)
    ]
    pairs = list(zip(urls, texts, strict=True))
    columns = find("yfcc15m").headers[0]
    yfcc = [{"downloadurl": u, "title": quote_plus(t), "description": "", "photoid": str(i)}
            for i, (u, t) in enumerate(pairs)]  # fmt: skip
    written = {
        "cc3m.tsv": "".join(f"{t}\t{u}\n" for u, t in pairs),
        "cc12m.tsv": "".join(f"{u}\t{t}\n" for u, t in pairs),
        "redcaps.json": json.dumps({"info": {"year": 2020}, "annotations": annotations}),
        "wit.tsv": "\n".join(wit) + "\n",
        "yfcc15m.tsv": "".join("\t".join(row.get(c, "") for c in columns) + "\n" for row in yfcc),
        "shutterstock.csv": "url,description\n" + "".join(f'{u},"{t}"\n' for u, t in pairs),
    }
    for name, content in written.items():
        (work / name).write_text(content)
    pq.write_table(pa.table(laion), work / "laion.parquet")
    pq.write_table(pa.table(datacomp), work / "pool.parquet")
    return {f.stem: f for f in work.iterdir()}


def built(
    name: str, folder: Path, read: Callable[..., dict[str, str]], out: Path, *, arms: slice = slice(None)
) -> list[Dataset]:
    recipe = load(RECIPES / f"{name}.yaml", read(name, folder) | SMALL[name])
    if not recipe.family:
        return [build(recipe, out, overlay=True)[0].dataset]
    return [build(arm, out / arm.name, overlay=True)[0].dataset for arm in recipe.family[arms]]


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "pool"
    write_folder(folder, classes=POOL, images_per_class={"train": 21}, size=16, seed=0)
    return folder / "train"


@pytest.mark.parametrize("name", SMALL)
def test_all_of_a_recipe_is_planned_and_its_last_set_is_built_on_the_synthetic_pool(
    name: str, synthetic: Path, read: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    recipe = load(RECIPES / f"{name}.yaml", read(name, synthetic) | SMALL[name])
    plans = [plan(one) for one in recipe.family or [recipe]]
    assert len({p.recipe.name for p in plans}) == len(plans)
    [last] = built(name, synthetic, read, tmp_path, arms=slice(-1, None))
    assert (len(last) > 0, last.name) == (True, plans[-1].recipe.name)


@pytest.mark.campaign
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("pool", ["synthetic", "tiny"])
def test_a_recipe_builds(
    name: str, pool: str, request: pytest.FixtureRequest, read: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    sets = built(name, request.getfixturevalue(pool), read, tmp_path)
    assert all(len(d) for d in sets)
    assert len({d.name for d in sets}) == len(sets)


@pytest.mark.parametrize(
    "name",
    masses(
        ["huh2016/images-per-class", "entezari2023/laion-scale", "entezari2023/laion-slices"],
        kept=lambda name: name == "huh2016/images-per-class",
    ),
)
def test_sizes_of_a_family_nest(
    name: str, synthetic: Path, read: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    sets = built(name, synthetic, read, tmp_path / "family")
    diffs = chain([tmp_path / "family"])
    assert len(diffs) == len(sets) - 1 >= 4
    assert {d.relation for d in diffs} <= {"⊂", "="}
    assert [d.rows_a for d in diffs] == sorted(d.rows_a for d in diffs)


def test_equal_arms_of_the_caption_experiment_differ_in_text_alone(
    synthetic: Path, read: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    built("entezari2023/captions", synthetic, read, tmp_path, arms=slice(5))
    arms = [tmp_path / f"captions-{arm}" for arm in ("equal-flickr", "equal-templated", "mixed-50")]
    for found in chain(arms):
        assert (found.relation, found.relabelled) == ("≅", 0)
        assert found.recaptioned > 0


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory, jpeg: Callable[..., bytes]) -> Path:
    """An image of each class of ImageNet-1k."""
    folder = tmp_path_factory.mktemp("imagenet") / "train"
    for wnid in wnids_of("imagenet-1k"):
        (folder / wnid).mkdir(parents=True)
        (folder / wnid / f"{wnid}_1.JPEG").write_bytes(jpeg(1))
    return folder


PUBLISHED = {
    "huh2016/classes-bottom-up": [918, 753, 486, 79, 9],
    "huh2016/classes-top-down": [127, 10, 2],
    "huh2016/pascal-removed": [771],
    "huh2016/halves": [522, 478, 522, 478],
    "breeds/subpopulations": [13, 13, 30, 30, 17, 17, 26, 26],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_over_all_of_imagenet_the_classes_are_as_many_as_published(name: str, imagenet: Path) -> None:
    recipe = load(RECIPES / f"{name}.yaml", {"imagenet": str(imagenet)})
    known = [plan(one).classes for one in recipe.family or [recipe]]
    assert [len(classes or ()) for classes in known] == PUBLISHED[name]


@pytest.mark.parametrize("name", masses(PUBLISHED, kept=lambda name: name == "huh2016/classes-top-down"))
def test_sets_over_all_of_imagenet_have_the_classes_that_were_planned(
    name: str, imagenet: Path, tmp_path: Path
) -> None:
    recipe = load(RECIPES / f"{name}.yaml", {"imagenet": str(imagenet)})
    sets = [b.dataset for b in build(recipe, tmp_path / "out", overlay=True)]
    assert [len(d.classes) for d in sets] == PUBLISHED[name]
