"""
A table with categories, counts and zeros
=========================================

A survey before and after: ages are counts, most gains are zero and the others have a heavy tail, and there
are two regions. One fit moves the first table to the second, and each column comes back as what it was.
"""

# %%
# In the second survey more people live in the south, gains are higher there, and all are older.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklearn_nsgf import SinkhornFlowTransport

rng = np.random.default_rng(0)


def survey(n_rows, share_of_south, more):
    is_south = rng.random(n_rows) < share_of_south
    has_gain = rng.random(n_rows) < 0.1 + 0.2 * is_south
    return pd.DataFrame(
        {
            "age": np.clip(rng.normal(40 + 10 * more, 15, n_rows), 17, 90).astype(int),
            "gain": np.where(has_gain, np.exp(rng.normal(7 + more * is_south, 1, n_rows)), 0).round(2),
            "region": pd.Categorical(np.where(is_south, "south", "north")),
            "score": rng.normal(is_south - 0.5 * has_gain, 1),
        }
    )


before, after = survey(2000, 0.3, 0), survey(2000, 0.6, 1)
flow = SinkhornFlowTransport(n_flows=16, flow_batch_size=512, max_iter=1000, random_state=0)
flow.fit(before, after)

# %%
# New rows of the first survey, moved. They have the dtypes of the second one.

new, new_after = survey(2000, 0.3, 0), survey(2000, 0.6, 1)
moved = flow.transform(new)
print(moved.head())
print(moved.dtypes)

# %%
# Shares of zeros and of categories, and how they hang together.

summary = pd.DataFrame(
    {
        name: {
            "no gain": (table["gain"] == 0).mean(),
            "in the south": (table["region"] == "south").mean(),
            "no gain, of those in the south": (table["gain"] == 0)[table["region"] == "south"].mean(),
            "median gain": table["gain"][table["gain"] > 0].median(),
            "mean age": table["age"].mean(),
        }
        for name, table in {"before": new, "moved": moved, "after": new_after}.items()
    }
)
print(summary.round(2))

# %%
# All columns at a glance. A linear map would have made negative gains and fractions of years.

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
tables = {"before": new, "moved": moved, "after": new_after}
for name, table in tables.items():
    style = {"histtype": "step", "density": True, "label": name}
    axes[0].hist(table["age"], bins=np.arange(15, 95, 5), **style)
    axes[1].hist(np.log10(table["gain"][table["gain"] > 0]), bins=25, **style)
shares = [(table["region"] == "south").mean() for table in tables.values()]
axes[2].bar(list(tables), shares, color=["C0", "C1", "C2"])
for ax, title in zip(axes, ["age", "log10 of gains above zero", "share of the south"], strict=True):
    ax.set_title(title)
axes[0].legend()
plt.show()
