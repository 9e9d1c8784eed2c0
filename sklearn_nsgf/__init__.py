"""Neural Sinkhorn gradient flow for scikit-learn: transport and generation from two samples."""

from sklearn_nsgf._flow_matching import FlowMatchingTransport
from sklearn_nsgf._nsgf_plus_plus import NSGFPlusPlus
from sklearn_nsgf._sinkhorn_flow import SinkhornFlowTransport
from sklearn_nsgf._version import __version__

__all__ = ["FlowMatchingTransport", "NSGFPlusPlus", "SinkhornFlowTransport", "__version__"]
