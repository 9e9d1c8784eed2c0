"""What one sample is, a vector or an image, and how it becomes a row of floats."""

from __future__ import annotations

import math
from numbers import Integral
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """How the samples of an array become the rows of a flow.

    Attributes
    ----------
    sample_shape : tuple of int
        Shape of one sample as the user has it: ``X.shape[1:]``.
    picture_shape : tuple of int or None
        (H, W) with or without an axis of channels; None for vectors.
    channel_axis : int or None
        Axis of the channels in `picture_shape`.
    """

    sample_shape: tuple[int, ...]
    picture_shape: tuple[int, ...] | None = None
    channel_axis: int | None = None

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W), as networks see an image."""
        if self.picture_shape is None:
            return None
        channels = 1 if self.channel_axis is None else self.picture_shape[self.channel_axis]
        height, width = (size for axis, size in enumerate(self.picture_shape) if axis != self.channel_axis)
        return channels, height, width

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image or (n_features,), as networks see a sample."""
        return self.image_shape or self.sample_shape

    @property
    def n_features(self) -> int:
        return math.prod(self.sample_shape)

    def to_rows(self, X: np.ndarray) -> np.ndarray:
        """Rows of floats, with the channels of an image first."""
        if self.channel_axis is not None:
            X = np.moveaxis(X.reshape(len(X), *self.picture_shape), 1 + self.channel_axis, 1)
        return X.reshape(len(X), self.n_features).astype(float_dtype(X.dtype), copy=False)

    def to_samples(self, rows: np.ndarray) -> np.ndarray:
        """Samples of the user's shape, from rows of any number of leading dimensions."""
        leading = rows.shape[:-1]
        if self.channel_axis is not None:
            images = rows.reshape(*leading, *self.image_shape)
            rows = np.moveaxis(images, len(leading), len(leading) + self.channel_axis)
        return rows.reshape(*leading, *self.sample_shape)

    def to_pictures(self, X: np.ndarray) -> np.ndarray:
        """Samples as images with the channels last; vectors as they are."""
        if self.picture_shape is None:
            return X
        leading = X.shape[: X.ndim - len(self.sample_shape)]
        pictures = X.reshape(*leading, *self.picture_shape)
        if self.channel_axis is None:
            return pictures
        return np.moveaxis(pictures, len(leading) + self.channel_axis, -1)


def find_layout(sample_shape, image_shape, channel_axis) -> Layout:
    """Tell what one sample is, a vector or an image, and where the channels of an image are.

    Parameters
    ----------
    sample_shape : tuple of int
        ``X.shape[1:]``.
    image_shape : tuple of int or None
        Shape of the image that a flat row holds, or that samples of two or three axes have.
    channel_axis : int or None
        Axis of the channels in an array of images: 1, -1 or 3. None finds it.

    Raises
    ------
    ValueError
        If the shapes contradict each other, or the axis of the channels cannot be told.
    """
    if image_shape is not None:
        picture = tuple(image_shape)
        if not all(isinstance(size, Integral) and size > 0 for size in picture):
            raise ValueError(f"image_shape={image_shape!r} must be two or three positive integers.")
        flat = (math.prod(picture),)
        if tuple(sample_shape) not in (flat, picture) or len(picture) not in (2, 3):
            raise ValueError(
                f"image_shape={image_shape} does not fit samples of shape {tuple(sample_shape)}: expected "
                "(H, W), (H, W, C) or (C, H, W), with as many numbers as a row of X has."
            )
    elif len(sample_shape) == 1:
        if channel_axis is not None:
            raise ValueError(
                f"channel_axis={channel_axis} needs images: X has rows. Pass image_shape to read each row "
                "as an image."
            )
        return Layout(sample_shape)
    else:
        picture = tuple(sample_shape)
    if len(picture) == 2:
        if channel_axis is not None:
            raise ValueError(
                f"channel_axis={channel_axis}, and images of shape {picture} have no axis of channels; "
                "leave channel_axis=None."
            )
        if image_shape is None and picture[-1] in (3, 4):
            raise ValueError(
                f"X has the shape (n, {picture[0]}, {picture[1]}): is it one colour image, or are these "
                f"grey images {picture[1]} pixels wide? Pass X[None] for one image, or "
                f"image_shape={picture} for grey images."
            )
        return Layout(tuple(sample_shape), picture)
    if len(picture) != 3:
        raise ValueError(
            f"X has {len(picture) + 1} dimensions; expected rows (n, n_features) or images (n, H, W), "
            "(n, H, W, C) or (n, C, H, W). Pass volumes and series as rows, X.reshape(len(X), -1), and give "
            "answers their shape again."
        )
    candidates = [0, 2] if channel_axis is None else [{1: 0, -3: 0, 3: 2, -1: 2}.get(channel_axis)]
    if channel_axis is None:
        candidates = [axis for axis in candidates if picture[axis] <= 4]
    if len(candidates) != 1 or candidates[0] is None:
        raise ValueError(
            f"channel_axis={channel_axis}, and images of shape {picture}: which axis of X holds the "
            "channels? Pass channel_axis=-1 for (n, H, W, C) or channel_axis=1 for (n, C, H, W). Pass "
            "volumes as rows, X.reshape(len(X), -1), and give answers their shape again."
        )
    return Layout(tuple(sample_shape), picture, candidates[0])


def float_dtype(dtype: np.dtype | str) -> np.dtype:
    """In which samples of `dtype` are transported."""
    return np.dtype("float32" if dtype == "uint8" else dtype)


def to_dtype(rows: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """Round and clip to grey values where the samples are."""
    return np.clip(np.rint(rows), 0, 255).astype(np.uint8) if dtype == "uint8" else rows
