"""Draw the charts of benchmarks.rst from the tables of that page: `python docs/draw_charts.py`."""

import csv
import re
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
OURS = {"NSGF++": "C0", "NSGF": "C1", "OT-CFM": "C2"}
OTHERS = (
    "ForestFlow",
    "FlowBDT",
    "Gaussian copula",
    "KernelDensity",
    "GaussianMixture, BIC",
    "quantile",
    "linear",
)
MARKERS = dict(zip(OTHERS, "sDvXP^<", strict=True))


def read_table(first_cell):
    """Return the table whose first row begins with `first_cell`: a dict of columns for each row's name."""
    page = (HERE / "benchmarks.rst").read_text()
    for header, rows in re.findall(r"   :header: (.*)\n   :stub-columns: 1\n\n((?:   \".*\n)+)", page):
        names, *lines = csv.reader([header, *rows.strip().split("\n")], skipinitialspace=True)
        table = {line[0].strip(): dict(zip(names[1:], line[1:], strict=True)) for line in lines}
        if next(iter(table)).startswith(first_cell):
            return table
    raise ValueError(f"benchmarks.rst has no table that begins with {first_cell!r}")


def number(cell):
    """The mean of a cell such as "**.12 ± .01**"; NaN where there is none."""
    found = re.match(r"\**(-?[\d.]+)", cell)
    return float(found[1]) if found else float("nan")


def draw_tables():
    """How well trees tell drawn or moved rows from real ones."""
    figure, axes = plt.subplots(
        1, 2, figsize=(11, 3.8), sharex=True, width_ratios=(3, 2), layout="constrained"
    )
    titles = {"concrete": "New rows", "wine, training rows": "Rows moved to another part"}
    for axis, (first_cell, title) in zip(axes, titles.items(), strict=True):
        table = read_table(first_cell)
        places = list(dict.fromkeys(name.split(",")[0] for name in table))
        for row, columns in table.items():
            place, method = row.split(", ", 1)
            if method in OURS:
                style = {"color": OURS[method], "marker": "o", "s": 60, "zorder": 3}
            elif method in MARKERS:
                style = {"color": "0.55", "marker": MARKERS[method], "s": 30}
            else:
                continue
            label = method if place == places[0] else None
            axis.scatter(number(columns["AUC"]), places.index(place), label=label, **style)
        axis.set(title=title, xlabel="AUC of trees: .5 cannot tell", xlim=(0.48, 1.02))
        axis.set_yticks(range(len(places)), places)
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        axis.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(HERE / "_static" / "benchmark_tables.png", dpi=100)


def draw_few_rows():
    """Energy distance against rows, where the target is no linear image of the source."""
    table = read_table("Gaussian, d = 1")
    problems = {
        "bent, d = 2": "bent",
        "clusters, d = 2": "clusters",
        "heavy tails, d = 2": "heavy tails",
        "wines": "wines",
    }
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
    styles = {"NSGF++": "C0o-", "linear": "k--", "quantile": "k:", "POT": "C3^-."}
    for axis, (problem, title) in zip(axes, problems.items(), strict=True):
        rows = [name for name in table if name.rsplit(", ", 1)[0] == problem]
        sizes = [int(row.rsplit(", ", 1)[1]) for row in rows]
        for method, style in styles.items():
            values = [number(table[row][method]) for row in rows]
            axis.plot(sizes, values, style, markersize=4, label=method)
        axis.set(title=title, xscale="log", xlabel="rows a side", ylim=(0, None))
        axis.set_xticks(sizes, sizes)
        axis.minorticks_off()
    axes[0].set_ylabel("energy distance")
    axes[0].legend(fontsize="small")
    figure.savefig(HERE / "_static" / "benchmark_few_rows.png", dpi=100)


if __name__ == "__main__":
    draw_tables()
    draw_few_rows()
