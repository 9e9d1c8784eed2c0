"""Velocity networks: ``forward(t, x)`` takes times (n,) and points (n, ...) to velocities (n, ...)."""

from sklearn_nsgf.networks._embedding import TimeEmbedding
from sklearn_nsgf.networks._factory import ImageRows, make_network
from sklearn_nsgf.networks._mlp import MLP
from sklearn_nsgf.networks._time_predictor import TimePredictor
from sklearn_nsgf.networks._unet import UNet

__all__ = ["MLP", "ImageRows", "TimeEmbedding", "TimePredictor", "UNet", "make_network"]
