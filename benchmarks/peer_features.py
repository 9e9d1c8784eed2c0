"""Which features of an estimator this package and its peers have: every cell is something that was run.

    pip install POT geomloss skada skorch skops torchcfm ForestDiffusion
    pip install matplotlib pandas polars rich safetensors
    python benchmarks/peer_features.py --rst features.rst

Each feature is tried on small data with each package, spelled as its documentation spells it, in a process
of its own with a time limit. "yes": it ran and the outcome was checked. "no": it raised, or the outcome was
wrong; the note has the reason. "part": some of it, or with code of one's own; the note says which. "n/a": not
that kind of tool, it lacks the method on which the feature hangs. "not tried": the probe could not run here.
"not installed": the package cannot be imported.

The packages: `SinkhornFlowTransport`, small; POT's `ot.da.SinkhornTransport`; skada's `OTMappingAdapter`; a
`NeuralNetRegressor` of skorch; TorchCFM's OT-CFM in a loop of our own; GeomLoss's `SamplesLoss`; and
ForestFlow, which is `ForestDiffusionModel(diffusion_type="flow")`. A GPU is not needed: whether a device is
accepted is told by "cpu", "meta" and the error of "cuda".
"""

import argparse
import importlib
import importlib.metadata
import os
import time
from pathlib import Path

from peer_packages import OurPeer, PotPeer, SkadaPeer, SkorchPeer
from peer_parts import ForestFlowPeer, GeomLossPeer, TorchCfmPeer
from peer_probes import Answer, isolated, no

PEERS = [OurPeer, PotPeer, SkadaPeer, SkorchPeer, TorchCfmPeer, GeomLossPeer, ForestFlowPeer]
ROWS = {
    "base_estimator": "inherits scikit-learn's BaseEstimator",
    "check_estimator": "check_estimator, passed / failed",
    "clone": "clone keeps the parameters",
    "pipeline": "in a Pipeline, behind a scaler",
    "grid_search": "GridSearchCV",
    "unequal_folds": "cross-validation, unequal samples",
    "set_output": 'set_output(transform="pandas")',
    "feature_names_out": "get_feature_names_out",
    "metadata_routing": "metadata routing",
    "new_points": "transform of new points",
    "sample": "sample(n)",
    "inverse": "inverse map",
    "images": "arrays of images (n, C, H, W)",
    "conditional": "conditional generation",
    "device": "choice of the device (no GPU tried)",
    "callbacks": "progress bar, callbacks",
    "curve": "training curve kept",
    "warm_start": "warm start, resume",
    "early_stopping": "early stopping",
    "partial_fit": "partial_fit",
    "memmap": "np.memmap without a copy",
    "safe_file": "file loads without pickle",
    "pickle": "pickle and joblib round trip",
    "pickle_size": "pickle at n = 500 / 2 000",
    "pandas": "pandas in",
    "polars": "polars in",
    "columns_checked": "columns are checked",
    "seed": "same seed, same bytes; no global seed",
    "units": "answers follow the units",
    "nan_error": "NaN is refused clearly",
    "unfitted_error": "NotFittedError",
    "metrics": "evaluation metrics",
    "plots": "plots",
    "typed": "py.typed",
    "wheel": "pure Python, hard dependencies",
    "licence": "licence",
}
SECONDS, CHECK_SECONDS = 60, 300


def column(peer_type, rows):
    """All answers of one package, in a process where it has been imported."""
    importlib.import_module(peer_type.module)
    answers = {}
    for row in rows:
        seconds = CHECK_SECONDS if row == "check_estimator" else SECONDS
        answers[row] = isolated(probe, peer_type, row, seconds=seconds)
    return answers


def probe(peer_type, row):
    """One cell."""
    answer = getattr(peer_type(), row)()
    return answer if isinstance(answer, Answer) else no(f"the probe ended without an answer: {answer}")


def measure(peer_types, rows):
    """Answers of all packages, row by row, and the seconds of each package."""
    columns, seconds = {}, {}
    for peer_type in peer_types:
        start = time.perf_counter()
        answers = isolated(column, peer_type, rows, seconds=3600, quiet=False)
        if isinstance(answers, Answer):
            answers = dict.fromkeys(rows, Answer("not installed", answers.reason))
        columns[peer_type.title] = answers
        seconds[peer_type.title] = time.perf_counter() - start
    return columns, seconds


def versions(peer_types):
    """What was measured."""
    names = [peer.distribution for peer in peer_types]
    others = ["scikit-learn", "torch", "numpy", "skops", "pandas", "polars", "xgboost"]
    return ", ".join(f"{name} {version(name)}" for name in [*names, *others])


def version(distribution):
    """Of this package the one of the source tree."""
    if distribution == OurPeer.distribution:
        return importlib.import_module(OurPeer.module).__version__
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def notes(columns, row):
    """One line a package that has something to say about a row."""
    answers = {title: answers[row] for title, answers in columns.items()}
    return [
        f"{title}, {answer.verdict}: {answer.reason}" for title, answer in answers.items() if answer.reason
    ]


def as_text(columns, rows):
    """The table with aligned columns, and below it the notes."""
    table = [
        ["", *columns],
        *([ROWS[row], *(answers[row].cell for answers in columns.values())] for row in rows),
    ]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    for row in rows:
        lines += ["", ROWS[row], *(f"  {note}" for note in notes(columns, row))]
    return "\n".join(lines)


def as_rst(columns, rows):
    """A list-table, and below it why a cell is "part", "no" or was not tried."""
    lines = [".. list-table::", "   :header-rows: 1", "   :stub-columns: 1", ""]
    lines += list_table_row(["", *columns])
    for row in rows:
        lines += list_table_row([ROWS[row], *(answers[row].cell for answers in columns.values())])
    lines += ["", "Notes:", ""]
    for row in rows:
        answers = {title: column[row] for title, column in columns.items()}
        said = [
            f"{title}, {answer.verdict}: {literal(answer.reason)}"
            for title, answer in answers.items()
            if answer.verdict in ("part", "no", "not tried", "not installed")
        ]
        if said:
            lines += [ROWS[row], *(f"   - {note}" for note in said), ""]
    return "\n".join(lines)


def list_table_row(cells):
    """One row of a list-table."""
    first, *rest = cells
    return [f"   * - {first}".rstrip(), *(f"     - {cell}" for cell in rest)]


def literal(text):
    """Messages hold stars, bars and underscores that RST would read as markup."""
    return "".join(f"\\{letter}" if letter in "\\*`|_" else letter for letter in text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packages", nargs="+", choices=[peer.title for peer in PEERS], help="default: all")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="default: all")
    parser.add_argument("--rst", type=Path, help="write the table here, as RST")
    arguments = parser.parse_args()
    os.environ["MPLBACKEND"] = "agg"
    chosen = [peer for peer in PEERS if arguments.packages is None or peer.title in arguments.packages]
    columns, seconds = measure(chosen, arguments.rows)
    print(as_text(columns, arguments.rows))
    print(f"\nMeasured: {versions(chosen)}")
    print("Seconds: " + ", ".join(f"{title} {spent:.0f}" for title, spent in seconds.items()))
    if arguments.rst is not None:
        arguments.rst.write_text(f"{as_rst(columns, arguments.rows)}\nMeasured: {versions(chosen)}.\n")


if __name__ == "__main__":
    main()
