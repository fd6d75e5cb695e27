"""Every protocol against an independent oracle: numpy by brute force, scikit-learn, open_clip."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from built_tasks import SIDE, make_split
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from curate.errors import DataError, RecipeError
from train.methods.clip import ClipConfig
from train.models.dual_encoder import build_dual_encoder
from train.models.registry import normalize
from train.runs import Run, finish_run
from train.transfer import Finetune, Linear, LpFt, Task
from train.transfer.features import ProtocolResult, RunFeatures
from train.transfer.protocols import find_protocol, protocol_text
from train.transfer.protocols._classifiers import initial_classifier
from train.transfer.protocols._finetuning import Hyperparameters, _Batches
from train.transfer.protocols._model_selection import ValidationSplit, validation_score
from train.transfer.protocols._probes import _on_cpu, _on_device, _Problem, fit_ridges, logistic_path
from train.transfer.protocols.finetune import PRESETS
from train.transfer.protocols.induction import Induction
from train.transfer.protocols.knn import Knn
from train.transfer.protocols.ridge import LAMBDAS, Ridge
from train.transfer.protocols.zero_shot import ZeroShot
from train.transfer.shots import TrainSubset, draw_shots


def drawn_of(features: RunFeatures, shots: int | str, seed: int = 0) -> TrainSubset:
    return draw_shots(features.keys, features.targets, shots, seed)


def value(outcome: ProtocolResult, metric: str = "top1") -> float:
    return next(score.value for score in outcome.scores if score.metric == metric)


def sides(features: RunFeatures, drawn: TrainSubset) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 features of a draw and of the test set."""
    frozen = features.frozen()
    return frozen.train[drawn.rows].double().numpy(), frozen.test.double().numpy()


def test_knn_is_what_brute_force_says(digits_features: RunFeatures) -> None:
    drawn = drawn_of(digits_features, 20)
    bank, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in sides(digits_features, drawn))
    cosines = queries @ bank.T
    votes = np.zeros((len(queries), 10))
    for row, order in enumerate(np.argsort(-cosines, axis=1)[:, :7]):
        for one in order:
            votes[row, drawn.targets[one]] += np.exp(cosines[row, one] / 0.1)
    truth = digits_features.images.test.targets
    assert (
        value(Knn(k=7, temperature=0.1).measure(digits_features, drawn)) == (votes.argmax(1) == truth).mean()
    )


def test_one_nearest_neighbour_is_that_of_scikit_learn(digits_features: RunFeatures) -> None:
    drawn = drawn_of(digits_features, 10)
    bank, queries = sides(digits_features, drawn)
    theirs = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(bank, drawn.targets)
    accuracy = theirs.score(queries, digits_features.images.test.targets)
    assert 0.3 < accuracy < 1
    assert value(Knn(k=1).measure(digits_features, drawn)) == accuracy
    assert value(Induction().measure(digits_features, drawn)) == accuracy


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_induction_ranks_classes_by_their_nearest_image(digits_features: RunFeatures, distance: str) -> None:
    drawn = drawn_of(digits_features, 5)
    bank, queries = sides(digits_features, drawn)
    if distance == "cosine":
        bank, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
    apart = np.linalg.norm(
        queries[:, None] - bank[None], axis=2
    )  # of unit vectors, the same order as cosines
    nearest = np.stack([apart[:, drawn.targets == c].min(axis=1) for c in range(10)], axis=1)
    truth = digits_features.images.test.targets
    top5 = (np.argsort(nearest, axis=1)[:, :5] == truth[:, None]).any(axis=1).mean()
    outcome = Induction(distance=distance).measure(digits_features, drawn)  # type: ignore[arg-type]
    assert value(outcome) == pytest.approx((nearest.argmin(1) == truth).mean(), abs=0.002)
    assert value(outcome, "top5") == pytest.approx(top5, abs=0.002)
    assert value(outcome) < value(outcome, "top5") < 1


@pytest.mark.parametrize("shots", [3, 60])  # fewer images than features, and more
def test_ridge_is_that_of_scikit_learn_and_leaves_out_as_fitting_again_does(
    digits_features: RunFeatures, shots: int
) -> None:
    drawn = drawn_of(digits_features, shots)
    bank, queries = sides(digits_features, drawn)
    found = fit_ridges(torch.from_numpy(bank), torch.from_numpy(drawn.targets), [0.1], classes=10)
    scaler = StandardScaler().fit(bank)
    x, y = scaler.transform(bank), 2.0 * np.eye(10)[drawn.targets] - 1
    x[:, bank.std(0) < 1e-12] = 0
    theirs = SklearnRidge(alpha=0.1 * len(bank)).fit(x, y)
    ours = found.probes[0].logits(torch.from_numpy(queries)).numpy()
    assert np.abs(ours - theirs.predict(scaler.transform(queries))).max() < 1e-6
    for one in (0, len(bank) // 2):  # what is fixed is how features are scaled
        rest = np.arange(len(bank)) != one
        again = SklearnRidge(alpha=0.1 * len(bank), fit_intercept=False)
        # With an intercept, leaving out is exact for the augmented problem; so the intercept is a column here.
        augmented = np.c_[x, np.full(len(x), 1e6)]
        again.fit(augmented[rest], y[rest])
        assert np.abs(found.left_out[0][one].numpy() - again.predict(augmented[[one]])[0]).max() < 1e-4


def test_ridge_is_near_the_linear_probe_and_chooses_within_its_grid(digits_features: RunFeatures) -> None:
    drawn = drawn_of(digits_features, "full")
    ridge = Ridge().measure(digits_features, drawn)
    linear = Linear(grid="coarse").measure(digits_features, drawn)
    assert ridge.chosen["lambda"] in LAMBDAS
    assert value(ridge) > 0.9
    assert abs(value(ridge) - value(linear)) < 0.05
    assert Ridge(fixed_lambda=3.0).measure(digits_features, drawn_of(digits_features, 1)).chosen == {
        "lambda": 3.0
    }


def test_refined_grid_finds_a_published_c_as_good_as_the_decades(digits_features: RunFeatures) -> None:
    drawn = drawn_of(digits_features, 5)
    refined = Linear().measure(digits_features, drawn).chosen["c"]
    coarse = Linear(grid="coarse").measure(digits_features, drawn).chosen["c"]
    assert 10**-0.76 < refined / coarse < 10**0.76  # within three steps of a quarter of a decade


def test_choosing_by_the_test_set_is_done_when_asked_for_and_marked(digits_features: RunFeatures) -> None:
    drawn = drawn_of(digits_features, 2)
    by_test = Linear(select="test").measure(digits_features, drawn)
    honest = Linear().measure(digits_features, drawn)
    assert (by_test.select, honest.select) == ("test", "validation")
    assert value(by_test) >= value(honest)


# Several labels an image


@pytest.fixture(scope="module")
def marks() -> Task:
    """Images with a red, a green and a blue mark, or not; some of the labels are not counted."""

    def side(count: int, seed: int, prefix: str):
        generator = np.random.default_rng(seed)
        labels = (generator.random((count, 3)) < [0.5, 0.3, 0.2]).astype(np.int8)
        pixels = generator.integers(0, 100, (count, SIDE, SIDE, 3)).astype(np.uint8)
        for image, has in zip(pixels, labels, strict=True):
            for channel in np.flatnonzero(has):
                image[2 + 4 * channel : 5 + 4 * channel, 3:12, channel] = 255
        labels[:5, 0] = -1
        split = make_split(pixels, [0] * count, prefix)
        return dataclasses.replace(split, labels=labels)

    return Task(
        "marks", ("red", "green", "blue"), side(80, 0, "train-"), side(60, 1, "test-"), metric="map11"
    )


@pytest.fixture(scope="module")
def marks_features(scratch: Run, marks: Task) -> RunFeatures:
    return RunFeatures(scratch, marks, image_size=SIDE, device=torch.device("cpu"))


def test_several_labels_are_one_regression_each_as_in_scikit_learn(marks_features: RunFeatures) -> None:
    drawn = drawn_of(marks_features, "full")
    bank, queries = sides(marks_features, drawn)
    targets = torch.from_numpy(drawn.targets)
    # C is per counted label here as there: both sum the losses of the class's own images
    (probe,) = logistic_path(torch.from_numpy(bank), targets, [0.3], classes=3)
    scaler = StandardScaler().fit(bank)
    ours = probe.logits(torch.from_numpy(queries)).numpy()
    for c in (1, 2):
        model = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000)
        model.fit(scaler.transform(bank), drawn.targets[:, c])
        assert np.abs(ours[:, c] - model.decision_function(scaler.transform(queries))).max() < 0.02
    counted = drawn.targets[:, 0] >= 0
    assert (~counted).sum() > 0
    model = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000)
    model.fit(scaler.transform(bank)[counted], drawn.targets[counted, 0])
    assert np.abs(ours[:, 0] - model.decision_function(scaler.transform(queries))).max() < 0.02


@pytest.mark.parametrize(
    "protocol",
    [Linear(), Ridge(), Knn(k=5), Finetune(lrs=(3e-3,), min_steps=60, max_steps=60, shift_fraction=0.07)],
    ids=lambda p: p.name,
)
def test_every_protocol_takes_several_labels(marks_features: RunFeatures, protocol) -> None:
    outcome = protocol.measure(marks_features, drawn_of(marks_features, "full"))
    assert [score.metric for score in outcome.scores] == ["map11", "map"]
    assert set(outcome.per_class) == {"red", "green", "blue"}
    assert np.mean(list(outcome.per_class.values())) == pytest.approx(value(outcome, "map11"))
    assert value(outcome, "map11") > 0.6  # chance is the share of images that have a mark, 1/3
    for score in outcome.scores:
        assert score.ci_low <= score.value <= score.ci_high


def test_induction_wants_one_label_an_image(marks_features: RunFeatures) -> None:
    with pytest.raises(RecipeError, match="several labels"):
        Induction().refuse(marks_features.run, marks_features.task)


# Layers


def test_layer_of_the_backbone_is_its_output_averaged(digits_features: RunFeatures) -> None:
    named = dict(digits_features.model.backbone.named_modules())
    last = [name for name in named if name.startswith("stages.")][-1]
    assert torch.allclose(digits_features.frozen(last).test, digits_features.frozen().test, atol=1e-6)
    first = digits_features.frozen("stages.0").test
    assert first.shape == (599, 32)
    assert value(Knn(layer="stages.0").measure(digits_features, drawn_of(digits_features, 5))) > 0.15


def test_layer_that_is_not_there_is_told(digits_features: RunFeatures) -> None:
    with pytest.raises(RecipeError, match=r"no layer 'stages\.99'") as caught:
        Linear(layer="stages.99").measure(digits_features, drawn_of(digits_features, 1))
    assert "did you mean" in (caught.value.hint or "")


def test_fc7_of_alexnet_is_what_the_network_itself_ends_in() -> None:
    from train.models.layers import tapped
    from train.models.registry import build

    model = build("alexnet", num_classes=0, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(tapped(model.backbone, "fc7")(images), model.backbone(images))
        assert (tapped(model.backbone, "fc6")(images) >= 0).all()


# Texts


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory: pytest.TempPathFactory, scratch: Run) -> Run:
    """Towers with random weights, saved as a run of clip."""
    config = ClipConfig(
        model="convnet", image_size=SIDE, embed_dim=32, text_width=64, text_layers=1, context_length=16
    )
    pair = build_dual_encoder(config.dual_encoder, seed=1)
    info = scratch.info.model_dump(exclude={"name", "weights", "code"})
    info |= {"method": "clip", "config": dataclasses.asdict(config), "spec": dataclasses.asdict(pair.spec)}
    return finish_run(tmp_path_factory.mktemp("towers"), info, pair.state_dict())


@pytest.fixture(scope="module")
def clip_features(clip_run: Run, dots_task: Task) -> RunFeatures:
    return RunFeatures(clip_run, dots_task, image_size=SIDE, device=torch.device("cpu"))


def zero_shot_answers(features: RunFeatures) -> np.ndarray:
    """Return the answers of the towers, class by class and text by text, without the code under test."""
    from train.eval.zero_shot import dual_encoder_of
    from train.models.registry import normalize

    pair, tokenizer = dual_encoder_of(features.run)
    with torch.no_grad():
        images = pair.encode_images(
            normalize(features.images.test.squares.take(np.arange(200), features.device))
        )
        columns = []
        for name in features.task.classes:
            texts = pair.encode_texts(tokenizer([t.replace("{}", name) for t in features.task.templates]))
            columns.append(images @ torch.nn.functional.normalize(texts.mean(0), dim=0))
    return torch.stack(columns, dim=1).argmax(1).numpy()


def test_zero_shot_goes_by_the_names_in_label_order(clip_features: RunFeatures) -> None:
    right = (zero_shot_answers(clip_features) == clip_features.images.test.targets).mean()
    assert value(ZeroShot().measure(clip_features, drawn_of(clip_features, 1))) == right
    others = ZeroShot(templates=("{}", "no {}")).measure(clip_features, drawn_of(clip_features, 1))
    assert others.select == "none"


def test_zero_shot_head_starts_from_the_texts(clip_features: RunFeatures) -> None:
    drawn = drawn_of(clip_features, 5)
    test = clip_features.images.test
    expected = value(ZeroShot().measure(clip_features, drawn))
    for head in ("zero-shot", "auto"):
        start = initial_classifier(clip_features, drawn, head, probe=Linear(), templates=())  # type: ignore[arg-type]
        answers = Finetune().predict(clip_features, start, test)
        assert (answers.argmax(1).numpy() == test.targets).mean() == expected
    cosines = answers / clip_features.dual_encoder[0].logit_scale.exp()
    assert cosines.abs().max() <= 1
    tuned = Finetune(lrs=(1e-3,), min_steps=2, max_steps=2, head="zero-shot").measure(clip_features, drawn)
    assert 0 <= value(tuned) <= 1


def test_runs_without_texts_have_no_zero_shot(digits_features: RunFeatures) -> None:
    with pytest.raises(RecipeError, match="has no texts"):
        ZeroShot().measure(digits_features, drawn_of(digits_features, 1))


def test_lp_ft_starts_from_the_probe(digits_features: RunFeatures) -> None:
    drawn = drawn_of(digits_features, 5)
    start = initial_classifier(digits_features, drawn, "probe", probe=Linear(), templates=())
    frozen = LpFt().predict(digits_features, start, digits_features.images.test).argmax(1).numpy()
    probed = value(Linear().measure(digits_features, drawn))
    assert (frozen == digits_features.images.test.targets).mean() == pytest.approx(probed, abs=0.002)


# Fine-tuning's own


def test_choosing_by_test_takes_the_best_epoch_and_says_so(digits_features: RunFeatures) -> None:
    drawn = drawn_of(digits_features, 2)
    protocol = Finetune(lrs=(1e-3, 1e-2), epochs=(3,), min_steps=1, batch_size=5, select="test")
    outcome = protocol.measure(digits_features, drawn)
    assert outcome.select == "test"
    assert outcome.chosen["epoch"] in range(1, 4)
    assert outcome.notes == ("chosen by the test set itself",)
    seen: list[float] = []
    truth = digits_features.images.test.targets

    def watch(model, epoch):
        answers = protocol.predict(digits_features, model, digits_features.images.test)
        seen.append((answers.argmax(1).numpy() == truth).mean())

    for trial in protocol.points():
        protocol.train(digits_features, drawn, digits_features.model, trial, watch)
    assert len(seen) == 2 * 3
    assert value(outcome) == max(seen)


@pytest.mark.parametrize("augment", ["crop", "randaugment", "none"])
def test_every_augmentation_learns_and_repeats_itself(digits_features: RunFeatures, augment: str) -> None:
    drawn = drawn_of(digits_features, 10)
    protocol = Finetune(
        lrs=(3e-3,),
        min_steps=30,
        max_steps=30,
        batch_size=32,
        augment=augment,
        min_area=0.5,
        test_fraction=0.875,  # type: ignore[arg-type]
    )
    first, again = (protocol.measure(digits_features, drawn) for _ in range(2))
    assert value(first) == value(again) > 0.3  # chance is 0.1


def test_presets_are_the_published_numbers() -> None:
    entezari, kornblith, vtab = (PRESETS[name] for name in ("entezari2023", "kornblith", "vtab-1k"))
    assert entezari["lrs"] == (1e-4, 3e-4, 1e-3, 3e-3)
    assert (entezari["epochs"], entezari["batch_size"], entezari["warmup_steps"]) == ((128,), 128, 500)
    assert np.allclose(np.log10(kornblith["lrs"]), np.linspace(-4, -1, 7))
    assert kornblith["weight_decays"][0] == 0
    assert np.allclose(np.log10(kornblith["weight_decays"][1:]), np.linspace(-6, -3, 7))
    assert (kornblith["steps"], kornblith["batch_size"]) == (20_000, 256)
    assert (vtab["steps"], vtab["batch_size"], vtab["lrs"], vtab["warmup_steps"]) == (1000, 64, (0.01,), 80)
    for name in PRESETS:
        assert find_protocol(f"finetune:{name}").name == "finetune"
    assert Finetune(**kornblith).points()[1] == Hyperparameters(1e-4, 1e-6 / 1e-4, 10)
    step = Finetune(**vtab)
    assert [round(step.rate(s, 1000), 6) for s in (0, 79, 299, 300, 600, 900)] == [
        0.0125,
        1,
        1,
        0.1,
        0.01,
        0.001,
    ]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("knn", "knn"),
        ("knn(k=200, temperature=0.1)", "knn(k=200, temperature=0.1)"),
        ("finetune:kornblith(batch_size=128)", "finetune:kornblith(batch_size=128)"),
        ("finetune(lrs=[0.1, 0.2])", "finetune(lrs=[0.1, 0.2])"),
        ({"linear": {"grid": "coarse"}}, "linear(grid=coarse)"),
        ({"finetune": {"preset": "vtab-1k"}}, "finetune:vtab-1k"),
        ("lp-ft:entezari2023", "lp-ft:entezari2023"),
        ({"finetune": {"lrs": 0.1, "epochs": 3}}, "finetune(lrs=[0.1], epochs=[3])"),
    ],
)
def test_protocols_are_written_as_they_are_read(told, said: str) -> None:
    protocol = find_protocol(told)
    assert protocol_text(protocol.name, protocol.settings) == said
    assert find_protocol(said) == protocol


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("linear(fixed_c=0)", "fixed_c is 0"),
        ("finetune(lrs=[])", "lrs is"),
        ("finetune(augment=cutout)", "augment"),
        ("finetune(test_fraction=2)", "test_fraction is 2"),
        ("finetune(fixed_lr=-1)", "fixed_lr is -1"),
        ("finetune(shift_fraction=2)", "shift_fraction is 2"),
        ("finetune(milestones=[2])", "milestones is"),
        ({"knn": 5}, "are no settings"),
        ("knn(k=1, k=2)", "cannot be read"),
        ("ridge(lambdas=[0])", "lambdas is"),
        ({"knn": {"k": 2}, "linear": {}}, "names no protocol"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(told, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        find_protocol(told)


def test_features_that_are_not_there_or_no_numbers_are_refused(scratch: Run, dots_task: Task) -> None:
    class Odd(type(scratch)):  # type: ignore[misc]
        def model(self, *args, **kwargs):
            model = super().model(*args, **kwargs)
            model.backbone = torch.nn.Sequential(torch.nn.Flatten(), Cut(self.width))
            return model

    class Cut(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.width = width

        def forward(self, x):
            return x[:, : self.width] * (float("nan") if self.width else 1.0)

    for width, says in ((0, "gives no features"), (3, "not finite")):
        run = Odd(scratch.path, scratch.info)
        run.width = width
        with pytest.raises(DataError, match=says):
            RunFeatures(run, dots_task, image_size=SIDE, device=torch.device("cpu")).frozen()


def test_runs_features_are_computed_once(scratch: Run, dots_task: Task, monkeypatch, tmp_path: Path) -> None:
    features = RunFeatures(scratch, dots_task, image_size=SIDE, device=torch.device("cpu"))
    drawn = drawn_of(features, 5)
    Linear(grid="coarse").measure(features, drawn)
    monkeypatch.setattr("train.transfer.features.forward", None)  # a second pass would call it
    for protocol in (Ridge(), Knn(), Induction(), Linear(grid="coarse")):
        assert 0 <= value(protocol.measure(features, drawn)) <= 1


def test_flips_crops_and_erasing_are_as_the_task_and_the_settings_say(dots_task: Task, scratch: Run) -> None:
    features = RunFeatures(scratch, dots_task, image_size=SIDE, device=torch.device("cpu"))
    assert not dots_task.flip
    drawn = drawn_of(features, 5)
    crop = _Batches(Finetune(augment="crop", min_area=0.8), features, drawn)
    rows = np.arange(len(drawn))
    plain = normalize(features.images.train.squares.take(drawn.rows, features.device))
    apart = [(crop.of(rows, step)[0] - plain).abs().mean().item() for step in range(4)]
    mirrored = (plain.flip(3) - plain).abs().mean().item()
    assert max(apart) < 0.7 * mirrored  # a crop of most of it changes little
    assert len(set(apart)) == 4  # other crops at other steps
    erased = _Batches(Finetune(augment="randaugment"), features, drawn)
    assert erased.erase is not None
    assert crop.erase is None


def test_probe_that_is_tuned_on_has_not_seen_what_its_rate_is_chosen_by(
    digits_features: RunFeatures, monkeypatch
) -> None:
    drawn = drawn_of(digits_features, 5)
    seen: list[set[int]] = []
    genuine = Linear.fit
    monkeypatch.setattr(
        Linear, "fit", lambda self, s, d: seen.append(set(d.rows.tolist())) or genuine(self, s, d)
    )
    chosen: list[set[int]] = []
    predict = LpFt.predict

    def recorded(self, features, model, images, rows=None):
        if rows is not None:  # of the training split: the images that are held out
            chosen.append(set(rows.tolist()))
        return predict(self, features, model, images, rows)

    monkeypatch.setattr(LpFt, "predict", recorded)
    LpFt(lrs=(1e-4, 1e-3), min_steps=1, max_steps=1).measure(digits_features, drawn)
    assert seen[0] == set(drawn.rows.tolist())  # what is refitted at the end starts from all
    assert not seen[1] & chosen[0]
    assert chosen[0] == chosen[1] != set()


def test_choice_is_by_the_tasks_own_metric() -> None:
    targets = torch.tensor([0] * 8 + [1] * 2)
    common, fair = torch.tensor([[1.0, 0.0]] * 10), torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    for metric, best_one in (("top1", common), ("mean_per_class", fair)):
        merits = [validation_score(answers, targets, metric) for answers in (common, fair)]  # type: ignore[arg-type]
        assert [common, fair][merits.index(max(merits))] is best_one


def test_what_is_not_a_number_is_never_chosen() -> None:
    nothing = torch.full((3, 2), -1, dtype=torch.int8)
    value, negated = validation_score(torch.zeros(3, 2), nothing, "map")
    assert (value, negated) == (0.0, 0.0)
    assert (
        validation_score(torch.full((3, 2), float("nan")), torch.zeros(3, dtype=torch.int64), "top1")[0] < 0
    )


def test_ridge_of_a_draw_with_replacement_holds_out_all_copies_of_an_image(
    digits_features: RunFeatures, monkeypatch
) -> None:
    rows = np.concatenate([np.flatnonzero(digits_features.targets == c)[:4] for c in range(10)])
    drawn = draw_shots(
        [digits_features.keys[i] for i in rows], digits_features.targets[rows], 12, 0, sampling="replacement"
    )
    drawn = dataclasses.replace(drawn, rows=rows[drawn.rows])
    assert len(set(drawn.rows.tolist())) < len(drawn)
    seen: list[ValidationSplit] = []
    monkeypatch.setattr(
        "train.transfer.protocols.ridge.select_best", lambda held, *rest: seen.extend(held) or 3
    )
    assert Ridge().measure(digits_features, drawn).chosen["lambda"] == LAMBDAS[3]
    assert len(seen) > 1
    for one in seen:
        assert torch.cdist(one.train, one.validation).min() > 0


def test_on_a_device_and_on_a_cpu_the_same_optimum_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    x, targets = torch.randn(40, 6, generator=generator).double(), torch.arange(40) % 3
    problem = _Problem.of(x, targets, 3)
    start = x.new_zeros(7, 3)
    ours, theirs = (way(lambda w: problem.value(w, 0.02), start, 500, 1e-9) for way in (_on_cpu, _on_device))
    assert ours.abs().max() > 0.1
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_warm_up_of_the_paper_is_not_cut_to_a_short_training() -> None:
    protocol = find_protocol("finetune:entezari2023")
    assert protocol.rate(127, 128) == pytest.approx(128 / 500)  # type: ignore[attr-defined]
    assert protocol.rate(499, 5000) == 1.0  # type: ignore[attr-defined]


def test_grid_of_one_point_is_taken_at_one_shot_too(digits_features: RunFeatures) -> None:
    outcome = Finetune(lrs=(0.03,), min_steps=1, max_steps=1).measure(
        digits_features, drawn_of(digits_features, 1)
    )
    assert (outcome.chosen["lr"], outcome.select) == (0.03, "none")
