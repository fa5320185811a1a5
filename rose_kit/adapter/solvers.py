"""The two solvers that train a linear head: AdamW, as published, and L-BFGS, the default.

The loss of a sample is the cross-entropy of its target q with p = softmax(W x + b); its gradient is
(p - q) x, so automatic differentiation is not needed. AdamW, the reference that others are measured by, takes
700 steps on the mean of weight * loss. L-BFGS minimises J = sum of weight * loss + mu / 2 * |W|^2 in few
passes over the samples; a pass is two matrix products and costs what a step of AdamW costs.

Several images are solved together, one problem beside the other: their arrays have the images as first axis,
and a pass is two batched products. Images of fewer samples are padded with samples of weight 0.
"""

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rose_kit.types import Columns, numpy_door

PAIRS = 4  # (step, change of gradient) remembered; more bring nothing here
MAX_STEPS = 200
PRECISION = 2e-8  # of J in float32; smaller changes are noise
BIAS_UNIT = 0.3  # about the spread of centred features along their main direction
CLASS_POWER = 0.25  # a class of share s is counted in units of s ** -0.25: rare ones take longer steps
LEAST_SHARE = 1e-6  # of the samples' weight, below which a class is left out
NEVER = -1e4  # logit of a place without a class, in images that have fewer classes than others
NOISE = 1e-6  # share of the logits' mean squared change below which their variance is rounding
WORK_OF_A_THREAD = 1e9  # multiplications in a product for each thread
_lock, _inside = threading.Lock(), []  # the user's number of threads, once for each thread in `few_threads`
MAX_TRIALS = 30  # in a line search; nearly always one


@contextmanager
def few_threads(work: float, device: torch.device) -> Iterator[None]:
    """Let torch compute on no more threads of a CPU than products of this size keep busy.

    Starting threads costs more than a small product. The user's number is the most, and is restored; other
    threads may be in here at the same time.

    Args:
        work: multiplications in a product.
        device: where it is computed.
    """
    with _lock:
        users = _inside[0] if _inside else torch.get_num_threads()
        _inside.append(users)
    try:
        if device.type == "cpu":
            torch.set_num_threads(max(1, min(users, int(work / WORK_OF_A_THREAD))))
        yield
    finally:
        with _lock:
            _inside.pop()
            torch.set_num_threads(users)


@dataclass(frozen=True)
class Head(Columns):
    """A linear classifier, which every solver returns: logits = features @ weight.T + bias.

    Args:
        weight: (C, D) float32; (B, C, D) of B images.
        bias: (C,) float32; (B, C).
    """

    weight: Tensor
    bias: Tensor

    @numpy_door
    def logits(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, C)."""
        return features @ self.weight.mT + self.bias[..., None, :]


@numpy_door
def adamw(
    features: Tensor,
    target: Tensor,
    weight: Tensor,
    start: Tensor | None,
    *,
    seed: int,
    steps: int,
    lr: float,
    weight_decay: float,
    count: Tensor | None = None,
    **_: Any,
) -> Head:
    """Full-batch AdamW on the mean over samples of weight * cross-entropy (RNS, section 3).

    Args:
        features: (S, D) samples; (B, S, D) of B images.
        target: (S, C) class distributions; (B, S, C).
        weight: (S,); (B, S), 0 for padding.
        start: (C, D) initial weight; None draws Kaiming-uniform from `seed`. The bias starts at 0.
        seed, steps, lr, weight_decay: as for `RNS`; settings of other solvers are ignored.
        count: (B,) samples of each image without padding; None: S.
    """
    x = F.pad(features, (0, 1), value=1.0)  # (..., S, D + 1): bias last
    scale = weight / (features.shape[-2] if count is None else count[:, None])  # (..., S)
    if start is None:
        start = torch.from_numpy(kaiming_uniform(target.shape[-1], features.shape[-1], seed))
    head = F.pad(start.to(x), (0, 1)).repeat(*x.shape[:-2], 1, 1)  # (..., C, D + 1)
    optimizer = torch.optim.AdamW([head], lr, weight_decay=weight_decay)
    for _ in range(steps):
        p = torch.softmax(x @ head.mT, -1)  # (S, D + 1) @ (D + 1, C) -> (S, C)
        head.grad = ((p - target) * scale[..., None]).mT @ x  # (C, S) @ (S, D + 1) -> (C, D + 1)
        optimizer.step()
    return Head(head[..., :-1].clone(), head[..., -1].clone())


def kaiming_uniform(size: int, dim: int, seed: int) -> NDArray[np.float32]:
    """(size, dim) uniform in +-sqrt(6 / dim), from its own generator: no global state is touched."""
    generator = torch.Generator().manual_seed(seed)
    return ((2 * torch.rand(size, dim, generator=generator) - 1) * math.sqrt(6 / dim)).numpy()


@numpy_door
def lbfgs(
    features: Tensor,
    target: Tensor,
    weight: Tensor,
    start: Tensor | None,
    mu: float | Tensor,
    tolerance: float,
    **_: Any,
) -> Head:
    """Minimise J until a step lowers it too little.

    Args:
        features: (S, D) samples; (B, S, D) of B images.
        target: (S, C) class distributions; (B, S, C).
        weight: (S,), adding up to about 1; (B, S), 0 for padding.
        start: (C, D) initial weight; None starts at 0. The bias starts at the classes' frequencies.
        mu: strength of the regulariser; (B,). Settings of other solvers are ignored.
        tolerance: stop when a step lowers J by less than this share of it; J is then about that near
            to its minimum. 0 goes on to the precision of float32. Images that stop wait for the others.
    """
    objective = RegularisedObjective(features, target, weight, start, mu)
    gradient, pairs, scale, running = objective.gradient(), deque(maxlen=PAIRS), 1.0, True
    for _ in range(MAX_STEPS):
        before, direction = objective.value, newton_direction(gradient, pairs, scale)
        direction = _choose(running, direction, 0.0)
        step = objective.move(direction)
        running = running & (before - objective.value > max(tolerance, PRECISION) * objective.value)
        if not _any(running):
            break
        previous, gradient = gradient, objective.gradient()
        s, y = step * direction, gradient - previous
        sy, yy = _dot(s, y), _dot(y, y)
        curved = (sy > 0) & (yy > 0)  # without curvature, it would be divided by zero
        pairs.append((s, y, curved / _choose(curved, sy, 1.0)))
        scale = _choose(curved, sy, scale) / _choose(curved, yy, 1.0)
    return objective.head()


class RegularisedObjective:
    """J at the current point: a (K, D + 1) head on centred samples, in units, its bias in the last column.

    J is convex, and its bias is free. Hence

    - samples may be centred, and the bias and the classes counted in any unit, without changing the minimum:
      that takes away directions that are far steeper than the others;
    - logits are linear in the head, so a line search needs no pass over the samples;
    - a class that no sample stands for is left out: its best bias is minus infinity.

    Logits and all that belongs to them are (K, S), since products in this layout are faster.

    Of B images, all arrays have the images as first axis, and a number is a (B, 1, 1) tensor. K is the
    largest number of classes of an image; places that others leave free have the logit `NEVER`, and nothing
    moves them.

    Args:
        features, target, weight, start, mu: as for `lbfgs`.
    """

    @numpy_door
    def __init__(
        self, features: Tensor, target: Tensor, weight: Tensor, start: Tensor | None, mu: float | Tensor
    ) -> None:
        self.a, self.size = weight[..., None, :], target.shape[-1]  # (1, S)
        self.mu = mu[..., None, None] if isinstance(mu, Tensor) else mu
        mass = (self.a @ target)[..., 0, :]  # (1, S) @ (S, C) -> (C,)
        whole = mass.sum(-1, keepdim=True)  # (1,)
        active = mass > LEAST_SHARE * whole  # (C,)
        self.classes = (~active).byte().argsort(dim=-1, stable=True)[..., : int(active.sum(-1).max())]  # (K,)
        self.active = active.gather(-1, self.classes)  # (K,) False in places that are free
        share = (mass / whole).gather(-1, self.classes).where(self.active, 1)
        self.class_scale = share[..., None] ** -CLASS_POWER  # (K, 1)
        self.ridge = self.mu * self.class_scale.square()  # (K, 1) regulariser in these units
        self.mean = self.a @ features / whole[..., None]  # (1, D)
        self.x = F.pad(features - self.mean, (0, 1), value=BIAS_UNIT)  # (S, D + 1)
        self.xt = self.x.mT.contiguous()  # (D + 1, S): products with a copy are faster
        self.aq = self._rows(target.mT) * self.a  # (K, S)
        bias = share.log().where(self.active, NEVER) / BIAS_UNIT  # (K,)
        if start is None:
            start = features.new_zeros(self.size, features.shape[-1])
        start = start.expand(*target.shape[:-2], -1, -1)
        point = torch.cat([self._rows(start), bias[..., None]], -1) / self.class_scale
        self._set(point, self.logits_of(point))

    def _rows(self, of_classes: Tensor) -> Tensor:
        """(C, ...) -> (K, ...) the rows of the classes that are not left out, 0 in places that are free."""
        rows = self.classes[..., None].expand(*self.classes.shape, of_classes.shape[-1])
        return of_classes.gather(-2, rows) * self.active[..., None]

    def logits_of(self, point: Tensor) -> Tensor:
        """(K, D + 1), in units -> (K, S)."""
        return (self.class_scale * point) @ self.xt  # (K, D + 1) @ (D + 1, S) -> (K, S)

    def _set(self, point: Tensor, logits: Tensor) -> None:
        """Go to a (K, D + 1) point, whose (K, S) logits are known: their softmax over classes, and J."""
        top = logits.amax(-2, keepdim=True)  # (1, S)
        p = (logits - top).exp_()  # (K, S)
        total = p.sum(-2, keepdim=True)  # (1, S)
        self.point, self.logits, self.p, self.lse = point, logits, p.div_(total), total.log_().add_(top)
        square = _dot(self.ridge * point[..., :-1], point[..., :-1])
        self.value = square / 2 + _dot(self.a, self.lse) - _dot(self.aq, logits)

    def gradient(self) -> Tensor:
        """(K, D + 1) of J at the current point."""
        residual = (self.a * self.p).sub_(self.aq).mul_(self.class_scale)  # (K, S)
        gradient = residual @ self.x  # (K, S) @ (S, D + 1) -> (K, D + 1)
        gradient[..., :-1].addcmul_(self.ridge, self.point[..., :-1])
        return gradient

    def move(self, direction: Tensor) -> float | Tensor:
        """One step of Newton's method along a (K, D + 1) direction, halved until J falls.

        Returns:
            the length of the step; 0 where no step lowers J in float32.
        """
        slope = self.logits_of(direction)  # (K, S) change of the logits
        weighted = self.p * slope
        mean = weighted.sum(-2, keepdim=True)  # (1, S)
        curve = self.ridge * direction[..., :-1]
        # First and second derivative of J by the length of the step.
        rise = _dot(self.point[..., :-1], curve) - _dot(self.aq, slope) + _dot(self.a, mean)
        squares = weighted.mul_(slope).sum(-2, keepdim=True)  # (1, S)
        curvature = _dot(direction[..., :-1], curve) + _dot(self.a, squares - mean.square_())
        # J is flat along a direction in which the logits of all classes change alike.
        usable = (rise < 0) & (curvature > NOISE * _dot(self.a, squares))
        step = _choose(usable, -rise, 0.0) / _choose(usable, curvature, 1.0)
        point, logits, value = self.point, self.logits, self.value
        for trial in range(MAX_TRIALS):
            if not _any(step > 0):
                break
            self._set(_moved(point, direction, step), _moved(logits, slope, step))
            higher = (self.value > value + 1e-4 * step * rise) & (step > 0)
            if not _any(higher):
                return step
            step = _choose(higher, step / 2 if trial < MAX_TRIALS - 1 else 0.0, step)
        self._set(_moved(point, direction, step), _moved(logits, slope, step))
        return step

    def head(self) -> Head:
        """The head at the current point, for samples that are not centred and for all C classes."""
        point = self.class_scale * self.point
        least = self.lse.where(self.a > 0, torch.inf).amin(-1)  # (1,)
        absent = least + math.log(LEAST_SHARE)  # left out: below that share of every sample
        own = BIAS_UNIT * point[..., -1] - (point[..., :-1] @ self.mean.mT)[..., 0]  # (K,)
        bias = absent.expand(*absent.shape[:-1], self.size)  # (C,)
        bias = bias.scatter(-1, self.classes, own.where(self.active, absent))
        rows = point[..., :-1] * self.active[..., None]  # (K, D)
        weight = rows.new_zeros(*bias.shape, rows.shape[-1])  # (C, D)
        return Head(weight.scatter_(-2, self.classes[..., None].expand_as(rows), rows), bias)


def newton_direction(
    gradient: Tensor, pairs: Sequence[tuple[Tensor, Tensor, float | Tensor]], scale: float | Tensor
) -> Tensor:
    """(K, D + 1): minus (estimate of the inverse Hessian) times (gradient).

    The two-loop recursion (Nocedal and Wright, algorithm 7.4).

    Args:
        gradient: (K, D + 1).
        pairs: the latest steps s and changes of the gradient y, and 1 / <s, y>, oldest first; 0 in its place
            where there was no curvature.
        scale: the estimate that the pairs correct, times the identity.
    """
    direction, alphas = -gradient, []
    for s, y, inverse in reversed(pairs):
        alphas.append(_dot(s, direction) * inverse)
        direction = _moved(direction, y, -alphas[-1])
    direction *= scale
    for (s, y, inverse), alpha in zip(pairs, reversed(alphas), strict=True):
        direction = _moved(direction, s, alpha - _dot(y, direction) * inverse)
    return direction


# Numbers of one image are Python's, which costs least; those of B images are (B, 1, 1) tensors.


def _dot(left: Tensor, right: Tensor) -> float | Tensor:
    if left.ndim == 3:
        return (left * right).sum((1, 2), keepdim=True)
    return float(torch.dot(left.reshape(-1), right.reshape(-1)))


def _moved(point: Tensor, direction: Tensor, step: float | Tensor) -> Tensor:
    if isinstance(step, Tensor):
        return torch.addcmul(point, direction, step)
    return torch.add(point, direction, alpha=step)


def _choose(condition: bool | Tensor, yes: float | Tensor, no: float | Tensor) -> float | Tensor:
    if isinstance(condition, Tensor):
        return torch.where(condition, yes, no)
    return yes if condition else no


def _any(condition: bool | Tensor) -> bool:
    return bool(condition.any()) if isinstance(condition, Tensor) else condition
