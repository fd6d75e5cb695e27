"""Scores by sample: what they say, and that recipes can use them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from captioned import build_steps, coloured_pool, described
from handmade import Sample, pictures
from sklearn.metrics import log_loss

from curate.datasets.dataset import Dataset, open_dataset
from curate.errors import DataError, RecipeError
from train.data.loader import Loader
from train.data.provenance import find_dataset
from train.eval.scores import score
from train.methods import clip, supervised
from train.models.registry import normalize
from train.runs import Run, open_run, scratch_run

MakeDataset = Callable[..., Dataset]
SMALL = {"model": "convnet", "image_size": 8, "batch_size": 16, "workers": 0, "device": "cpu", "lr": 3e-3}
CLASSIFIER = supervised.SupervisedConfig(**SMALL, epochs=6)  # type: ignore[arg-type]
TOWERS = clip.ClipConfig(**SMALL, epochs=12, text_width=64, text_layers=1, context_length=16)  # type: ignore[arg-type]


def rows(path: Path) -> dict[str, list]:
    return pq.read_table(path).to_pydict()


def classifier(data: Dataset, out: Path) -> Run:
    return supervised.train(data, out, CLASSIFIER, quiet=True)


def test_a_classifier_gives_loss_and_prediction_of_every_row(dataset: MakeDataset, tmp_path: Path) -> None:
    samples = pictures(40)
    wrong = {"all/0003", "all/0010"}
    noisy = [dataclasses.replace(s, label=(s.label + 1) % 4) if s.key in wrong else s for s in samples]  # type: ignore[operator]
    data = dataset(noisy)
    run = classifier(data, tmp_path / "run")
    found = rows(score(run, data, tmp_path / "scores.parquet", device="cpu", workers=0))
    assert list(found) == ["key", "loss", "confidence", "prediction", "correct"]
    assert found["key"] == [sample.key for sample in samples]
    assert found["prediction"] == [
        f"class {sample.label}" for sample in samples
    ]  # the colours, not the labels
    assert {key for key, correct in zip(found["key"], found["correct"], strict=True) if not correct} == wrong
    plain = Loader(data, batch_size=40, image_size=8, seed=0, augment=False, workers=0, order="manifest")
    [batch] = plain.epoch(0)
    with torch.no_grad():
        shares = run.model()(normalize(batch.images)).double().softmax(1).numpy()
    expected = [
        log_loss([label], [share], labels=range(4)) for label, share in zip(batch.labels, shares, strict=True)
    ]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["confidence"], shares.max(axis=1), rtol=1e-4)


def test_recipes_choose_by_scores(tmp_path: Path) -> None:
    pool = coloured_pool(tmp_path / "pool")
    data = build_steps(tmp_path, pool, [{"noise": {"rate": 0.25}}])
    run = classifier(build_steps(tmp_path, pool, [], "clean"), tmp_path / "run")
    score(run, data, tmp_path / "scores.parquet", device="cpu", workers=0)
    easy = {"top": {"by": "loss", "number": 36, "order": "lowest"}}
    joined = build_steps(
        tmp_path, pool, [{"noise": {"rate": 0.25}}, {"join": {"file": "scores.parquet"}}, easy], "easy"
    )
    kept = joined.table(["label", "clean_label", "correct", "loss"]).to_pydict()
    assert kept["label"] == kept["clean_label"]  # the 12 wrong labels have the largest losses
    assert all(kept["correct"])
    assert max(kept["loss"]) < 2


def test_towers_give_similarity_and_what_they_recognise(tmp_path: Path) -> None:
    pool = coloured_pool(tmp_path / "pool")
    captions = {"caption": {"templates": ["a photo of a {}.", "the {}"]}}
    data = build_steps(tmp_path, pool, [captions])
    run = clip.train(data, tmp_path / "run", TOWERS, quiet=True)
    noisy = build_steps(tmp_path, pool, [captions, {"shuffle_captions": {"rate": 0.5}}], "noisy")
    file = score(run, noisy, tmp_path / "scores.parquet", device="cpu", workers=0)
    found = rows(file)
    assert list(found) == ["key", "confidence", "similarity", "prediction", "correct"]
    assert all(found["correct"])
    assert found["prediction"] == [
        noisy.classes[label].id for label in noisy.table(["label"])["label"].to_pylist()
    ]
    table = noisy.table(["caption", "clean_caption"]).to_pydict()
    pairs = zip(table["caption"], table["clean_caption"], strict=True)
    wrong = np.array([said.split()[-1].strip(".") != true.split()[-1].strip(".") for said, true in pairs])
    similarity = np.array(found["similarity"])
    assert 5 < wrong.sum() < 43
    assert similarity[wrong].max() < similarity[~wrong].min()
    assert (np.abs(similarity) <= 1 + 1e-6).all()


def test_what_cannot_be_scored_is_null(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(32))
    run = classifier(data, tmp_path / "run")
    odd = [*pictures(4), Sample("broken", 1, b"no picture"), dataclasses.replace(pictures(6)[5], label=None)]
    others = dataset([*odd, dataclasses.replace(pictures(8)[7], label=4)], "odd", classes=5)
    with pytest.raises(DataError, match="cannot be read"):
        score(run, others, tmp_path / "scores.parquet", device="cpu", workers=0)
    assert not (tmp_path / "scores.parquet").exists()
    file = score(run, others, tmp_path / "scores.parquet", device="cpu", workers=0, max_broken_fraction=0.5)
    found = rows(file)
    assert [value is None for value in found["loss"]] == [False] * 4 + [True] * 3
    assert [value is None for value in found["correct"]] == [False] * 4 + [True] * 3
    assert [value is None for value in found["prediction"]] == [False] * 4 + [True, False, False]


def test_towers_need_no_classes_and_pass_over_missing_captions(dataset: MakeDataset, tmp_path: Path) -> None:
    bare = [dataclasses.replace(sample, label=None) for sample in described(16)]
    run = clip.train(
        dataset(bare, classes=0), tmp_path / "run", dataclasses.replace(TOWERS, epochs=1), quiet=True
    )
    some = dataset([*bare[:3], dataclasses.replace(bare[3], caption=None)], "some", classes=0)
    found = rows(score(run, some, tmp_path / "scores.parquet", device="cpu", workers=0))
    assert list(found) == ["key", "similarity"]
    assert [value is None for value in found["similarity"]] == [False] * 3 + [True]


def test_scores_are_equal_for_any_number_of_workers_and_a_split_has_its_own(
    dataset: MakeDataset, tmp_path: Path
) -> None:
    data = dataset([*pictures(40, split="train"), *pictures(8, split="val")])
    run = classifier(data, tmp_path / "run")
    files = [
        score(run, data, tmp_path / f"{workers}.parquet", device="cpu", workers=workers).read_bytes()
        for workers in (0, 2)
    ]
    assert files[0] == files[1]
    val = rows(score(run, data, tmp_path / "val.parquet", split="val", device="cpu", workers=0))
    assert val["key"] == [f"val/{i:04d}" for i in range(8)]


@pytest.mark.parametrize(("out", "words"), [("scores.csv", "as Parquet"), ("no/scores.parquet", "no folder")])
def test_a_file_that_cannot_be_meant_is_refused(
    dataset: MakeDataset, tmp_path: Path, out: str, words: str
) -> None:
    data = dataset(pictures(32))
    with pytest.raises(RecipeError, match=words) as caught:
        score(scratch_run(classifier(data, tmp_path / "run").spec), data, tmp_path / out)
    assert caught.value.hint


def test_a_run_that_judges_no_samples_is_refused(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(32))
    with pytest.raises(RecipeError, match="scratch run judges no single samples"):
        score(scratch_run(classifier(data, tmp_path / "run").spec), data, tmp_path / "scores.parquet")


def forget(run: Run, *names: str) -> Run:
    """Return a run as versions of before wrote it, without some fields of its dataset."""
    document = json.loads((run.path / "run.json").read_text())
    document["dataset"] = {k: v for k, v in document["dataset"].items() if k not in names}
    (run.path / "run.json").write_text(json.dumps(document))
    return open_run(run.path)


OLD = ("class_list", "caption", "path_from_run")


def test_a_run_needs_the_dataset_it_learned_from_no_more(dataset: MakeDataset, tmp_path: Path) -> None:
    data, other = dataset(pictures(32)), dataset(pictures(16), "other")
    run = classifier(data, tmp_path / "work" / "runs" / "run")
    assert [(c.name, c.wnid) for c in run.info.dataset.own_classes or ()] == [  # type: ignore[union-attr]
        (c.name, c.wnid) for c in data.classes
    ]
    shutil.rmtree(data.path)
    found = rows(score(open_run(run.path), other, tmp_path / "scores.parquet", device="cpu", workers=0))
    assert all(found["correct"])
    old = forget(run, *OLD)
    with pytest.raises(DataError, match="is not there any more") as caught:
        score(old, other, tmp_path / "scores.parquet", device="cpu", workers=0)
    assert caught.value.hint


def test_towers_recognise_by_the_texts_they_learned_when_the_dataset_is_gone(tmp_path: Path) -> None:
    pool = coloured_pool(tmp_path / "pool")
    data = build_steps(tmp_path, pool, [{"caption": {"templates": ["the {}", "{}!"]}}])
    run = clip.train(data, tmp_path / "run", dataclasses.replace(TOWERS, epochs=1), quiet=True)
    other = build_steps(
        tmp_path, pool, [{"caption": {"templates": ["{}"]}}, {"sample": {"number": 20}}], "other"
    )
    before = score(run, other, tmp_path / "before.parquet", device="cpu", workers=0).read_bytes()
    shutil.rmtree(data.path)
    assert score(run, other, tmp_path / "after.parquet", device="cpu", workers=0).read_bytes() == before


def test_a_run_finds_its_dataset_from_any_folder_and_where_the_tree_was_moved(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "sets").mkdir(parents=True)
    for built in (dataset(pictures(16), "one").path, tmp_path / "one-pool"):
        shutil.move(built, tmp_path / "work" / "sets")
    monkeypatch.chdir(tmp_path / "work")
    data = open_dataset("sets/one")
    run = supervised.train(data, Path("runs/one"), dataclasses.replace(CLASSIFIER, epochs=1), quiet=True)
    monkeypatch.chdir("/")
    run = open_run(tmp_path / "work" / "runs" / "one")
    assert run.info.dataset
    assert Path(run.info.dataset.path) == tmp_path / "work" / "sets" / "one"
    shutil.move(tmp_path / "work", tmp_path / "moved")
    for old in ((), ("path_from_run",)):
        run = forget(open_run(tmp_path / "moved" / "runs" / "one"), *old)
        found = find_dataset(run.info.dataset, run.path)  # type: ignore[arg-type]
        assert found is not None
        assert (found.path.resolve(), found.digest) == (tmp_path / "moved" / "sets" / "one", data.digest)  # type: ignore[union-attr]
    relative = run.info.dataset.model_copy(update={"path": "sets/one"})  # as versions of before wrote it
    assert find_dataset(relative, run.path)
    assert find_dataset(relative.model_copy(update={"digest": "another"}), run.path) is None
