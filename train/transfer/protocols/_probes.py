"""Linear classifiers of frozen features: logistic regression by L-BFGS, and ridge regression in closed form."""

# N images, D features, R directions (at most N), C classes

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid, one_hot

ON_CPU_UP_TO = 10_000_000  # images x directions x classes; a core takes 1.9 ms an evaluation, a GPU 1.5
DOUBLE_UP_TO = 1 << 29  # features in float64; more of them in float32, which halves the memory


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier.

    Args:
        strength: what it was fitted with: C of a logistic regression, lambda of a ridge.
        mean, scale: D each; standardise the features.
        weights, bias: weights_DC and bias_C, of the standardised features.
    """

    strength: float
    mean: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)

    def logits(self, features_ND: Tensor) -> Tensor:
        """Return logits_NC."""
        weights_DC, bias_C = self.raw()
        return features_ND.to(weights_DC.dtype) @ weights_DC + bias_C

    def on(self, device: torch.device) -> Probe:
        """Return the probe on a device."""
        parts = (self.mean, self.scale, self.weights, self.bias)
        return Probe(self.strength, *(part.to(device) for part in parts))

    def raw(self) -> tuple[Tensor, Tensor]:
        """Return weights_DC and bias_C of features that are not standardised."""
        weights_DC = self.weights / self.scale[:, None]
        return weights_DC, self.bias - self.mean @ weights_DC


class _Standard(NamedTuple):
    x: Tensor  # ND, of mean 0 and spread 1
    mean: Tensor  # D
    scale: Tensor  # D


def _standardised(features_ND: Tensor) -> _Standard:
    x_ND = features_ND.double() if features_ND.numel() <= DOUBLE_UP_TO else features_ND.float()
    mean_D = x_ND.mean(0)
    scale_D = x_ND.std(0, correction=0)
    varies_D = (scale_D > 1e-12) & (scale_D > 1e-6 * mean_D.abs())  # float32's rounding is no variation
    scale_D = torch.where(varies_D, scale_D, 1.0)
    return _Standard((x_ND - mean_D) / scale_D, mean_D, scale_D)


def logistic_path(
    features_ND: Tensor,
    targets: Tensor,
    cs: Sequence[float],
    *,
    classes: int,
    max_iterations: int = 1000,
    tolerance: float = 1e-6,
) -> list[Probe]:
    """Fit a logistic regression for each C, each from the solution of the one before.

    With fewer images than features it is solved in the images' own span, where the solution lies: the same
    answer at a fraction of the work (Hastie and Tibshirani, Biostatistics 2004). What is small is solved on the CPU,
    wherever the features are: on a GPU, an evaluation takes 1.5 ms whatever its size.

    Args:
        features_ND: frozen features.
        targets: int64 targets_N, for a multinomial regression; or int8 targets_NC of 1, 0 and -1 (not counted), for
            one regression a class.
        cs: 1 / the weight of the L2 penalty on a sum of losses, as in scikit-learn.
        classes: outputs.
        max_iterations: of L-BFGS for each C.
        tolerance: the largest part of the gradient of the mean loss at which it stops.
    """
    device = features_ND.device
    if len(features_ND) * min(features_ND.shape) * classes <= ON_CPU_UP_TO:
        features_ND, targets = features_ND.cpu(), targets.cpu()
    x_ND, mean_D, scale_D = _standardised(features_ND)
    basis_DR = _span(x_ND) if len(x_ND) < x_ND.shape[1] else None
    x_NR = x_ND if basis_DR is None else x_ND @ basis_DR
    problem = _Problem.of(x_NR, targets, classes)
    solution = x_NR.new_zeros(x_NR.shape[1] + 1, classes)  # the last row is the bias
    probes = []
    for c in cs:
        solution = problem.solve(c, solution, max_iterations, tolerance)
        weights_DC = solution[:-1] if basis_DR is None else basis_DR @ solution[:-1]
        probes.append(Probe(c, mean_D, scale_D, weights_DC, solution[-1]).on(device))
    return probes


def _span(x_ND: Tensor) -> Tensor:
    """Return an orthonormal basis_DR of the rows' span."""
    values, vectors = torch.linalg.eigh(x_ND @ x_ND.T)
    kept = values > values.max() * 1e-10
    return x_ND.T @ vectors[:, kept] / values[kept].sqrt()


@dataclass(frozen=True)
class _Problem:
    """Minimise the mean loss + |weights|^2 / (2 C N); the bias is not penalised."""

    x: Tensor  # NR
    wanted: Tensor  # NC, 1 where the class is right
    counted: Tensor | None  # NC, 1 where it counts; None of a multinomial regression

    @classmethod
    def of(cls, x_NR: Tensor, targets: Tensor, classes: int) -> _Problem:
        if targets.ndim == 1:
            return cls(x_NR, one_hot(targets, classes).to(x_NR.dtype), None)
        return cls(x_NR, (targets == 1).to(x_NR.dtype), (targets >= 0).to(x_NR.dtype))

    def loss(self, logits_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and its gradient by the logits."""
        count = len(logits_NC)
        if self.counted is None:
            log_p_NC = logits_NC.log_softmax(1)
            return -(log_p_NC * self.wanted).sum() / count, (log_p_NC.exp() - self.wanted) / count
        signs_NC = 2 * self.wanted - 1
        total = -(logsigmoid(signs_NC * logits_NC) * self.counted).sum()
        return total / count, (logits_NC.sigmoid() - self.wanted) * self.counted / count

    @torch.no_grad()
    def value(self, solution: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """Return what is to be small at weights_RC and, in the last row, bias_C; and its gradient there."""
        weights_RC = solution[:-1]
        loss, error_NC = self.loss(self.x @ weights_RC + solution[-1])
        gradient_RC = self.x.T @ error_NC + penalty * weights_RC
        whole = loss + weights_RC.square().sum() * (penalty / 2)
        return whole, torch.cat([gradient_RC, error_NC.sum(0, keepdim=True)])

    def solve(self, c: float, start: Tensor, limit: int, tolerance: float) -> Tensor:
        """Return weights_RC and, in the last row, bias_C."""
        penalty = 1 / (c * len(self.x))
        way = _on_cpu if start.device.type == "cpu" else _on_device
        return way(lambda solution: self.value(solution, penalty), start, limit, tolerance)


Objective = Callable[[Tensor], tuple[Tensor, Tensor]]  # of a solution: the value, and the gradient


def _on_cpu(objective: Objective, start: Tensor, limit: int, tolerance: float) -> Tensor:
    """Minimise by scipy's L-BFGS: where images are few, torch's spends most of the time on its own book-keeping."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    def flat(solution: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(torch.from_numpy(solution).to(start.dtype).view(start.shape))
        return value.item(), gradient.double().numpy().ravel()

    options = {"maxiter": limit, "maxfun": 2 * limit, "maxcor": 10, "gtol": tolerance, "ftol": 1e-15}
    found = minimize(flat, start.double().numpy().ravel(), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x).to(start.dtype).view(start.shape)


def _on_device(objective: Objective, start: Tensor, limit: int, tolerance: float) -> Tensor:
    """Minimise by torch's L-BFGS, where the data is."""
    solution = start.clone().requires_grad_()

    def closure() -> Tensor:
        value, solution.grad = objective(solution)
        return value

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


def classification_loss(logits_NC: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy; or, of several labels an image, the binary one over those that count."""
    if targets.ndim == 1:
        return cross_entropy(logits_NC, targets, label_smoothing=label_smoothing)
    counted_NC = (targets >= 0).to(logits_NC.dtype)
    wanted_NC = (targets == 1).to(logits_NC.dtype)
    each_NC = binary_cross_entropy_with_logits(logits_NC, wanted_NC, reduction="none")
    return (each_NC * counted_NC).sum() / counted_NC.sum().clamp(min=1)


class RidgeFits(NamedTuple):
    """Ridge regressions for several lambdas, and what each says of every image when it is left out of the fit."""

    probes: list[Probe]
    left_out: list[Tensor]  # NC each


def fit_ridges(features_ND: Tensor, targets: Tensor, lambdas: Sequence[float], *, classes: int) -> RidgeFits:
    """Fit a ridge regression to targets of 1 and -1 for each lambda, all from one eigendecomposition.

    What each says of an image left out follows in closed form, so choosing lambda needs no second fit.

    Args:
        features_ND: frozen features.
        targets: int64 targets_N, or int8 targets_NC; what is not counted is fitted to 0.
        lambdas: penalties on the squared weights of standardised features, a share of the number of images.
        classes: outputs.

    Source: Golub, Heath and Wahba, Technometrics 1979 (leaving one out); big_vision's few-shot evaluation.
    """
    x_ND, mean_D, scale_D = _standardised(features_ND)
    count = len(x_ND)
    y_NC = _signs(targets, classes).to(x_ND.dtype)
    middle_C = y_NC.mean(0)
    wide = count < x_ND.shape[1]
    values, vectors = torch.linalg.eigh(x_ND @ x_ND.T if wide else x_ND.T @ x_ND)
    kept = values > values.max() * 1e-12
    values_R, vectors = values[kept], vectors[:, kept]
    left_NR = vectors if wide else x_ND @ vectors / values_R.sqrt()
    right_DR = x_ND.T @ vectors / values_R.sqrt() if wide else vectors
    parts_RC = left_NR.T @ (y_NC - middle_C)
    probes, left_out = [], []
    for strength in lambdas:
        shrunk_R = values_R / (values_R + strength * count)
        weights_DC = right_DR @ (parts_RC * (shrunk_R / values_R.sqrt())[:, None])
        probes.append(Probe(strength, mean_D, scale_D, weights_DC, middle_C))
        fitted_NC = left_NR @ (parts_RC * shrunk_R[:, None]) + middle_C
        leverage_N = (left_NR.square() * shrunk_R).sum(1) + 1 / count
        left_out.append(y_NC - (y_NC - fitted_NC) / (1 - leverage_N).clamp(min=1e-6)[:, None])
    return RidgeFits(probes, left_out)


def _signs(targets: Tensor, classes: int) -> Tensor:
    if targets.ndim == 1:
        return 2 * one_hot(targets, classes) - 1
    return torch.where(targets == 1, 1, torch.where(targets == 0, -1, 0))


@contextmanager
def limit_threads(products: int) -> Iterator[None]:
    """Keep small problems on one thread: on a busy machine, waiting for a second takes 100 times the sum.

    L-BFGS itself is all small sums, and stays on one thread whatever the problem.
    """
    before = torch.get_num_threads()
    if products < 1e7:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):  # numpy's and scipy's; torch has its own
            yield
    finally:
        torch.set_num_threads(before)
