"""The numerical core, for those who build on it: clouds in, potentials, flows and paths out.

Everything here works on torch tensors in the data's own units and knows no estimator.
"""

from sklearn_nsgf.flow._blocks import BlockMaker, Couplings, SinkhornFlows, StackedBlocks
from sklearn_nsgf.flow._coupling import class_probabilities, couple
from sklearn_nsgf.flow._ode import n_evaluations, odeint
from sklearn_nsgf.flow._path import PathSample, straight_path
from sklearn_nsgf.flow._pool import TrajectoryPool
from sklearn_nsgf.flow._samplers import (
    ArraySampler,
    GaussianSampler,
    MixtureSampler,
    PushforwardSampler,
    Sampler,
)
from sklearn_nsgf.flow._sinkhorn import (
    SinkhornDivergence,
    SinkhornPotentials,
    SinkhornVelocity,
    sinkhorn_divergence,
    sinkhorn_potentials,
    sinkhorn_velocity,
    symmetric_potential,
)
from sklearn_nsgf.flow._trajectory import Trajectory, blur_schedule, particle_flow, step_sizes

__all__ = [
    "ArraySampler",
    "BlockMaker",
    "Couplings",
    "GaussianSampler",
    "MixtureSampler",
    "PathSample",
    "PushforwardSampler",
    "Sampler",
    "SinkhornDivergence",
    "SinkhornFlows",
    "SinkhornPotentials",
    "SinkhornVelocity",
    "StackedBlocks",
    "Trajectory",
    "TrajectoryPool",
    "blur_schedule",
    "class_probabilities",
    "couple",
    "n_evaluations",
    "odeint",
    "particle_flow",
    "sinkhorn_divergence",
    "sinkhorn_potentials",
    "sinkhorn_velocity",
    "step_sizes",
    "straight_path",
    "symmetric_potential",
]
