"""Linear probe: L2-regularised multinomial logistic regression, by L-BFGS, on frozen features."""

# N images, D features, R directions (at most N), C classes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from train.transfer.shots import Draw, folds
from train.transfer.subjects import Outcome, Subject

GRIDS: dict[str, tuple[float, ...]] = {
    "published": tuple(np.logspace(-6, 5, 45).tolist()),  # Kornblith et al., CVPR 2019; SimCLR; DINOv2
    "coarse": tuple(np.logspace(-6, 5, 45)[::4].tolist()),  # its decades: 12 of the 45
}

# scikit-learn's default. At large C it stops short of the optimum by half a point of accuracy, a fraction of what
# a few images to choose by can tell, in a quarter of the time; so it serves to choose C and not to measure.
TOLERANCE_TO_CHOOSE = 1e-4


@dataclass(frozen=True)
class Linear:
    """The protocol: choose C by validation inside the draw, refit on all of it, test once.

    C is 1 / the weight of the L2 penalty on a sum of losses, as in scikit-learn. Features are standardised by
    the images fitted on. Validation is every fold in turn; from `one_fold_from` images on, one fold alone, a
    fifth of the draw. One shot leaves no image to choose by, and takes `fixed_c`.

    Args:
        grid: the values of C that are tried.
        fixed_c: C where nothing can be held out: the default of scikit-learn.
        fold_count: into how many parts the draw is cut.
        one_fold_from: images of a draw from which one fold is enough.
        max_iterations: of L-BFGS for each C, starting from the solution of the C before.
    """

    name: ClassVar[str] = "linear"
    grid: Literal["coarse", "published"] = "coarse"
    fixed_c: float = 1.0
    fold_count: int = 5
    one_fold_from: int = 1000
    max_iterations: int = 1000

    def measure(self, subject: Subject, drawn: Draw) -> Outcome:
        """Fit on a draw and predict the whole test set."""
        with _threads(len(drawn) * subject.train_features.shape[1] * subject.classes):
            return self._measure(subject, drawn)

    def _measure(self, subject: Subject, drawn: Draw) -> Outcome:
        features_KD = subject.train_features[torch.from_numpy(drawn.rows).to(subject.device)]
        labels_K = torch.from_numpy(drawn.labels).to(subject.device)
        c, select = self._choose(features_KD, labels_K, drawn, subject.classes), "validation"
        if c is None:
            c, select = self.fixed_c, "fixed"
        limit = self.max_iterations
        (probe,) = path(features_KD, labels_K, [c], classes=subject.classes, max_iterations=limit)
        predictions_N = probe.logits(subject.test_features).argmax(1).cpu().numpy()
        return Outcome(predictions_N, {"c": c}, select)

    def _choose(self, features_KD: Tensor, labels_K: Tensor, drawn: Draw, classes: int) -> float | None:
        """Return the C of the best accuracy over the folds, ties by the loss; None where there is no fold."""
        cut = folds(drawn, count=self.fold_count)
        cut = cut[:1] if len(drawn) >= self.one_fold_from else cut
        if not cut:
            return None
        cs = GRIDS[self.grid]
        right, loss = np.zeros(len(cs)), np.zeros(len(cs))
        for fold in cut:
            fit, choose = (torch.from_numpy(rows).to(labels_K.device) for rows in (fold.fit, fold.choose))
            fitted = path(
                features_KD[fit],
                labels_K[fit],
                cs,
                classes=classes,
                max_iterations=self.max_iterations,
                tolerance=TOLERANCE_TO_CHOOSE,
            )
            for i, probe in enumerate(fitted):
                logits = probe.logits(features_KD[choose])
                right[i] += (logits.argmax(1) == labels_K[choose]).sum().item()
                loss[i] += cross_entropy(logits, labels_K[choose], reduction="sum").item()
        return cs[max(range(len(cs)), key=lambda i: (right[i], -loss[i]))]


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Args:
        c: what it was fitted with.
        mean, scale: D each; standardise the features.
        weights, bias: weights_DC and bias_C, of the standardised features.
    """

    c: float
    mean: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)

    def logits(self, features_ND: Tensor) -> Tensor:
        """Return logits_NC, float64."""
        return (features_ND.double() - self.mean) / self.scale @ self.weights + self.bias


def path(
    features_ND: Tensor,
    labels_N: Tensor,
    cs: Sequence[float],
    *,
    classes: int,
    max_iterations: int = 1000,
    tolerance: float = 1e-6,
) -> list[Probe]:
    """Fit a probe for each C, each from the solution of the one before.

    With fewer images than features it is solved in the images' own span, where the solution lies: the same
    answer at a fraction of the work (Hastie and Tibshirani, Biostatistics 2004).

    Args:
        classes: outputs.
        max_iterations: of L-BFGS for each C.
        tolerance: the largest part of the gradient of the mean loss at which it stops.
    """
    x_ND = features_ND.double()
    mean_D = x_ND.mean(0)
    scale_D = x_ND.std(0, correction=0)
    varies_D = (scale_D > 1e-12) & (scale_D > 1e-6 * mean_D.abs())  # float32's rounding is no variation
    scale_D = torch.where(varies_D, scale_D, 1.0)
    x_ND = (x_ND - mean_D) / scale_D
    basis_DR = _span(x_ND) if len(x_ND) < x_ND.shape[1] else None
    x_NR = x_ND if basis_DR is None else x_ND @ basis_DR
    solution = x_NR.new_zeros(x_NR.shape[1] + 1, classes)  # the last row is the bias
    probes = []
    for c in cs:
        solution = _solve(x_NR, labels_N, c, solution, max_iterations, tolerance)
        weights_DC = solution[:-1] if basis_DR is None else basis_DR @ solution[:-1]
        probes.append(Probe(c, mean_D, scale_D, weights_DC, solution[-1]))
    return probes


def _span(x_ND: Tensor) -> Tensor:
    """Return an orthonormal basis_DR of the rows' span."""
    values, vectors = torch.linalg.eigh(x_ND @ x_ND.T)
    kept = values > values.max() * 1e-10
    return x_ND.T @ vectors[:, kept] / values[kept].sqrt()


def _solve(x_NR: Tensor, labels_N: Tensor, c: float, start: Tensor, limit: int, tolerance: float) -> Tensor:
    """Minimise the mean cross-entropy + |weights|^2 / (2 C N); the bias is not penalised."""
    solution = start.clone().requires_grad_()
    targets_NC = one_hot(labels_N, solution.shape[1]).double()
    count, penalty = len(x_NR), 1 / (c * len(x_NR))

    @torch.no_grad()
    def closure() -> Tensor:
        weights_RC = solution[:-1]
        log_p_NC = (x_NR @ weights_RC + solution[-1]).log_softmax(1)
        error_NC = (log_p_NC.exp() - targets_NC) / count
        solution.grad = torch.cat([x_NR.T @ error_NC + penalty * weights_RC, error_NC.sum(0, keepdim=True)])
        return -(log_p_NC * targets_NC).sum() / count + weights_RC.square().sum() * (penalty / 2)

    torch.optim.LBFGS(
        [solution],
        max_iter=limit,
        max_eval=2 * limit,
        tolerance_grad=tolerance,
        tolerance_change=1e-12,
        history_size=10,
        line_search_fn="strong_wolfe",
    ).step(closure)
    return solution.detach()


@contextmanager
def _threads(products: int) -> Iterator[None]:
    """Keep small problems on one thread: on a busy machine, waiting for a second takes 100 times the sum."""
    before = torch.get_num_threads()
    if products < 1e7:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
