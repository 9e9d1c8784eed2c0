"""Transport plans of point clouds: stored while they fit, recomputed block by block where not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# Entries of a plan are at least exp(-50): no sum can see that, and smaller numbers are slow on CPUs.
_LOG_FLOOR = -50.0
# Scalings are absorbed beyond exp(15): times the floor they stay invisible.
_LARGEST_LOG_SCALING = 15.0
# Numbers in a stored matrix, at most, and in one block of a larger one.
_STORED_SIZE = {"cpu": 2**24, "cuda": 2**28, "mps": 2**26}
_BLOCK_SIZE = {"cpu": 2**20, "cuda": 2**26, "mps": 2**26}


def is_stored(x: Tensor, y: Tensor) -> bool:
    """Whether matrices of a row for each point of `x` and a column for each of `y` are kept."""
    return math.prod(x.shape[:-1]) * y.shape[-2] <= _STORED_SIZE[x.device.type]


class Similarity:
    """The matrix ``S = x y^T / epsilon``.

    Parameters
    ----------
    x, y : Tensor of shape (..., n, d) and (..., m, d)
    eps : float
    products : Tensor of shape (..., n, m), optional
        ``x y^T``, where it is kept; otherwise it is made anew for each use.
    """

    def __init__(self, x: Tensor, y: Tensor, eps: float, products: Tensor | None = None) -> None:
        self.x, self.y, self.eps, self.products = x, y, eps, products
        self.n_rows, self.fits = x.shape[-2], is_stored(x, y)

    def plus(self, w: Tensor, u: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows of ``S + u + w``, with `w` for the columns and `u` for the rows."""
        if self.fits:
            products = self.x @ self.y.mT if self.products is None else self.products
            logits = torch.add(w.unsqueeze(-2), products, alpha=1 / self.eps)
            yield slice(None), logits if u is None else logits.add_(u.unsqueeze(-1))
            return
        # Both sums come out of the matrix product itself.
        u = torch.zeros_like(self.x[..., 0]) if u is None else u
        x = torch.cat([self.x / self.eps, torch.ones_like(u.unsqueeze(-1)), u.unsqueeze(-1)], -1)
        y = torch.cat([self.y, w.unsqueeze(-1), torch.ones_like(w.unsqueeze(-1))], -1)
        n_block = max(16, _BLOCK_SIZE[w.device.type] // (self.x[..., 0, 0].numel() * self.y.shape[-2]))
        for start in range(0, self.n_rows, n_block):
            rows = slice(start, start + n_block)
            yield rows, x[..., rows, :] @ y.mT

    def logsumexp(self, w: Tensor) -> Tensor:
        """Logarithms of the row sums of ``exp(S + w)``."""
        sums = torch.empty_like(self.x[..., 0])
        for rows, logits in self.plus(w):
            largest, exponentials = _shifted_exp(logits)
            sums[..., rows] = largest + exponentials.sum(-1).log()
        return sums

    @property
    def mT(self) -> Similarity:
        products = None if self.products is None else self.products.mT
        return Similarity(self.y, self.x, self.eps, products)


class _Blocks:
    """A positive matrix, in one stored block or in many that are made anew for each use."""

    similarity: Similarity
    stored: Tensor | None = None

    def _make_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        raise NotImplementedError

    def _store(self) -> None:
        if self.similarity.fits:
            self.stored = None  # frees the memory before the next one takes it
            ((_, self.stored),) = self._make_blocks()

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        if self.stored is not None:
            yield slice(None), self.stored
        else:
            yield from self._make_blocks()

    def mean_under_rows(self, column_scaling: Tensor, points: Tensor) -> Tensor:
        """Mean of `points` weighted by each row of the matrix times `column_scaling`."""
        column_scaling = column_scaling.unsqueeze(-1)
        weighted = column_scaling * points
        means = points.new_empty(*self.similarity.x.shape[:-1], points.shape[-1])
        for rows, block in self.blocks():
            torch.div(block @ weighted, positive(block @ column_scaling), out=means[..., rows, :])
        return means


class Plan(_Blocks):
    """The plan ``alpha * exp(S + u + w) * beta``, whose row marginals `balance` makes exact.

    Parameters
    ----------
    similarity : Similarity
        Of n source points and m target points.
    log_a, log_b : Tensor of shape (..., n) and (..., m)
        Logarithms of the weights.
    w : Tensor of shape (..., m)
        Reduced target potential to start from, however far off.
    """

    def __init__(self, similarity: Similarity, log_a: Tensor, log_b: Tensor, w: Tensor) -> None:
        self.similarity = similarity
        self.log_a, self.log_b, self.a = log_a, log_b, log_a.exp()
        self.u = torch.empty_like(log_a)
        self._start_from(w)

    def _start_from(self, w: Tensor) -> None:
        """Set both potentials and the plan by half-rounds in the log domain: nothing underflows."""
        self.w, self.log_beta = w, torch.zeros_like(w)
        self.alpha = torch.ones_like(self.log_a)
        marginal = torch.zeros_like(w)
        for rows, logits in self.similarity.plus(w):
            largest, block = _shifted_exp(logits)
            sums = block.sum(-1)
            self.u[..., rows] = self.log_a[..., rows] - largest - sums.log()
            block.mul_((self.a[..., rows] / sums).unsqueeze(-1))
            marginal += block.sum(-2)
            if self.similarity.fits:
                self.stored = block
        is_lost = marginal.log() < self.log_b - _LARGEST_LOG_SCALING
        if bool(is_lost.any()):
            # These target points are out of every row's sight: give them their due.
            self.w = torch.where(is_lost, self.log_b - self.similarity.mT.logsumexp(self.u), w)
            self._store()

    def _make_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for rows, logits in self.similarity.plus(self.w, self.u):
            yield rows, _exp(logits)

    def balance(self, log_beta: Tensor) -> Tensor:
        """Scale the columns, then the rows to their marginals; return the columns' marginals."""
        self.log_beta, beta = log_beta, log_beta.exp()
        if self.stored is not None:
            self.alpha = self.a / positive(_times(self.stored, beta))
            return positive(beta * _times(self.stored.mT, self.alpha))
        marginal = torch.zeros_like(log_beta)
        for rows, block in self._make_blocks():
            self.alpha[..., rows] = self.a[..., rows] / positive(_times(block, beta))
            marginal += _times(block.mT, self.alpha[..., rows])
        return positive(beta * marginal)

    def has_drifted(self) -> bool:
        """Whether the scalings are so large that entries below the floor could matter."""
        log_largest = torch.maximum(self.alpha.amax().log(), self.log_beta.amax())
        return not bool(log_largest < _LARGEST_LOG_SCALING)

    def absorb(self) -> None:
        """Move the scalings into the potentials."""
        self._start_from(self.w + self.log_beta)

    def reduced_potentials(self) -> tuple[Tensor, Tensor]:
        return self.u + self.alpha.log(), self.w + self.log_beta

    def project(self, points: Tensor) -> Tensor:
        """Barycentric projection: the mean of `points` under each row of the plan."""
        return self.mean_under_rows(self.log_beta.exp(), points)


class SymmetricPlan(_Blocks):
    """The plan ``q K q`` of a cloud to itself, with ``K = exp(-|x - x'|^2 / (2 epsilon))``.

    Parameters
    ----------
    similarity : Similarity
        Of the n points to themselves.
    log_norms : Tensor of shape (..., n)
        ``|x|^2 / (2 epsilon)``.
    a : Tensor of shape (..., n)
        The weights.

    Attributes
    ----------
    scaling : Tensor of shape (..., n)
        The scaling q, at first a guess.
    """

    def __init__(self, similarity: Similarity, log_norms: Tensor, a: Tensor) -> None:
        self.similarity, self.log_norms = similarity, log_norms
        self._store()
        smoothed = self.times(a)
        # Exact both for far apart points (1/sqrt(a)) and for coincident ones (1).
        self.scaling = a / smoothed.sqrt()
        # Points so far apart that each is similar to itself alone.
        self.is_identity = (smoothed / a).amax().item() < 1 + 10 * torch.finfo(a.dtype).eps

    def _make_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for rows, logits in self.similarity.plus(-self.log_norms, -self.log_norms):
            yield rows, _exp(logits)

    def times(self, vector: Tensor) -> Tensor:
        """The product ``K vector``."""
        products = torch.empty_like(vector)
        for rows, block in self.blocks():
            products[..., rows] = _times(block, vector)
        return products

    def reduced_potentials(self) -> tuple[Tensor, Tensor]:
        potential = self.scaling.log() - self.log_norms
        return potential, potential

    def project(self, points: Tensor) -> Tensor:
        """Barycentric projection: the mean of `points` under each row of the plan."""
        return points if self.is_identity else self.mean_under_rows(self.scaling, points)


def positive(sums: Tensor) -> Tensor:
    """Keep logarithms and quotients of sums finite where rounding has lost all of a row."""
    return sums.clamp(min=torch.finfo(sums.dtype).tiny)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    if vector.ndim == 1:
        return matrix @ vector
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _exp(logits: Tensor) -> Tensor:
    """Exponentials, in place, of numbers that only rounding can make positive."""
    return logits.clamp_(min=_LOG_FLOOR, max=0.0).exp_()


def _shifted_exp(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of each row, and the exponentials, in place, of the others' distances to it."""
    largest = logits.amax(-1, keepdim=True)
    return largest.squeeze(-1), _exp(logits.sub_(largest))
