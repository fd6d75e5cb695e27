"""`deterministic`: equal weights twice, nothing left behind, and the operators that cannot are named."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from captioned import described
from handmade import pictures

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.loop.determinism import CUBLAS, WARNED, kernel_settings
from train.loop.optim.train_step import TrainStep
from train.methods import clip, supervised
from train.methods.clip import ClipConfig
from train.methods.supervised import SupervisedConfig

MakeDataset = Callable[..., Dataset]
SMALL = SupervisedConfig(
    model="convnet", image_size=8, epochs=1, batch_size=8, workers=0, device="cpu", log_steps=1,
    deterministic=True,
)  # fmt: skip
RESNET18 = dataclasses.replace(SMALL, model="resnet18", image_size=32)
TOWERS = ClipConfig(
    model="test_vit", image_size=32, epochs=1, batch_size=4, workers=0, device="cpu",
    deterministic=True, embed_dim=32, text_width=64, text_layers=1, context_length=16,
)  # fmt: skip
NO_KERNEL = (
    " does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True, "
    "warn_only=True)'. You can file an issue at https://github.com/pytorch/pytorch/issues to help us"
)


def flags() -> dict[str, Any]:
    """All that a run may set in the process, but for random states."""
    return {
        "mode": torch.get_deterministic_debug_mode(),
        "benchmark": torch.backends.cudnn.benchmark,
        "cudnn": torch.backends.cudnn.deterministic,
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cublas": os.environ.get(CUBLAS),
        "filters": [one for one in warnings.filters if one[1] and one[1].pattern == WARNED.pattern],
        "show": warnings.showwarning,
    }


@pytest.fixture(autouse=True)
def _left_as_it_was() -> Any:
    before = flags()
    yield
    assert flags() == before


def in_each_step(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    learn = TrainStep.step

    def learned(self: TrainStep, *args: Any) -> torch.Tensor:
        happen()
        return learn(self, *args)

    monkeypatch.setattr(TrainStep, "step", learned)


def put() -> None:
    """Use an operator that has no deterministic kernel, not on a CPU either."""
    torch.zeros(4).put_(torch.tensor([0, 1]), torch.ones(2))


def test_a_resnet18_has_equal_weights_twice(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(16))
    one, two = (supervised.train(data, tmp_path / name, RESNET18) for name in "ab")
    assert one.digest == two.digest
    assert one.info.nondeterministic == []


@pytest.mark.parametrize("model", ["test_vit", pytest.param("RN50", marks=pytest.mark.campaign)])
def test_a_clip_has_equal_weights_twice(dataset: MakeDataset, tmp_path: Path, model: str) -> None:
    data, config = dataset(described(8)), dataclasses.replace(TOWERS, model=model)
    one, two = (clip.train(data, tmp_path / name, config) for name in "ab")
    assert one.digest == two.digest
    assert one.info.nondeterministic == []


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_are_chosen_while_the_run_lasts(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    seen: list[dict[str, Any]] = []
    in_each_step(monkeypatch, lambda: seen.append(flags()))
    before = flags()
    supervised.train(
        dataset(pictures(16)), tmp_path / "run", dataclasses.replace(SMALL, deterministic=deterministic)
    )
    assert flags() == before
    told = {name: seen[0][name] for name in ("mode", "benchmark", "flash", "efficient", "cublas")}
    wanted = (1, False, False, False, ":4096:8") if deterministic else (0, True, True, True, None)
    assert tuple(told.values()) == wanted


def test_kernels_are_put_back_after_a_failure_and_a_users_own_choice_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CUBLAS, ":16:8")
    before = flags()
    with pytest.raises(RecipeError), kernel_settings(True):
        _stop_with(os.environ[CUBLAS])
    assert flags() == before
    torch.use_deterministic_algorithms(True)
    with kernel_settings(False):
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_deterministic_debug_mode() == 2
    torch.use_deterministic_algorithms(False)


def _stop_with(cublas: str) -> None:
    assert cublas == ":16:8"
    raise RecipeError("stopped")


def test_attention_is_computed_without_fused_kernels() -> None:
    kernels = torch.nn.attention.SDPBackend
    one = torch.zeros(1, 1, 8, 8)
    assert torch._fused_sdp_choice(one, one, one) != kernels.MATH.value
    with kernel_settings(True):
        assert torch._fused_sdp_choice(one, one, one) == kernels.MATH.value


def test_each_form_of_torchs_warning_names_its_operator() -> None:
    with kernel_settings(True) as warned:
        put()
        for message in (
            f"cumsum_cuda_kernel{NO_KERNEL}",
            f"cumsum_cuda_kernel{NO_KERNEL} (Triggered internally at ../aten/src/ATen/Context.cpp:91.)",
            "Memory Efficient attention defaults to a non-deterministic algorithm. To explicitly enable",
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
            "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because "
            "it uses CuBLAS and you have CUDA >= 10.2.",
        ):
            warnings.warn(message, UserWarning, stacklevel=1)
    assert warned == {"put_", "cumsum_cuda_kernel", "Memory Efficient attention", "CuBLAS"}


def test_other_warnings_go_where_they_went() -> None:
    with kernel_settings(True) as warned, pytest.raises(UserWarning, match="the sky"):
        warnings.warn("the sky falls", UserWarning, stacklevel=1)  # an error, as all are in these tests
    with pytest.warns(UserWarning, match="the sky"), kernel_settings(True):
        warnings.warn("the sky falls", UserWarning, stacklevel=1)
    assert not warned


def test_a_run_names_the_operators_that_warned(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_each_step(monkeypatch, put)
    run = supervised.train(dataset(pictures(16)), tmp_path / "run", SMALL)
    assert json.loads((run.path / "run.json").read_text())["nondeterministic"] == ["put_"]
    said = capsys.readouterr().err.splitlines()
    assert said[-1].endswith("may not repeat bit for bit, for it used operators that do not: put_")
    assert sum("put_" in line for line in said) == 1


def test_a_run_that_does_not_ask_for_it_hears_and_says_nothing(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_each_step(monkeypatch, put)
    run = supervised.train(
        dataset(pictures(16)), tmp_path / "run", dataclasses.replace(SMALL, deterministic=False)
    )
    assert run.info.nondeterministic == []
    assert "bit for bit" not in capsys.readouterr().err


def test_what_warned_before_a_stop_is_named_by_the_run_that_goes_on(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    def stopped() -> None:
        put()
        os.kill(os.getpid(), signal.SIGTERM)

    data = dataset(pictures(16))
    with monkeypatch.context() as patch:
        in_each_step(patch, stopped)
        with pytest.raises(SystemExit):
            supervised.train(data, tmp_path / "run", SMALL)
    assert supervised.train(data, tmp_path / "run", SMALL).info.nondeterministic == ["put_"]


def test_a_dry_run_names_them_before(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_each_step(monkeypatch, put)
    config = dataclasses.replace(SMALL, dry_run=True)
    with pytest.raises(SystemExit):
        supervised.train(dataset(pictures(16)), tmp_path / "run", config)
    assert capsys.readouterr().out.rstrip().endswith("operators that do not: put_")
