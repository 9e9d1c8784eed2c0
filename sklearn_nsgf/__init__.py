"""Neural Sinkhorn gradient flow for scikit-learn: transport and generation from two samples."""

from sklearn_nsgf._sinkhorn_flow import SinkhornFlowTransport

__version__ = "0.1.0.dev0"
__all__ = ["SinkhornFlowTransport"]
