"""Types of what users give and of what they get."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

# An array, or a DataFrame where `set_output` or the categories of a table ask for one. No type tells which.
Answer: TypeAlias = Any

Blur: TypeAlias = float | tuple[float, float]
CategoricalFeatures: TypeAlias = (
    Literal["from_dtype"] | Sequence[str] | Sequence[int] | Sequence[bool] | NDArray[Any] | None
)
ChannelAxis: TypeAlias = Literal[1, -1] | None
Coupling: TypeAlias = Literal["exact", "independent", "sinkhorn"]
FrameKind: TypeAlias = Literal["auto", "none", "shift", "scale", "linear", "quantile"]
LabelMode: TypeAlias = Literal["ignore", "condition", "couple"]
LayerSizes: TypeAlias = Literal["auto"] | Sequence[int]
Network: TypeAlias = nn.Module | Callable[..., nn.Module] | None
Path: TypeAlias = str | os.PathLike[str] | None
Seed: TypeAlias = int | np.random.RandomState | None
Solver: TypeAlias = Literal["euler", "midpoint", "heun", "rk4"]
StepSize: TypeAlias = Literal["harmonic"] | float | Sequence[float] | NDArray[Any]
