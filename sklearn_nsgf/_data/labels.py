"""Class labels, as users write them and as indices."""

from __future__ import annotations

from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from sklearn.utils.multiclass import type_of_target

from sklearn_nsgf._documentation import question
from sklearn_nsgf._sklearn import check_array
from sklearn_nsgf.domains import UNLABELLED, UNLABELLED_MARKS, is_unlabelled


class Classes(NamedTuple):
    """The classes of a fit, and what it does with them.

    Attributes
    ----------
    mode : {"ignore", "condition", "couple"}
        The parameter `label_mode` of the fit.
    labels : ndarray of shape (n_classes,) or None
        Sorted; None if they are ignored.
    """

    mode: str
    labels: np.ndarray | None = None

    @property
    def are_seen(self) -> bool:
        """Whether the network is told the class of a point."""
        return self.mode == "condition"

    @property
    def n_seen(self) -> int:
        """Number of classes that the network is told apart, 0 for none."""
        return len(self.labels) if self.are_seen else 0

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Index of each label; -1 for the placeholders of "couple"."""
        codes = {label: code for code, label in enumerate(self.labels.tolist())}
        if self.mode == "couple":
            codes |= dict.fromkeys(UNLABELLED_MARKS, UNLABELLED)
        found, inverse = np.unique(labels, return_inverse=True)
        unknown = [label for label in found.tolist() if label not in codes]
        if unknown:
            raise ValueError(
                f"The labels {unknown} are not among those of the first fit, classes_={self.labels.tolist()}."
            )
        return np.array([codes[label] for label in found.tolist()], dtype=int)[inverse]

    def codes_of(self, labels, n_rows: int, argument: str, chosen=slice(None)) -> np.ndarray | None:
        """Class index of the chosen ones of `n_rows` points, from one label or from one for each.

        None where the network sees no class.
        """
        if not self.are_seen:
            if labels is not None:
                raise ValueError(
                    f"labels were given, and this estimator was fitted with label_mode={self.mode!r}: its "
                    "network sees no class. Fit with label_mode='condition'."
                )
            return None
        if labels is None:
            raise ValueError(
                f"labels are missing: with label_mode='condition' each of the {n_rows} {argument} needs its "
                f"class, one of {self.labels.tolist()}." + question("faq-labels-missing")
            )
        try:
            labels = _of_one_type(np.asarray(labels))
        except ValueError as error:
            raise ValueError(
                f"labels cannot be read: {error}. Expected one label, or one for each of the {n_rows} "
                f"{argument}."
            ) from error
        if labels.shape not in [(), (n_rows,)]:
            raise ValueError(
                f"labels has the shape {labels.shape}; expected one label, or one for each of the {n_rows} "
                f"{argument}."
            )
        return self.encode(np.broadcast_to(labels, n_rows)[chosen])


def check_labels(labels: np.ndarray | None, n_rows: int, mode: str) -> np.ndarray | None:
    """Labels of one type, one for each of the rows; None where they are ignored."""
    if labels is not None and len(labels) != n_rows:
        raise ValueError(
            f"y has one dimension and {len(labels)} entries for {n_rows} rows of X. If it is a target "
            "sample of one feature, pass y.reshape(-1, 1); labels need one entry a row."
            + question("faq-one-dimensional-y")
        )
    if mode == "ignore":
        return None
    if labels is None:
        raise ValueError(
            f"label_mode={mode!r} needs y with a class for each row of X; y is None. Otherwise set "
            "label_mode='ignore'."
        )
    if labels.dtype.kind in "mMcV":
        raise ValueError(
            f"label_mode={mode!r} needs classes in y, strings or integers; y has the dtype {labels.dtype}."
        )
    if mode == "couple":
        labels = _with_one_placeholder(labels)
    elif labels.dtype.kind in "fO" and (missing := is_unlabelled(labels, marks=())).any():
        raise ValueError(
            f"Input y contains NaN or None: {missing.sum()} of {n_rows} labels are missing, and "
            f"label_mode={mode!r} needs a class for each row. Leave these rows out, or give them a class of "
            "their own."
        )
    elif labels.dtype.kind == "O" and any(isinstance(label, str) for label in labels.tolist()):
        n_unlabelled = sum(label == UNLABELLED for label in labels.tolist())
        if n_unlabelled:
            raise ValueError(
                f"{n_unlabelled} of {n_rows} labels in y are {UNLABELLED}, which means unlabelled, and "
                f"label_mode={mode!r} needs a class for each row. Leave these rows out, or set "
                "label_mode='couple'."
            )
    labels = _of_one_type(check_array(labels, "y", ensure_2d=False, dtype=None))
    # It takes floats for integers to see whether they are.
    with np.errstate(invalid="ignore"):
        kind = type_of_target(labels, input_name="y")
    if kind not in ("binary", "multiclass"):
        raise ValueError(
            f"label_mode={mode!r} needs classes in y, strings or integers; y is {kind}. Cut continuous "
            "values into classes, for example with KBinsDiscretizer, or set label_mode='ignore'."
        )
    return labels


def find_classes(labels: np.ndarray | None, mode: str) -> Classes:
    """The classes that there are."""
    if labels is None:
        return Classes(mode)
    classes = np.unique(labels)
    if mode == "couple":
        classes = classes[~is_unlabelled(classes)]
        if not len(classes):
            raise ValueError("label_mode='couple' and all labels in y are -1, which means unlabelled.")
    return Classes(mode, classes)


def check_classes_in_both(classes: Classes, source_codes: np.ndarray, target_codes: np.ndarray) -> None:
    """Make sure that no class has rows on one side alone."""
    both = {"source": source_codes, "target": target_codes}
    for (name, codes), other in zip(both.items(), ("target", "source"), strict=True):
        if np.any(codes == UNLABELLED):
            continue
        absent = np.setdiff1d(both[other], np.append(codes, UNLABELLED))
        if len(absent):
            raise ValueError(
                f"The {name} has no rows of the classes {classes.labels[absent].tolist()}, which the "
                f"{other} has: each class needs rows in both. Leave those rows out, or with "
                "label_mode='couple' give the label -1 to rows of an unknown class."
            )


def _with_one_placeholder(labels: np.ndarray) -> np.ndarray:
    """Labels with -1, or its text among strings, for rows that have none."""
    unlabelled = is_unlabelled(labels)
    if unlabelled.all():
        return np.full(len(labels), UNLABELLED)
    known = _of_one_type(labels[~unlabelled])
    placeholder = np.asarray(str(UNLABELLED) if known.dtype.kind == "U" else UNLABELLED)
    answer = np.full(len(labels), placeholder, dtype=np.result_type(known, placeholder))
    answer[~unlabelled] = known
    return answer


def _of_one_type(labels: np.ndarray) -> np.ndarray:
    """Labels of dtype object as strings or as numbers."""
    if labels.dtype != object:
        return labels
    kinds = {str if isinstance(label, str) else type(label) for label in labels.ravel().tolist()}
    if len(kinds) > 1 or not issubclass(*kinds, (str, Integral, Real)):
        names = sorted(kind.__name__ for kind in kinds)
        raise ValueError(f"The labels have the types {names}: expected strings, or integers, in all rows.")
    return np.array(labels.tolist())
