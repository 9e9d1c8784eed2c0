"""Velocity networks: ``forward(t, x)`` takes times (n,) and points (n, ...) to velocities (n, ...)."""

from sklearn_nsgf.networks._embedding import TimeEmbedding
from sklearn_nsgf.networks._factory import make_network
from sklearn_nsgf.networks._mlp import MLP

__all__ = ["MLP", "TimeEmbedding", "make_network"]
