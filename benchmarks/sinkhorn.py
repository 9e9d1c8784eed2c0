"""How exact are the velocities of Sinkhorn solvers along a flow, and in how many seconds? One core each.

    pip install geomloss ott-jax
    python benchmarks/sinkhorn.py --data DIR            # the table and sinkhorn.png
    python benchmarks/sinkhorn.py --growth              # time and memory for n = 256 ... 65 536
    python benchmarks/sinkhorn.py --pool                # 64 minibatches against plain Sinkhorn
    python benchmarks/sinkhorn.py --gaps                # clusters whose mass has to cross gaps
    python benchmarks/sinkhorn.py --machine             # shares of the machine's own speed
    python benchmarks/sinkhorn.py --device cuda --data DIR     # the table on a GPU, and so with --pool

DIR holds the folders mnist/ and cifar10/ (the IDX files, and cifar10_batch_0.png).

A flow is T harmonic steps from a standard normal sample to a sample of the target. Its nodes are
those of a float64 reference. Every peer gets the velocities at those nodes, one node after the other,
warm-started from the last one where its interface allows it; ours is `particle_flow`, and "side by side"
the same with others of its kind in one tensor, as many as a pool simulates at once, a flow. Errors are means
over the steps of ||v - v_ref|| / ||v_ref||, where v_ref is our own float64 answer at the method's nodes
with marginals met to 1e-6, which is checked by an independent log-domain half-round. The whole process
is pinned to one core, but for --growth. Methods take turns within one run. JAX is compiled before. On a GPU
only the methods that run there take part.

Printed are the error and the median milliseconds a step, with the smallest and the largest of the turns, and
how many times as long as the fastest of ours with no larger error that is. The baseline of --pool is plain
log-sum-exp Sinkhorn.
"""

import argparse
import functools
import itertools
import math
import os
import resource
import subprocess
import sys
import time
import timeit
import warnings

import numpy as np
import torch
from _harness import eight_gaussians, make_parser, print_row, read_idx, spread
from threadpoolctl import threadpool_limits
from torch.profiler import ProfilerActivity, profile

from sklearn_nsgf.flow import (
    GaussianSampler,
    SinkhornFlows,
    particle_flow,
    sinkhorn_potentials,
    sinkhorn_velocity,
)

REFERENCE_TOL = 1e-6
# A size of --growth that takes longer is given up.
MOST_SECONDS = 240


def pin_to_one_core():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    threadpool_limits(1)
    torch.set_num_threads(1)


def near_gaussians(n, rng, data):
    return eight_gaussians(n, rng) / 3.5


def mixture(n, rng, data):
    """30 clusters in 50 dimensions: centres of deviation 1, clusters of 0.3."""
    centres = np.random.default_rng(0).standard_normal((30, 50))
    return centres[rng.integers(30, size=n)] + 0.3 * rng.standard_normal((n, 50))


def mnist(n, rng, data):
    images = read_idx(data / "mnist" / "train-images-idx3-ubyte.gz").reshape(-1, 784)
    return images[rng.choice(len(images), n, replace=False)] / 127.5 - 1


def cifar10(n, rng, data):
    from matplotlib.image import imread

    images = imread(data / "cifar10" / "cifar10_batch_0.png")[..., :3].reshape(1000, -1)
    return images[rng.choice(len(images), n, replace=False)] * 2.0 - 1


IMAGES = (mnist, cifar10)
# Target, n and blur.
CASES = {
    "2d n256 blur .5": (near_gaussians, 256, 0.5),
    "2d n256 blur .1": (near_gaussians, 256, 0.1),
    "mnist n256 blur 1": (mnist, 256, 1.0),
    "50d n1024 blur 1": (mixture, 1024, 1.0),
    "cifar10 n128 blur 1": (cifar10, 128, 1.0),
}


def synchronised(device):
    """The time when all work on the device is done."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def clouds(name, data, device="cpu", seed=0):
    """Source, target and blur of a case."""
    target, n, blur = CASES[name]
    rng = np.random.default_rng(seed)
    y = torch.tensor(target(n, rng, data), dtype=torch.float32, device=device)
    return torch.tensor(rng.standard_normal(y.shape), dtype=torch.float32, device=device), y, blur


def n_flows_at_once(n, d, device):
    """As many as a pool simulates side by side."""
    noise = GaussianSampler(np.ones(d))
    return SinkhornFlows(noise, noise, n_particles=n, blur=1.0, n_steps=5, device=device).n_at_once


# Every method takes clouds, the nodes and the blur, and returns velocities and the nodes of its own.


def ours(x, y, nodes, blur, tol):
    flow = particle_flow(x, y, blur=blur, n_steps=len(nodes), tol=tol)
    return flow.v, flow.x[:-1]


def ours_side_by_side(x, y, nodes, blur, tol):
    """Flows in one tensor: velocities and nodes of the first."""
    velocities, positions = ours(x, y, nodes, blur, tol)
    return velocities[:, 0], positions[:, 0]


def plain(x, y, nodes, blur, tol):
    """The fixed baseline: log-sum-exp Sinkhorn, annealed by halves from the diameter, at every step."""

    def project(x, y, symmetric):
        cost = torch.cdist(x, y).square() / 2
        f, g = torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0])
        blurs, annealed = [], math.sqrt(2 * cost.max())
        while annealed > blur:
            blurs.append(annealed)
            annealed /= 2
        for level in [*blurs, blur]:
            eps, level_tol = level**2, tol if level == blur else 0.1
            for _ in range(5000):
                f = -eps * ((g - cost) / eps - math.log(len(y))).logsumexp(1)
                new = f if symmetric else -eps * ((f[:, None] - cost) / eps - math.log(len(x))).logsumexp(0)
                error = ((g - new) / eps).exp().sub(1).abs().mean()
                g = (g + new) / 2 if symmetric else new
                if error <= level_tol:
                    break
        return ((g - cost) / eps).softmax(1) @ y

    positions, velocities = [x], []
    for k in range(len(nodes)):
        velocities.append(project(positions[-1], y, False) - project(positions[-1], positions[-1], True))
        positions.append(positions[-1] + velocities[-1] / (len(nodes) - k))
    return torch.stack(velocities), torch.stack(positions[:-1])


def geomloss_flow(x, y, nodes, blur, scaling):
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend="tensorized")
    velocities = []
    for node in nodes:
        moving = node.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(moving, y), moving)
        velocities.append(-len(node) * gradient)
    return torch.stack(velocities), nodes


def geomloss_clamped(x, y, nodes, blur, scaling):
    """The same without exponentials of very negative numbers."""

    def logsumexp(logits, dim=None, keepdim=False):
        largest = logits.detach().amax(dim, keepdim=True)
        sums = (logits - largest).clamp(min=-50.0).exp().sum(dim, keepdim=True).log() + largest
        return sums if keepdim else sums.squeeze(dim)

    methods = [torch.Tensor.logsumexp, torch.logsumexp]
    torch.Tensor.logsumexp = torch.logsumexp = logsumexp
    try:
        return geomloss_flow(x, y, nodes, blur, scaling)
    finally:
        torch.Tensor.logsumexp, torch.logsumexp = methods


def pot_flow(x, y, nodes, blur, tol, method):
    import ot

    y, warm = y.numpy(), {}
    options = {"method": method, "stopThr": tol, "numItermax": 5000, "warn": False, "log": True}

    def project(source, target, key):
        a, b = (np.full(len(c), 1 / len(c), np.float32) for c in (source, target))
        cost = ot.dist(source, target)
        plan, log = ot.sinkhorn(a, b, cost, 2 * blur**2, warmstart=warm.get(key), **options)
        in_logs = "log_u" in log
        warm[key] = (log["log_u"], log["log_v"]) if in_logs else (np.log(log["u"]), np.log(log["v"]))
        return plan @ target / plan.sum(1, keepdims=True)

    velocities = [
        project(node, y, "cross") - project(node, node, "own") for node in (each.numpy() for each in nodes)
    ]
    return torch.tensor(np.array(velocities)), nodes


def pot_batch(x, y, nodes, blur, tol):
    import ot

    options = {"reg": 2 * blur**2, "max_iter": 5000, "tol": tol, "grad": "detach"}

    def project(source, target):
        plan = ot.solve_sample_batch(source[None], target[None], **options).plan[0]
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
        return out.matrix @ target / out.matrix.sum(1, keepdims=True), (out.f, out.g)

    return project


def ott_flow(x, y, nodes, blur, tol):
    import jax.numpy as jnp

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
# Families of methods: how one is run, its settings, and the devices on which it is.
FAMILIES = {
    "ours tol": (ours, OUR_TOLS, ("cpu", "cuda")),
    "side by side": (ours_side_by_side, OUR_TOLS, ("cpu", "cuda")),
    "GeomLoss": (geomloss_flow, (0.5, 0.8, 0.9, 0.95), ("cpu", "cuda")),
    "GeomLoss clamped": (geomloss_clamped, (0.5, 0.9), ("cpu", "cuda")),
    "POT sinkhorn": (functools.partial(pot_flow, method="sinkhorn"), (1e-2, 1e-3, 1e-4), ("cpu",)),
    "POT sinkhorn_log": (functools.partial(pot_flow, method="sinkhorn_log"), (1e-2, 1e-3), ("cpu",)),
    "POT batch": (pot_batch, (1e-2, 1e-4), ("cpu",)),
    "OTT jitted": (ott_flow, (1e-1, 1e-2, 1e-3), ("cpu",)),
    "plain torch": (plain, (1e-1, 1e-2), ("cuda",)),
}


def reference_velocities(nodes, y, blur):
    """Float64 velocities, with the largest marginal error that a half-round of our own finds."""
    y, velocities, worst, g = y.double(), [], 0.0, None
    options = {"blur": blur, "tol": REFERENCE_TOL, "max_iter": 20_000}
    for node in nodes.double():
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


def timed(action, device):
    """Seconds of one call, the mean of as many as take a fifth of a second."""
    start, n_calls = synchronised(device), 0
    while not n_calls or synchronised(device) - start < 0.2:
        action()
        n_calls += 1
    return (synchronised(device) - start) / n_calls


def table(arguments):
    results, device = {}, arguments.device
    for name in arguments.cases:
        x, y, blur = clouds(name, arguments.data, device)
        n_flows = min(64, n_flows_at_once(*x.shape, device))
        pairs = [(x, y), *(clouds(name, arguments.data, device, seed)[:2] for seed in range(1, n_flows))]
        flows = [torch.stack(each) for each in zip(*pairs, strict=True)]
        for n_steps in arguments.steps:
            nodes = particle_flow(x.double(), y.double(), blur=blur, n_steps=n_steps, tol=1e-3).x[:-1].float()
            reference, worst = reference_velocities(nodes, y, blur)
            print(f"\n{name}, T = {n_steps}; {n_flows} flows side by side; reference within {worst:.0e}")
            actions = {
                f"{family} {setting:g}": functools.partial(
                    run, *(flows if run is ours_side_by_side else (x, y)), nodes, blur, setting
                )
                for family, (run, settings, devices) in FAMILIES.items()
                for setting in settings
                if device in devices
            }
            errors, seconds = {}, {}
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                for method, action in actions.items():
                    v, at = action()  # compiles
                    truth = reference if at is nodes else reference_velocities(at, y, blur)[0]
                    errors[method] = relative_error(v, truth) if torch.isfinite(v).all() else math.inf
                for _, (method, action) in itertools.product(range(arguments.repeats), actions.items()):
                    if math.isfinite(errors[method]):
                        n_steps_made = n_steps * (n_flows if method.startswith("side") else 1)
                        seconds.setdefault(method, []).append(timed(action, device) / n_steps_made)
            results[name, n_steps] = errors, seconds
            report(errors, seconds)
    draw(results)


def report(errors, seconds):
    medians = {method: 1e3 * np.median(each) for method, each in seconds.items()}
    print_row("", ["error", "ms a step", "(min - max)", "ours faster by", "side by side by"], 17)

    def ratio(method, family):
        """How many times as long as the fastest of `family` with no larger error."""
        fair = [medians[m] for m in medians if m.startswith(family) and errors[m] <= errors[method]]
        return f"{medians[method] / min(fair):.1f}" if fair else "none as exact"

    for method, error in errors.items():
        if method not in medians:
            print_row(method, ["not finite"], 17)
            continue
        extremes = f"({1e3 * min(seconds[method]):.2f} - {1e3 * max(seconds[method]):.2f})"
        ratios = [ratio(method, family) for family in ("ours", "side by side")]
        print_row(method, [f"{error:.1e}", f"{medians[method]:.2f}", extremes, *ratios], 17)


def draw(results):
    import matplotlib.pyplot as plt

    n_axes = len(results)
    figure, axes = plt.subplots(1, n_axes, figsize=(4 * n_axes, 4), layout="constrained", squeeze=False)
    for axis, ((name, n_steps), (errors, seconds)) in zip(axes[0], results.items(), strict=True):
        for family in FAMILIES:
            own = [method for method in seconds if method.rsplit(" ", 1)[0] == family]
            points = sorted((1e3 * np.median(seconds[method]), errors[method]) for method in own)
            if points:
                axis.loglog(*zip(*points, strict=True), "o-", label=family)
        axis.set(title=f"{name}, T = {n_steps}", xlabel="ms a step", ylabel="relative error of v")
    axes[0, 0].legend(fontsize="small")
    figure.savefig("sinkhorn.png", dpi=100)
    print("wrote sinkhorn.png")


def growth(arguments):
    """Each size in a process of its own, for its memory."""
    header = ["seconds", "rounds", "s a round", "MiB", "marginal error", "growth of s", "of a round"]
    print_row("n, d", header)
    for d in (2, 50):
        last = None
        for n in arguments.sizes:
            command = [sys.executable, __file__, "--one-size", str(n), str(d)]
            options = {"capture_output": True, "text": True, "check": True, "timeout": MOST_SECONDS}
            try:
                run = subprocess.run(command, **options)
            except subprocess.TimeoutExpired:
                print_row(f"{n}, {d}", [f"not finished in {MOST_SECONDS} s"])
                break
            seconds, rounds, mebibytes, error = map(float, run.stdout.split())
            a_round = seconds / rounds
            cells = [f"{seconds:.3f}", f"{rounds:.0f}", f"{a_round:.5f}", f"{mebibytes:.0f}", f"{error:.1e}"]
            if last:
                ratios = seconds / last[1], a_round / last[2]
                cells += [f"n^{math.log(ratio) / math.log(n / last[0]):.2f}" for ratio in ratios]
            print_row(f"{n}, {d}", cells)
            last = n, seconds, a_round


def one_size(n, d):
    """Print the seconds, the rounds, the memory beyond the data and the error of one cold velocity."""
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


def pool(arguments, blur=0.05, n_steps=5):
    """A pool's flows in the plane, one by one, against the baseline."""
    device, batches = arguments.device, []
    if device != "cpu":
        batched_pool(device)
    for seed in range(64):
        rng = np.random.default_rng(seed)
        pair = near_gaussians(1024, rng, None), rng.standard_normal((1024, 2))
        batches.append([torch.tensor(each, dtype=torch.float32, device=device) for each in pair[::-1]])

    def measure(method, batches, tol):
        """Seconds a flow, and the mean error of the first two."""
        start = synchronised(device)
        flows = [method(x, y, range(n_steps), blur, tol) for x, y in batches]
        seconds = (synchronised(device) - start) / len(batches)
        errors = [
            relative_error(v, reference_velocities(nodes, y, blur)[0])
            for (v, nodes), (_, y) in zip(flows[:2], batches[:2], strict=True)
        ]
        return seconds, np.mean(errors)

    ours(*batches[0], range(n_steps), blur, 2e-3)
    seconds, error = measure(ours, batches, 2e-3)
    print(f"ours, 64 flows: {seconds:.3f} s a flow, error {error:.1e} (mean of 2)", flush=True)
    for tol in (1e-2, 3e-3):
        plain_seconds, error = measure(plain, batches[:2], tol)
        ratio = plain_seconds / seconds
        print(f"plain, tol {tol:g}, 2 flows: {plain_seconds:.1f} s, error {error:.1e}, ratio {ratio:.1f}")


def batched_pool(device, n_flows=256, n=1024, d=784, n_steps=5):
    """Minibatches side by side, as many as the pool puts on a GPU at once, drawn beforehand."""
    n_at_once = n_flows_at_once(n, d, device)
    n_groups = n_flows // n_at_once
    options = {"generator": torch.Generator(device).manual_seed(0), "device": device}
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
    print(
        f"{n_groups * n_at_once} flows of {n} points, d = {d}, {n_steps} steps: {sum(seconds[1:]):.1f} s, "
        f"{seconds[0]:.1f} s for {n_at_once} to warm up, {np.mean(converged):.1%} converged, "
        f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB",
        flush=True,
    )


def clusters(centres, shares=None, std=0.3):
    def draw(n, rng):
        rows = rng.choice(len(centres), n, p=shares)
        return np.asarray(centres, float)[rows] + std * rng.normal(size=(n, 2))

    return draw


def gaps(arguments, n=900, blur=0.05, n_steps=5, tol=0.002):
    """CPU seconds and the largest error of flows between clusters, in the target's standard deviations.

    In turns with the same flow between normal clouds; the last column is the ratio.
    """
    normal = lambda n, rng: rng.normal(size=(n, 2))  # noqa: E731
    corners = [(5, 5), (5, -5), (-5, 5), (-5, -5)]
    two, three = clusters([(-3, 0), (3, 0)]), clusters([(0, 4), (4, -3), (-4, -3)])
    cases = {
        "normal to four corners": (normal, clusters(corners)),
        "four corners, other shares": (clusters(corners), clusters(corners, [0.4, 0.3, 0.2, 0.1])),
        "two clusters to three": (two, three),
        "three clusters to two": (three, two),
    }

    def one(source, target, seed):
        rng = np.random.default_rng(seed)
        x, y = source(n, rng), target(n, rng)
        x, y = (torch.from_numpy((each - y.mean(0)) / y.std(0)).float() for each in (x, y))
        start = time.process_time()
        flow = particle_flow(x, y, blur=blur, n_steps=n_steps, tol=tol)
        return time.process_time() - start, flow.marginal_error.max().item()

    print_row(f"{n} points, {n_steps} steps", ["CPU s", "largest error", "of normal"])
    for name, case in cases.items():
        pairs = [[one(*case, seed), one(normal, normal, seed)] for seed in range(arguments.repeats)]
        seconds, errors = np.moveaxis(np.array(pairs), -1, 0)
        ratio = seconds[:, 0] / seconds[:, 1]
        print_row(name, [spread(seconds[:, 0]), f"{errors[:, 0].max():.4f}", spread(ratio)])


def machine(arguments):
    """How fast the machine does what a flow consists of, and a flow's shares of it."""

    def fastest(action, *operands, **options):
        return min(timeit.repeat(functools.partial(action, *operands, **options), number=1, repeat=200))

    for name in ("50d n1024 blur 1", "mnist n256 blur 1", "2d n256 blur .1"):
        x, y, blur = clouds(name, arguments.data)
        n = len(x)
        matrix, vector = torch.rand(n, n), torch.rand(n, 1)
        product = fastest(torch.mm, matrix, vector)
        softmax = fastest(torch.softmax, matrix, -1, out=torch.empty_like(matrix))
        gemm = fastest(torch.mm, x, y.mT)
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
            f"x y^T {1e6 * gemm:.0f} us ({2e-9 * n * n * x.shape[1] / gemm:.0f} GFLOP/s); of a flow's time "
            f"{sum(event.self_cpu_time_total for event in products) / total:.0%} in "
            f"{sum(event.count for event in products)} products, "
            f"{softmaxes.self_cpu_time_total / total:.0%} in {softmaxes.count} softmaxes",
            flush=True,
        )


def main():
    parser = make_parser(__doc__, data="optional")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 10])
    parser.add_argument("--repeats", type=int, default=3, help="turns of each method")
    parser.add_argument("--sizes", nargs="+", type=int, default=[4**k for k in range(4, 9)])
    for mode in ("growth", "pool", "gaps", "machine"):
        parser.add_argument(f"--{mode}", action="store_true")
    parser.add_argument("--one-size", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_size:
        return one_size(*arguments.one_size)
    if arguments.growth:
        return growth(arguments)
    pin_to_one_core()
    if arguments.pool:
        return pool(arguments)
    if arguments.gaps:
        return gaps(arguments)
    if arguments.data is None and (
        arguments.machine or any(CASES[name][0] in IMAGES for name in arguments.cases)
    ):
        parser.error("give --data or set SKLEARN_NSGF_DATA")
    return (machine if arguments.machine else table)(arguments)


if __name__ == "__main__":
    main()
