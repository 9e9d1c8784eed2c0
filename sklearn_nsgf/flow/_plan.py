"""Transport plans of point clouds: stored while they fit, recomputed block by block where not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from sklearn_nsgf.flow._memory import Memory

# Entries of a plan are at least exp(-50) of their row: no sum can see that, and smaller numbers are slow
# on CPUs.
_FLOOR = math.exp(-50.0)
# Scalings are absorbed beyond exp(15): times the floor they stay invisible.
_LARGEST_LOG_SCALING = 15.0
# Numbers in a stored matrix, at most, and in one block of a larger one.
_STORED_SIZE = {"cpu": 2**24, "cuda": 2**28, "mps": 2**26}
_BLOCK_SIZE = {"cpu": 2**19, "cuda": 2**26, "mps": 2**26}
# Rows that a block has at least, with few features and with many: it reads all of y.
_FEWEST_ROWS = 16, 256
# Up to this many features a product with points is up to four times faster on a CPU when transposed.
_FEW_FEATURES = 64


def is_stored(x: Tensor, y: Tensor) -> bool:
    """Whether matrices of a row for each point of `x` and a column for each of `y` are kept."""
    return math.prod(x.shape[:-1]) * y.shape[-2] <= _STORED_SIZE[x.device.type]


class Similarity:
    """The matrix ``S = x y^T / epsilon``.

    Parameters
    ----------
    x, y : Tensor of shape (..., n, d) and (..., m, d)
    eps : float
    memory : Memory
    products : Tensor of shape (..., n, m), optional
        ``x y^T``, where it is kept; otherwise it is made anew for each use.
    """

    def __init__(
        self, x: Tensor, y: Tensor, eps: float, memory: Memory, products: Tensor | None = None
    ) -> None:
        self.x, self.y, self.eps, self.memory, self.products = x, y, eps, memory, products
        self.n_rows, self.fits = x.shape[-2], products is not None

    def plus(self, w: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows of ``S + w``, with `w` for the columns; each is overwritten by the next."""
        if self.products is not None:
            out = self.memory.matrix("logits", self.x, self.y)
            yield slice(None), torch.add(w.unsqueeze(-2), self.products, alpha=1 / self.eps, out=out)
            return
        # The sum comes out of the matrix product itself.
        x = torch.cat([self.x / self.eps, torch.ones_like(self.x[..., :1])], -1)
        y = torch.cat([self.y, w.unsqueeze(-1)], -1)
        n_block = _BLOCK_SIZE[w.device.type] // (self.x[..., 0, 0].numel() * self.y.shape[-2])
        n_block = max(n_block, min(max(2 * y.shape[-1], _FEWEST_ROWS[0]), _FEWEST_ROWS[1]))
        for start in range(0, self.n_rows, n_block):
            block = x[..., start : start + n_block, :]
            logits = self.memory.matrix("logits", block, y)
            yield slice(start, start + n_block), torch.matmul(block, y.mT, out=logits)

    def shares(self, w: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows of ``exp(S + w)``, each row divided by its sum."""
        for rows, logits in self.plus(w):
            # exp(l_ij - max_j l_ij) / sum_j exp(l_ij - max_j l_ij): the largest of m entries is 1/m or more
            # for any w, so that no row of the plan can vanish.
            yield rows, torch.softmax(logits, -1, out=logits).clamp_(min=_FLOOR)

    def logsumexp(self, w: Tensor) -> Tensor:
        """Logarithms of the row sums of ``exp(S + w)``. Stored shares are overwritten."""
        sums = torch.empty_like(self.x[..., 0])
        for rows, logits in self.plus(w):
            largest = logits.amax(-1)
            # The share of the largest entry is one over the sum.
            largest_share = torch.softmax(logits, -1).amax(-1)
            sums[..., rows] = largest - largest_share.log()
        return sums

    @property
    def mT(self) -> Similarity:
        products = None if self.products is None else self.products.mT
        return Similarity(self.y, self.x, self.eps, self.memory, products)


class _Shares:
    """The matrix ``P = exp(S + w)``, each row divided by its sum, with scalings around it.

    It is stored, or made anew for each use.

    Attributes
    ----------
    scaling : Tensor of shape (..., m)
        Of the columns.
    row_sums : Tensor of shape (..., n)
        Of ``P * scaling``.
    """

    scaling: Tensor
    row_sums: Tensor

    def __init__(self, similarity: Similarity, w: Tensor) -> None:
        self.similarity = similarity
        self.is_batch_on_cpu = w.device.type == "cpu" and w.numel() > w.shape[-1]
        self.set_columns(w)

    def set_columns(self, w: Tensor) -> None:
        self.w, self.stored = w, None
        if self.similarity.fits:
            ((_, self.stored),) = self.similarity.shares(w)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        if self.stored is not None:
            yield slice(None), self.stored
        else:
            yield from self.similarity.shares(self.w)

    def _sum_rows(self, block: Tensor, scaling: Tensor) -> Tensor:
        """Row sums of ``block * scaling``."""
        if self.is_batch_on_cpu:
            return self._scaled(block, scaling.unsqueeze(-2)).sum(-1)
        return _times(block, scaling)

    def _sum_columns(self, block: Tensor, scaling: Tensor) -> Tensor:
        """Column sums of ``scaling * block``."""
        if self.is_batch_on_cpu:
            return self._scaled(block, scaling.unsqueeze(-1)).sum(-2)
        return _times(block.mT, scaling)

    def _scaled(self, block: Tensor, scaling: Tensor) -> Tensor:
        """For batches on a CPU, where torch's own products with vectors are several times slower."""
        return torch.mul(block, scaling, out=self.similarity.memory.room("scaled", block.shape, block))

    @cached_property
    def normalised(self) -> Tensor:
        """The stored plan with each row divided by its sum, when the iteration has ended."""
        assert self.stored is not None
        out = self.similarity.memory.room("normalised", self.stored.shape, self.stored)
        torch.mul(self.stored, self.scaling.unsqueeze(-2), out=out)
        return out.div_(self.row_sums.unsqueeze(-1))

    def project(self, points: Tensor, room: str) -> Tensor:
        """Barycentric projection: the mean of `points` under each row of the plan.

        Nothing else may have been asked of the similarity since, which may share the plan's memory.
        """
        memory = self.similarity.memory
        if self.stored is not None and points.shape[-1] > _FEW_FEATURES:
            out = memory.room(room, (*self.row_sums.shape, points.shape[-1]), points)
            return torch.matmul(self.normalised, points, out=out)
        weighted = memory.room("weighted", points.mT.shape, points)
        torch.mul(points.mT, self.scaling.unsqueeze(-2), out=weighted)
        sums = memory.room(room, (*weighted.shape[:-1], self.row_sums.shape[-1]), points)
        for rows, block in self.blocks():
            torch.matmul(weighted, block.mT, out=sums[..., rows])
        return sums.mT.div_(self.row_sums.unsqueeze(-1))


class Plan(_Shares):
    """The plan ``alpha * P * beta`` with exact rows, ``alpha = a / (P beta)``.

    Parameters
    ----------
    similarity : Similarity
        Of n source points and m target points.
    a, b : Tensor of shape (..., n) and (..., m)
        The weights.
    w : Tensor of shape (..., m)
        Logarithms of the columns to start from, however far off: no row can underflow.

    Attributes
    ----------
    marginal : Tensor of shape (..., m)
        Column sums of the plan.
    """

    def __init__(self, similarity: Similarity, a: Tensor, b: Tensor, w: Tensor) -> None:
        super().__init__(similarity, w)
        self.a, self.b = a, b
        self._start()

    def _start(self) -> None:
        self.balance(torch.zeros_like(self.w))
        is_lost = self.marginal < self.b * math.exp(-_LARGEST_LOG_SCALING)
        if bool(is_lost.any()):
            # These target points are out of every row's sight: give them their due.
            log_alpha = self.a.log() - self.similarity.logsumexp(self.w)
            due = self.b.log() - self.similarity.mT.logsumexp(log_alpha)
            self.set_columns(torch.where(is_lost, due, self.w))
            self.balance(self.log_beta)

    def balance(self, log_beta: Tensor) -> None:
        """Scale the columns, then the rows to their marginals."""
        # The rows a_i = alpha_i (P beta)_i are met, the columns beta_j (P^T alpha)_j are to come near b_j.
        self.log_beta, self.scaling = log_beta, log_beta.exp()
        if self.stored is not None:
            self.row_sums = self._sum_rows(self.stored, self.scaling)
            received = self._sum_columns(self.stored, self.a / self.row_sums)
        else:
            self.row_sums, received = torch.empty_like(self.a), torch.zeros_like(self.scaling)
            for rows, block in self.blocks():
                self.row_sums[..., rows] = self._sum_rows(block, self.scaling)
                received += self._sum_columns(block, self.a[..., rows] / self.row_sums[..., rows])
        # Its logarithm stays finite where rounding has lost all of a column.
        self.marginal = received.mul_(self.scaling).clamp_(min=torch.finfo(received.dtype).tiny)

    def has_drifted(self) -> bool:
        """Whether the scalings are so large that entries below the floor could matter.

        Small ones do no harm: a column that is given up would otherwise be absorbed again and again.
        """
        # The rows sum to one, so that those of the rows are no larger then.
        if self.log_beta.abs().amax().item() < _LARGEST_LOG_SCALING:
            return False
        log_largest = torch.maximum(self.log_beta.amax(), -self.row_sums.amin().log()).item()
        return not log_largest < _LARGEST_LOG_SCALING

    def absorb(self) -> None:
        """Move the scalings into the columns."""
        # exp(S + w) beta = exp(S + w + log beta): the same plan, whose scalings are one again. Entries that
        # the floor had hidden count from here on.
        self.restart(self.w + self.log_beta)

    def restart(self, w: Tensor) -> None:
        """Start from other columns."""
        self.set_columns(w)
        self._start()

    def log_columns(self) -> Tensor:
        return self.w + self.log_beta


class SymmetricPlan(_Shares):
    """The plan ``q K q`` of a cloud to itself, with ``K = exp(-|x - x'|^2 / (2 epsilon))``.

    Parameters
    ----------
    similarity : Similarity
        Of the n points to themselves.
    norms : Tensor of shape (..., n)
        ``|x|^2 / 2``.
    a : Tensor of shape (..., n)
        The weights.

    Attributes
    ----------
    scaling : Tensor of shape (..., n)
        The scaling q, at first a guess.
    marginal : Tensor of shape (..., n)
        Row sums of the plan.
    is_identity : bool
        Whether the points are so far apart that each is similar to itself alone.
    """

    def __init__(self, similarity: Similarity, norms: Tensor, a: Tensor) -> None:
        super().__init__(similarity, norms * (-1 / similarity.eps))
        diagonal = [
            block.diagonal(offset=rows.start or 0, dim1=-2, dim2=-1).clone() for rows, block in self.blocks()
        ]
        # The share of a point in its own row, one over the row sum of K, whose diagonal is one.
        self.own_share = _joined(diagonal, -1)
        self.is_identity = self.own_share.amin().item() > 1 - 10 * torch.finfo(a.dtype).eps
        # Exact for points far apart and for equal weights on coincident ones.
        self.balance((a * self.own_share).sqrt())

    def balance(self, scaling: Tensor) -> None:
        self.scaling = scaling
        if self.is_identity:
            self.row_sums = scaling
        else:
            self.row_sums = _joined([self._sum_rows(block, scaling) for _, block in self.blocks()], -1)
        self.marginal = scaling * self.row_sums / self.own_share

    def log_columns(self) -> Tensor:
        return self.scaling.log() + self.w

    def project(self, points: Tensor, room: str) -> Tensor:
        if self.is_identity:
            return points
        return super().project(points, room)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    if vector.ndim == 1:
        return matrix @ vector
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
