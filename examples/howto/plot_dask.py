"""
Fit and search on a dask cluster
================================

joblib spreads the minibatches of a fit, and the fits of a search, over the workers of a dask cluster. The
estimators stay as they are, and so do the bytes of the answer. The picture shows which worker did what.
"""

# %%
# A cluster of two workers, within this process. ``Client("tcp://scheduler:8786")`` joins one of other
# machines. If workers are processes of their own, a script makes its client under ``if __name__ ==
# "__main__":``, since each worker imports the script.

import time

import joblib
import matplotlib.pyplot as plt
import numpy as np
import sklearn
from dask.distributed import Client, get_task_stream
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.domains import DomainKFold, stack_domains

client = Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0")
rng = np.random.default_rng(0)
X, (y, _) = rng.normal(size=(1500, 2)), make_moons(1500, noise=0.05, random_state=0)
flow = SinkhornFlowTransport(n_flows=16, flow_batch_size=512, max_iter=300, random_state=0)

# %%
# One fit
# -------
#
# The workers make the minibatches, and the network is trained here.

fit_start = time.time()
with joblib.parallel_config("dask"), get_task_stream() as fit_tasks:
    on_cluster = flow.fit(X, y).transform(X)
here = flow.fit(X, y).transform(X)
print("the same bytes as without dask:", np.array_equal(on_cluster, here))

# %%
# A search
# --------
#
# Each worker has a candidate and a fold at a time.

sklearn.set_config(enable_metadata_routing=True)
stacked, _, sample_domain = stack_domains(X, y)
search = GridSearchCV(flow, {"blur": [0.02, 0.1, 0.5]}, cv=DomainKFold(2))
search_start = time.time()
with joblib.parallel_config("dask"), get_task_stream() as search_tasks:
    search.fit(stacked, sample_domain=sample_domain)
print(search.best_params_)

# %%

workers = sorted({task["worker"] for task in search_tasks.data})
figure, axes = plt.subplots(2, 1, figsize=(9, 3.6), layout="constrained")
panels = {"the fit": (fit_tasks, fit_start), "the search": (search_tasks, search_start)}
for ax, (title, (tasks, start)) in zip(axes, panels.items(), strict=True):
    for task in tasks.data:
        for step in task["startstops"]:
            if step["action"] == "compute":
                place, seconds = workers.index(task["worker"]), step["stop"] - step["start"]
                ax.barh(place, seconds, left=step["start"] - start, color="tab:cyan", edgecolor="black")
    ax.set(title=title, yticks=[0, 1], yticklabels=["worker 0", "worker 1"])
    ax.set_xlim(left=0)
axes[1].set_xlabel("seconds")
client.close()
sklearn.set_config(enable_metadata_routing=False)
plt.show()
