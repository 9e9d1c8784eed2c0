"""Mass across gaps: what the potentials of groups of target points differ by, from a linear programme."""

from __future__ import annotations

import ot
import torch
from torch import Tensor

from sklearn_nsgf.flow._memory import Memory
from sklearn_nsgf.flow._plan import Similarity

# Groups of target points, and source points that are sent to them, at most.
_N_GROUPS, _N_POINTS = 32, 2048


def group_offsets(x: Tensor, y: Tensor, a: Tensor, b: Tensor, columns: Tensor, eps: float) -> Tensor:
    """Offsets of the columns of a plan ``exp(S + w)`` that give each group of target points its mass.

    They are the duals of the transport from the source points to the groups at the cost
    ``-log sum_{j in group} exp(S_ij + w_j)``, which the network simplex solves: it does not matter how far
    the mass is from where it should be. They are right up to the temperature, which is 1 here.

    Parameters
    ----------
    x, y : Tensor of shape (n, d) and (m, d)
        One problem.
    a, b : Tensor of shape (n,) and (m,)
        Weights.
    columns : Tensor of shape (m,)
        The w.
    eps : float

    Returns
    -------
    Tensor of shape (m,)
    """
    generator = torch.Generator().manual_seed(0)
    points, centres = (
        torch.randperm(len(cloud), generator=generator)[:n].to(cloud.device)
        for cloud, n in ((x, _N_POINTS), (y, _N_GROUPS))
    )
    x, a = x[points], a[points]
    groups = torch.cdist(y, y[centres]).argmin(-1).unique(return_inverse=True)[1]
    members = [(groups == k).nonzero().squeeze(-1) for k in range(int(groups.max()) + 1)]
    costs = torch.cat(
        [
            -torch.stack([logits[:, member].logsumexp(-1) for member in members], -1)
            for _, logits in Similarity(x, y, eps, Memory()).plus(columns)
        ]
    )
    masses = torch.stack([b[member].sum() for member in members])
    # In float64, which not every device has.
    supply, demand, cost = (each.cpu().double().numpy() for each in (a, masses, costs))
    # Of negative costs alone POT finds no plan. A constant a point changes its own dual only.
    cost -= cost.min(axis=1, keepdims=True)
    _, log = ot.emd(supply / supply.sum(), demand / demand.sum(), cost, log=True)
    return torch.from_numpy(log["v"]).to(columns)[groups]
