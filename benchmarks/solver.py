"""Sinkhorn solvers along a flow: error of the velocity against seconds, one core each.

    pip install geomloss ott-jax
    python benchmarks/solver.py --data DIR            # the table and solver.png
    python benchmarks/solver.py --growth              # time and memory for n = 256 ... 65 536
    python benchmarks/solver.py --pool                # 64 minibatches against plain Sinkhorn
    python benchmarks/solver.py --machine             # shares of the machine's own speed
    python benchmarks/solver.py --device cuda --data DIR     # the table on a GPU, and so with --pool

DIR holds the folders mnist/ and cifar10/ (the IDX files, and cifar10_batch_0.png).

A flow is T harmonic steps from a standard normal sample to a sample of the target. Its nodes are
those of a float64 reference. Every peer gets the velocities at those nodes, one node after the other,
warm-started from the last one where its interface allows it; ours is `particle_flow`, and "side by side"
the same with others of its kind in one tensor, as many as a pool simulates at once, a flow. Errors are means
over the steps of ||v - v_ref|| / ||v_ref||, where v_ref is our own float64 answer at the method's nodes
with marginals met to 1e-6, which is checked by an independent log-domain half-round. The whole process
is pinned to one core. Methods take turns within one run; the table has medians with the smallest and the
largest of the turns. JAX is compiled before. On a GPU only the methods that run there take part.
"""

import argparse
import functools
import gzip
import math
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

REFERENCE_TOL = 1e-6
# A size of --growth that takes longer is given up.
MOST_SECONDS = 240


def pin_to_one_core():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"


def eight_gaussians(n, rng):
    angles = np.arange(n) % 8 * np.pi / 4
    rows = 5 * np.column_stack([np.cos(angles), np.sin(angles)])
    return (rows + math.sqrt(0.1) * rng.standard_normal((n, 2))) / 3.5


def mixture(n, rng):
    """30 clusters in 50 dimensions: centres of deviation 1, clusters of 0.3."""
    centres = np.random.default_rng(0).standard_normal((30, 50))
    return centres[rng.integers(30, size=n)] + 0.3 * rng.standard_normal((n, 50))


def mnist(n, rng, data):
    with gzip.open(Path(data) / "mnist" / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    return images[rng.choice(len(images), n, replace=False)] / 127.5 - 1


def cifar10(n, rng, data):
    from matplotlib.image import imread

    images = imread(Path(data) / "cifar10" / "cifar10_batch_0.png")[..., :3].reshape(1000, -1)
    return images[rng.choice(len(images), n, replace=False)] * 2.0 - 1


# Target, n and blur.
CASES = {
    "2d n256 blur .5": (eight_gaussians, 256, 0.5),
    "2d n256 blur .1": (eight_gaussians, 256, 0.1),
    "mnist n256 blur 1": (mnist, 256, 1.0),
    "50d n1024 blur 1": (mixture, 1024, 1.0),
    "cifar10 n128 blur 1": (cifar10, 128, 1.0),
}


def synchronised(device):
    """The time when all work on the device is done."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def clouds(name, data, device="cpu", seed=0):
    import torch

    target, n, blur = CASES[name]
    rng = np.random.default_rng(seed)
    arguments = (data,) if target in (mnist, cifar10) else ()
    y = torch.tensor(np.asarray(target(n, rng, *arguments)), dtype=torch.float32, device=device)
    return torch.tensor(rng.standard_normal(y.shape), dtype=torch.float32, device=device), y, blur


# ------------------------------------------------------------------------ methods


def ours(x, y, nodes, blur, tol):
    from sklearn_nsgf.flow import particle_flow

    flow = particle_flow(x, y, blur=blur, n_steps=len(nodes), tol=tol)
    return flow.v, flow.x[:-1]


def ours_side_by_side(x, y, nodes, blur, tol):
    """Flows in one tensor: velocities and nodes of the first."""
    velocities, positions = ours(x, y, nodes, blur, tol)
    return velocities[:, 0], positions[:, 0]


def geomloss_flow(x, y, nodes, blur, scaling):
    import torch
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend="tensorized")
    velocities = []
    for node in nodes:
        moving = node.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(moving, y), moving)
        velocities.append(-len(node) * gradient)
    return torch.stack(velocities), nodes


def clamped_logsumexp(logits, dim=None, keepdim=False):
    """What GeomLoss calls, without exponentials of very negative numbers."""
    largest = logits.detach().amax(dim, keepdim=True)
    sums = (logits - largest).clamp(min=-50.0).exp().sum(dim, keepdim=True).log() + largest
    return sums if keepdim else sums.squeeze(dim)


def geomloss_clamped(x, y, nodes, blur, scaling):
    import torch

    methods = [torch.Tensor.logsumexp, torch.logsumexp]
    torch.Tensor.logsumexp = torch.logsumexp = clamped_logsumexp
    try:
        return geomloss_flow(x, y, nodes, blur, scaling)
    finally:
        torch.Tensor.logsumexp, torch.logsumexp = methods


def pot_flow(x, y, nodes, blur, method, tol):
    import ot
    import torch

    y, reg, warm = y.numpy(), 2 * blur**2, {}

    def project(source, target, key):
        a, b = (np.full(len(c), 1 / len(c), np.float32) for c in (source, target))
        cost = ot.dist(source, target)
        plan, log = ot.sinkhorn(
            a,
            b,
            cost,
            reg,
            method=method,
            stopThr=tol,
            numItermax=5000,
            warn=False,
            log=True,
            warmstart=warm.get(key),
        )
        if "log_u" in log:
            warm[key] = log["log_u"], log["log_v"]
        else:
            warm[key] = np.log(log["u"]), np.log(log["v"])
        return plan @ target / plan.sum(1, keepdims=True)

    velocities = [
        project(node, y, "cross") - project(node, node, "own") for node in (each.numpy() for each in nodes)
    ]
    return torch.tensor(np.array(velocities)), nodes


def pot_batch(x, y, nodes, blur, tol):
    import ot
    import torch

    def project(source, target):
        result = ot.solve_sample_batch(
            source[None], target[None], reg=2 * blur**2, max_iter=5000, tol=tol, grad="detach"
        )
        plan = result.plan[0]
        return plan @ target / plan.sum(1, keepdim=True)

    return torch.stack([project(node, y) - project(node, node) for node in nodes]), nodes


@functools.cache
def ott_projection(blur, tol, symmetric):
    import jax
    from ott.geometry import pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    options = {"momentum": acceleration.Momentum(value=0.5), "parallel_dual_updates": True}
    solver = sinkhorn.Sinkhorn(threshold=tol, max_iterations=5000, **(options if symmetric else {}))

    @jax.jit
    def project(source, target, init):
        geometry = pointcloud.PointCloud(source, target, epsilon=2 * blur**2)
        out = solver(linear_problem.LinearProblem(geometry), init=init)
        plan = out.matrix
        return plan @ target / plan.sum(1, keepdims=True), (out.f, out.g)

    return project


def ott_flow(x, y, nodes, blur, tol):
    import jax.numpy as jnp
    import torch

    y = jnp.asarray(y.numpy())
    cross, own = (ott_projection(blur, tol, symmetric) for symmetric in (False, True))
    warm_cross = warm_own = (jnp.zeros(len(x)), jnp.zeros(len(y)))
    velocities = []
    for node in nodes:
        node = jnp.asarray(node.numpy())
        to_target, warm_cross = cross(node, y, warm_cross)
        to_itself, warm_own = own(node, node, warm_own)
        velocities.append(np.asarray(to_target - to_itself))
    return torch.tensor(np.array(velocities)), nodes


OUR_TOLS = (3e-2, 1e-2, 5e-3, 2e-3, 1e-3, 5e-4)
METHODS = {
    **{f"ours tol {tol:g}": (ours, tol) for tol in OUR_TOLS},
    **{f"side by side {tol:g}": (ours_side_by_side, tol) for tol in OUR_TOLS},
    **{f"GeomLoss {scaling}": (geomloss_flow, scaling) for scaling in (0.5, 0.8, 0.9, 0.95)},
    **{f"GeomLoss clamped {scaling}": (geomloss_clamped, scaling) for scaling in (0.5, 0.9)},
    **{f"POT sinkhorn {tol:g}": (pot_flow, "sinkhorn", tol) for tol in (1e-2, 1e-3, 1e-4)},
    **{f"POT sinkhorn_log {tol:g}": (pot_flow, "sinkhorn_log", tol) for tol in (1e-2, 1e-3)},
    **{f"POT batch {tol:g}": (pot_batch, tol) for tol in (1e-2, 1e-4)},
    **{f"OTT jitted {tol:g}": (ott_flow, tol) for tol in (1e-1, 1e-2, 1e-3)},
}
CPU_ONLY = (pot_flow, pot_batch, ott_flow)


# ------------------------------------------------------------------------ the table


def reference_flow(x, y, blur, n_steps):
    from sklearn_nsgf.flow import particle_flow

    return particle_flow(x.double(), y.double(), blur=blur, n_steps=n_steps, tol=1e-3).x[:-1].float()


def reference_velocities(nodes, y, blur):
    """Float64 velocities, with the largest marginal error that a half-round of our own finds."""
    import torch

    from sklearn_nsgf.flow import sinkhorn_potentials, sinkhorn_velocity

    y, velocities, worst, g = y.double(), [], 0.0, None
    for node in nodes.double():
        options = {"blur": blur, "tol": REFERENCE_TOL, "max_iter": 20_000}
        result = sinkhorn_velocity(node, y, g_init=g, **options)
        g = result.g
        f, own_g, *_ = sinkhorn_potentials(node, y, g_init=g, **options)
        cost = torch.cdist(node, y, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
        logits = (f[:, None] + own_g - cost) / blur**2 - math.log(len(node) * len(y))
        worst = max(worst, (logits.logsumexp(0).exp() - 1 / len(y)).abs().sum().item())
        velocities.append(result.v)
    return torch.stack(velocities), worst


def relative_error(v, reference):
    return ((v.double() - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)).mean().item()


def plain(x, y, nodes, blur, tol):
    return plain_flow(x, y, blur, len(nodes), tol)


def group(name, data, device, x, y):
    """The flow with others of its kind, as many as a pool simulates at once."""
    import torch

    from sklearn_nsgf.flow._pool import n_flows_at_once

    n_flows = min(64, n_flows_at_once(len(x), len(y), x.shape[1], device))
    pairs = [(x, y), *(clouds(name, data, device, seed)[:2] for seed in range(1, n_flows))]
    return [torch.stack(each) for each in zip(*pairs, strict=True)]


def timed(action, device):
    """Seconds of one call, the mean of as many as take a fifth of a second."""
    start, n_calls = synchronised(device), 0
    while not n_calls or synchronised(device) - start < 0.2:
        action()
        n_calls += 1
    return (synchronised(device) - start) / n_calls


def table(arguments):
    import torch

    results, device = {}, arguments.device
    methods = METHODS
    if device != "cpu":
        methods = {name: each for name, each in METHODS.items() if each[0] not in CPU_ONLY}
        methods |= {f"plain torch {tol:g}": (plain, tol) for tol in (1e-1, 1e-2)}
    for name in arguments.cases:
        x, y, blur = clouds(name, arguments.data, device)
        flows = group(name, arguments.data, device, x, y)
        for n_steps in arguments.steps:
            nodes = reference_flow(x, y, blur, n_steps)
            reference, worst = reference_velocities(nodes, y, blur)
            print(
                f"\n{name}, T = {n_steps}; reference: marginals within {worst:.0e}; "
                f"{len(flows[0])} flows side by side",
                flush=True,
            )
            errors, seconds = {}, {method: [] for method in methods}
            for turn in range(arguments.repeats + 1):
                for method, (run, *options) in methods.items():
                    if turn and not math.isfinite(errors[method]):
                        continue
                    n_flows = len(flows[0]) if run is ours_side_by_side else 1
                    clouds_of_run = flows if run is ours_side_by_side else (x, y)
                    action = functools.partial(run, *clouds_of_run, nodes, blur, *options)
                    with warnings.catch_warnings(), np.errstate(all="ignore"):
                        warnings.simplefilter("ignore")
                        if turn:
                            seconds[method].append(timed(action, device) / n_steps / n_flows)
                            continue
                        v, at = action()
                    # The first turn compiles and measures the error.
                    own = run in (ours, ours_side_by_side, plain)
                    truth = reference_velocities(at, y, blur)[0] if own else reference
                    errors[method] = relative_error(v, truth) if torch.isfinite(v).all() else math.inf
            results[name, n_steps] = errors, seconds
            report(errors, seconds)
    draw(results)


def report(errors, seconds):
    medians = {method: np.median(each) for method, each in seconds.items() if each}
    print(f"{'':24}{'error':>9}{'ms a step':>11}{'(min - max)':>18}    ours, and side by side, faster by")

    def ratio(method, family):
        """How many times as long as the fastest of `family` with no larger error."""
        fair = [medians[m] for m in medians if m.startswith(family) and errors[m] <= errors[method]]
        return f"{medians[method] / min(fair):.1f}" if fair else "none as exact"

    for method, error in errors.items():
        if method not in medians:
            print(f"{method:24}{'not finite':>9}")
            continue
        spread = f"({1e3 * min(seconds[method]):.2f} - {1e3 * max(seconds[method]):.2f})"
        ratios = f"{ratio(method, 'ours'):>18}{ratio(method, 'side by side'):>18}"
        print(f"{method:24}{error:9.1e}{1e3 * medians[method]:11.2f}{spread:>18}{ratios}", flush=True)


def draw(results):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(results), figsize=(4 * len(results), 4), layout="constrained", squeeze=False
    )
    for axis, ((name, n_steps), (errors, seconds)) in zip(axes[0], results.items(), strict=True):
        for family in (
            "ours",
            "side by side",
            "GeomLoss 0",
            "GeomLoss clamped",
            "POT sinkhorn 0",
            "POT sinkhorn_log",
            "POT batch",
            "OTT",
        ):
            points = [
                (np.median(seconds[m]) * 1e3, errors[m])
                for m in errors
                if m.startswith(family) and seconds[m]
            ]
            if points:
                axis.loglog(*zip(*sorted(points), strict=True), "o-", label=family.removesuffix(" 0"))
        axis.set(title=f"{name}, T = {n_steps}", xlabel="ms a step", ylabel="relative error of v")
    axes[0, 0].legend(fontsize="small")
    figure.savefig("solver.png", dpi=100)
    print("wrote solver.png")


# ------------------------------------------------------------------------ growth, pool, machine


def growth(arguments):
    print(
        f"{'n':>7}{'d':>4}{'seconds':>10}{'rounds':>8}{'s a round':>11}{'MiB':>8}{'error of marginals':>20}"
        f"{'exponents: seconds, s a round':>31}"
    )
    for d in (2, 50):
        last = None
        for n in arguments.sizes:
            command = [sys.executable, __file__, "--one-size", str(n), str(d)]
            try:
                run = subprocess.run(
                    command, capture_output=True, text=True, check=True, timeout=MOST_SECONDS
                )
            except subprocess.TimeoutExpired:
                print(f"{n:7}{d:4}  not finished in {MOST_SECONDS} s", flush=True)
                break
            seconds, rounds, mebibytes, error = map(float, run.stdout.split())
            a_round = seconds / rounds
            growths = (seconds / last[1], a_round / last[2]) if last else (math.nan, math.nan)
            exponents = [math.log(each) / math.log(n / last[0]) if last else each for each in growths]
            print(
                f"{n:7}{d:4}{seconds:10.3f}{rounds:8.0f}{a_round:11.5f}{mebibytes:8.0f}{error:20.1e}"
                f"{exponents[0]:24.2f}{exponents[1]:7.2f}",
                flush=True,
            )
            last = n, seconds, a_round


def one_size(n, d):
    """Print the seconds, the rounds, the memory beyond the data and the error of one cold velocity."""
    import torch

    from sklearn_nsgf.flow import sinkhorn_velocity

    generator = torch.Generator().manual_seed(0)
    warm_up = torch.randn(64, d, generator=generator)
    blur = 0.1 * math.sqrt(d)
    sinkhorn_velocity(warm_up, warm_up + 1, blur=blur)
    x, y = torch.randn(n, d, generator=generator), 0.5 * torch.randn(n, d, generator=generator) + 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = sinkhorn_velocity(x, y, blur=blur, tol=1e-2)
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(seconds, result.n_iters, peak, result.marginal_error.item())


def plain_flow(x, y, blur, n_steps, tol):
    """The fixed baseline: log-sum-exp Sinkhorn, annealed by halves from the diameter, at every step."""
    import torch

    def potentials(x, y, symmetric):
        cost = torch.cdist(x, y).square() / 2
        f, g = torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0])
        blurs, annealed = [], math.sqrt(2 * cost.max())
        while annealed > blur:
            blurs.append(annealed)
            annealed /= 2
        for level in [*blurs, blur]:
            eps, level_tol = level**2, tol if level == blur else 0.1
            for _ in range(5000):
                if symmetric:
                    new = -eps * ((g - cost) / eps - math.log(len(y))).logsumexp(1)
                    error = ((g - new) / eps).exp().sub(1).abs().mean()
                    f = g = (g + new) / 2
                else:
                    f = -eps * ((g - cost) / eps - math.log(len(y))).logsumexp(1)
                    new = -eps * ((f[:, None] - cost) / eps - math.log(len(x))).logsumexp(0)
                    error = ((g - new) / eps).exp().sub(1).abs().mean()
                    g = new
                if error <= level_tol:
                    break
        return ((g - cost) / eps).softmax(1) @ y

    nodes, velocities = [], []
    for k in range(n_steps):
        eta = 1 / (n_steps - k)
        v = potentials(x, y, False) - potentials(x, x, True)
        nodes.append(x)
        velocities.append(v)
        x = x + eta * v
    return torch.stack(velocities), torch.stack(nodes)


def pool(arguments):
    import torch

    from sklearn_nsgf.flow import particle_flow

    device = arguments.device
    if device != "cpu":
        batched_pool(device)
    blur, n_steps = 0.05, 5
    batches = []
    for seed in range(64):
        rng = np.random.default_rng(seed)
        clouds = eight_gaussians(1024, rng), rng.standard_normal((1024, 2))
        y, x = (torch.tensor(each, dtype=torch.float32, device=device) for each in clouds)
        batches.append((x, y))
    particle_flow(*batches[0], blur=blur, n_steps=n_steps)
    start = synchronised(device)
    flows = [particle_flow(x, y, blur=blur, n_steps=n_steps, tol=2e-3) for x, y in batches]
    seconds = (synchronised(device) - start) / len(batches)
    errors = [
        relative_error(flow.v, reference_velocities(flow.x[:-1], y, blur)[0])
        for flow, (_, y) in zip(flows[:2], batches[:2], strict=True)
    ]
    print(f"ours, 64 flows: {seconds:.3f} s a flow, error {np.mean(errors):.1e} (mean of 2)", flush=True)
    for tol in (1e-2, 3e-3):
        start = synchronised(device)
        plain = [plain_flow(x, y, blur, n_steps, tol) for x, y in batches[:2]]
        plain_seconds = (synchronised(device) - start) / 2
        errors = [
            relative_error(v, reference_velocities(nodes, y, blur)[0])
            for (v, nodes), (_, y) in zip(plain, batches[:2], strict=True)
        ]
        print(
            f"plain, tol {tol:g}, 2 flows: {plain_seconds:.1f} s a flow, error {np.mean(errors):.1e}, "
            f"ratio {plain_seconds / seconds:.1f}",
            flush=True,
        )


def batched_pool(device, n_flows=256, n=1024, d=784, n_steps=5):
    """Minibatches side by side, as many as the pool puts on a GPU at once, drawn beforehand."""
    import torch

    from sklearn_nsgf.flow import particle_flow
    from sklearn_nsgf.flow._pool import n_flows_at_once

    n_at_once = n_flows_at_once(n, n, d, device)
    n_groups = n_flows // n_at_once
    generator = torch.Generator(device).manual_seed(0)
    options = {"generator": generator, "device": device}
    centres = torch.randn(30, d, **options)
    seconds, converged = [], []
    for _ in range(n_groups + 1):
        x = torch.randn(n_at_once, n, d, **options)
        y = centres[torch.randint(30, (n_at_once, n), **options)]
        y += 0.3 * torch.randn(y.shape, **options)
        start = synchronised(device)
        flow = particle_flow(x, y, blur=1.0, n_steps=n_steps, tol=1e-2)
        seconds.append(synchronised(device) - start)
        converged.append(flow.converged.float().mean().item())
    peak = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device != "cpu" else ""
    print(
        f"{n_groups * n_at_once} flows of {n} points, d = {d}, {n_steps} steps: {sum(seconds[1:]):.1f} s, "
        f"{seconds[0]:.1f} s for {n_at_once} to warm up{peak}, {np.mean(converged):.1%} converged",
        flush=True,
    )


def machine(arguments):
    import torch
    from torch.profiler import ProfilerActivity, profile

    from sklearn_nsgf.flow import particle_flow

    def fastest(action, n_times=200):
        times = []
        for _ in range(n_times):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return min(times)

    for name in ("50d n1024 blur 1", "mnist n256 blur 1", "2d n256 blur .1"):
        x, y, blur = clouds(name, arguments.data)
        n = len(x)
        matrix, vector = torch.rand(n, n), torch.rand(n, 1)
        product = fastest(lambda matrix=matrix, vector=vector: matrix @ vector)
        out = torch.empty_like(matrix)
        softmax = fastest(lambda matrix=matrix, out=out: torch.softmax(matrix, -1, out=out))
        gemm = fastest(lambda x=x, y=y: x @ y.mT)
        particle_flow(x, y, blur=blur, n_steps=5, tol=2e-3)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            particle_flow(x, y, blur=blur, n_steps=5, tol=2e-3)
        events = {event.key: event for event in profiler.key_averages()}
        total = sum(event.self_cpu_time_total for event in events.values())
        products = [events[key] for key in ("aten::mm", "aten::addmv_") if key in events]
        softmaxes = events["aten::_softmax"]
        print(
            f"{name}: product {1e6 * product:.0f} us ({4e-9 * n * n / product:.0f} GB/s), "
            f"softmax {1e6 * softmax:.0f} us ({1e-9 * n * n / softmax:.1f} G/s), "
            f"x y^T {1e6 * gemm:.0f} us; of a flow's time "
            f"{sum(event.self_cpu_time_total for event in products) / total:.0%} in "
            f"{sum(event.count for event in products)} products, "
            f"{softmaxes.self_cpu_time_total / total:.0%} in {softmaxes.count} softmaxes",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKLEARN_NSGF_DATA"), help="folder of the files")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 10])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", type=int, default=[4**k for k in range(4, 9)])
    for mode in ("growth", "pool", "machine"):
        parser.add_argument(f"--{mode}", action="store_true")
    parser.add_argument("--one-size", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_size:
        return one_size(*arguments.one_size)
    if arguments.growth:
        return growth(arguments)
    pin_to_one_core()
    for mode in (pool, machine):
        if getattr(arguments, mode.__name__):
            return mode(arguments)
    return table(arguments)


if __name__ == "__main__":
    main()
