"""``python -m sklearn_nsgf`` prints versions, devices and threads: for bug reports."""

import importlib.metadata
import platform
import sys

import torch

from sklearn_nsgf._version import __version__

PACKAGES = ("scikit-learn", "torch", "POT", "numpy", "scipy", "joblib", "pandas", "polars", "rich", "skops")


def version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe() -> str:
    """Versions, devices and threads, one a line."""
    devices = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    lines = {
        "sklearn-nsgf": __version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        **{name: version_of(name) for name in PACKAGES},
        "GPUs": ", ".join(devices) or "none",
        "torch threads": str(torch.get_num_threads()),
    }
    return "\n".join(f"{name:>15}: {value}" for name, value in lines.items())


if __name__ == "__main__":
    sys.stdout.write(describe() + "\n")
