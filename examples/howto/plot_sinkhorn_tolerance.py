"""
How exact are the velocities of a Sinkhorn flow?
================================================

``sinkhorn_tol`` bounds the error of a plan's marginals, but a flow depends on the velocity. This example
measures both errors on one minibatch, for three blurs. At the same tolerance, a smaller blur takes more
rounds and leaves a larger error of the velocity.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from sklearn_nsgf.flow import sinkhorn_velocity

rng = np.random.default_rng(0)
angles = 2 * np.pi * np.arange(400) / 8
centres = 1.5 * np.column_stack([np.cos(angles), np.sin(angles)])
x = torch.tensor(rng.normal(size=(400, 2)))
y = torch.tensor(centres + 0.1 * rng.normal(size=(400, 2)))

# %%
# The reference is the velocity at a tolerance of 1e-7, in double precision.

tolerances = 10.0 ** -np.arange(1, 5.5, 0.5)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for blur in (0.5, 0.2, 0.1):
    exact = sinkhorn_velocity(x, y, blur=blur, tol=1e-7, max_iter=20_000)
    answers = [sinkhorn_velocity(x, y, blur=blur, tol=tol) for tol in tolerances]
    errors = [float((answer.v - exact.v).norm() / exact.v.norm()) for answer in answers]
    left.loglog([float(answer.marginal_error) for answer in answers], errors, "o-", label=f"blur {blur}")
    right.loglog(tolerances, [answer.n_iters for answer in answers], "o-", label=f"blur {blur}")
    assert exact.converged
left.set(xlabel="error of the marginals", ylabel="relative error of the velocity")
right.set(xlabel="tol", ylabel="rounds, annealing included")
left.legend()
plt.show()

# %%
# For a large cloud, memory grows with the number of points only. Plans of more than 16 million entries are
# recomputed block by block.

x = torch.tensor(rng.normal(size=(6000, 2)), dtype=torch.float32)
result = sinkhorn_velocity(x, x + 2.0, blur=0.3, tol=1e-2)
print(f"{len(x)} points: converged {bool(result.converged)}, mean velocity {result.v.mean(0).tolist()}")
