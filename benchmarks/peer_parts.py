"""How `peer_features.py` uses the packages that are no estimators, and the probes of theirs."""

import importlib.util
import io
import itertools
import warnings

import numpy as np
import torch
from peer_probes import (
    IMAGES,
    LABELS,
    NEW,
    SOURCE,
    TARGET,
    NotThisKind,
    NotTried,
    Peer,
    answer_of,
    no,
    part,
    short,
    yes,
)

OWN_LOOP = "with a training loop and an integrator of one's own"


class OwnLoop:
    """What a user of TorchCFM writes: the training loop and Euler steps."""

    def __init__(self, matcher, network):
        self.matcher, self.network = matcher, network

    def fit(self, source, target, n_iter=20, batch_size=32):
        """Train on batches of both samples."""
        optimizer = torch.optim.Adam(self.network.parameters())
        for _ in range(n_iter):
            x0, x1 = (
                torch.as_tensor(rows[torch.randint(len(rows), (batch_size,)).numpy()]).float()
                for rows in (source, target)
            )
            t, x_t, u_t = self.matcher.sample_location_and_conditional_flow(x0, x1)
            loss = (self.velocity(t, x_t) - u_t).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self

    def velocity(self, t, x):
        """The network has time as its last feature."""
        return self.network(torch.cat([x, t.expand(len(x))[:, None]], dim=1))

    @torch.no_grad()
    def integrate(self, points, times):
        """Euler steps between the times."""
        x = torch.as_tensor(points).float()
        for start, end in itertools.pairwise(times):
            x = x + (end - start) * self.velocity(start, x)
        return x.numpy()


class TorchCfmPeer(Peer):
    """Its matcher of minibatches and its perceptron, in a loop as in its examples."""

    title, module, distribution = "TorchCFM", "torchcfm", "torchcfm"

    def make(self, **parameters):
        from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

        return ExactOptimalTransportConditionalFlowMatcher(sigma=0.0, **parameters)

    def fit(self, model, source, target):
        from torchcfm.models.models import MLP

        return OwnLoop(model, MLP(dim=source.shape[1], time_varying=True)).fit(source, target)

    def move(self, model, points):
        return model.integrate(points, torch.linspace(0, 1, 6))

    def back(self, model, points):
        return model.integrate(points, torch.linspace(1, 0, 6))

    def draw(self, model, n_samples):
        return self.move(model, np.random.RandomState(0).normal(size=(n_samples, 2)))

    def new_points(self):
        return own(super().new_points())

    def sample(self):
        return own(super().sample())

    def inverse(self):
        return own(super().inverse())

    def memmap(self):
        return own(super().memmap())

    def pickle(self):
        return own(super().pickle())

    def make_unet(self, **parameters):
        from torchcfm.models.unet import UNetModel

        return UNetModel(dim=(1, 8, 8), num_channels=32, num_res_blocks=1, channel_mult=(1, 2), **parameters)

    def images(self):
        t, x_t, _ = self.make().sample_location_and_conditional_flow(*map(torch.as_tensor, IMAGES))
        shape = self.make_unet()(t, x_t).shape
        return part(f"its UNetModel, {OWN_LOOP}") if shape == x_t.shape else no(f"shape {shape}")

    def conditional(self):
        labels = torch.as_tensor(LABELS[:16])
        t, x_t, _, _, y1 = self.make().guided_sample_location_and_conditional_flow(
            *map(torch.as_tensor, IMAGES), y1=labels
        )
        self.make_unet(num_classes=2, class_cond=True)(t, x_t, y1)
        return part(f"its guided_sample_location_and_conditional_flow and UNetModel, {OWN_LOOP}")

    def device(self):
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

        clouds = [torch.zeros(8, 2, device="meta") for _ in range(2)]
        _, x_t, _ = ConditionalFlowMatcher().sample_location_and_conditional_flow(*clouds)
        return yes(f"no parameter; computes where the tensors are; on '{x_t.device}'")

    def safe_file(self):
        model, file = self.fitted(), io.BytesIO()
        torch.save(model.network.state_dict(), file)
        file.seek(0)
        other = self.fitted()
        other.network.load_state_dict(torch.load(file, weights_only=True))
        np.testing.assert_array_equal(self.move(model, NEW), self.move(other, NEW))
        return part("state_dict of the network through torch.load(weights_only=True)")

    def frames_in(self, make_frame):
        self.make().sample_location_and_conditional_flow(make_frame(SOURCE), make_frame(TARGET))
        return yes()

    def columns_checked(self):
        return frames_refused(self)

    def seeded_answer(self):
        torch.manual_seed(0)
        return super().seeded_answer()

    def seed(self):
        if super().seed().verdict != "no":
            return part("no parameter: after torch.manual_seed")
        answers = []
        for _ in range(2):
            np.random.seed(0)
            answers.append(self.seeded_answer().tobytes())
        if answers[0] != answers[1]:
            return no("torch.manual_seed and np.random.seed do not suffice")
        return part("no parameter: after torch.manual_seed and np.random.seed, both of them")

    def units(self):
        from torchcfm.optimal_transport import OTPlanSampler

        def plan(method):
            # Centred and small: with its default of 0.05 the Sinkhorn plan has to exist at scale one.
            clouds = [torch.tensor((cloud - cloud.mean(axis=0)) / 3) for cloud in (SOURCE, TARGET)]
            return lambda scale: OTPlanSampler(method=method).get_map(*(scale * cloud for cloud in clouds))

        exact, sinkhorn = (self.equivariance(plan(method)) for method in ("exact", "sinkhorn"))
        if exact.verdict == sinkhorn.verdict:
            return sinkhorn
        return part(f"exact plan: {exact.verdict}; Sinkhorn plan: {sinkhorn.verdict}, {sinkhorn.reason}")

    def use_missing(self, source):
        self.make().sample_location_and_conditional_flow(torch.tensor(source), torch.tensor(TARGET))

    def metrics(self):
        from torchcfm.optimal_transport import wasserstein

        return yes(f"wasserstein {wasserstein(torch.tensor(SOURCE), torch.tensor(TARGET)):.3g}")

    def plots(self):
        from torchcfm.utils import plot_trajectories

        plot_trajectories(np.stack([SOURCE, SOURCE + 1]))
        return yes("plot_trajectories")


class GeomLossPeer(Peer):
    """A number for two samples, differentiable; it moves nothing by itself."""

    title, module, distribution = "GeomLoss", "geomloss", "geomloss"

    def make(self, **parameters):
        from geomloss import SamplesLoss

        return SamplesLoss("sinkhorn", **parameters)

    def value(self, source, target):
        return self.make()(torch.as_tensor(source), torch.as_tensor(target))

    def new_points(self):
        self.require("transform")

    def sample(self):
        self.require("sample")

    def inverse(self):
        self.require("inverse_transform")

    def pickle_size(self):
        self.require("fit")

    def columns_checked(self):
        return frames_refused(self)

    def images(self):
        import geomloss

        as_samples = answer_of(lambda: yes(str(float(self.value(*IMAGES)))))
        densities = (torch.tensor(np.exp(images)) for images in IMAGES)
        on_grid = answer_of(
            lambda: part(f"{len(geomloss.sinkhorn_divergence(*map(with_mass_one, densities)))} values")
        )
        if on_grid.verdict == "part":
            return part(f"as densities on a grid; as points: {as_samples.reason}")
        if importlib.util.find_spec("pykeops") is None:
            raise NotTried(
                f"densities on a grid need KeOps ({on_grid.reason}); as points: {as_samples.reason}"
            )
        return on_grid

    def device(self):
        clouds = [torch.zeros(8, 2, device="meta") for _ in range(2)]
        on_meta = answer_of(lambda: yes(str(self.make()(*clouds).device)))
        device = self.value(SOURCE, TARGET).device
        return yes(
            f"no parameter; computes where the tensors are; on '{device}'; on 'meta': {on_meta.reason}"
        )

    def memmap(self):
        answer = super().memmap()
        if answer.verdict == "no" and importlib.util.find_spec("pykeops") is None:
            raise NotTried(f"many rows need KeOps: {answer.reason}")
        return answer

    def use_memmap(self, source, target):
        self.value(source, target)
        return yes()

    def pickle(self):
        import pickle

        loaded = pickle.loads(pickle.dumps(self.make()))
        clouds = [torch.tensor(cloud) for cloud in (SOURCE, TARGET)]
        return yes() if loaded(*clouds) == self.make()(*clouds) else no("another value")

    def frames_in(self, make_frame):
        self.make()(make_frame(SOURCE), make_frame(TARGET))
        return yes()

    def seeded_answer(self):
        return self.value(SOURCE, TARGET)

    def units(self):
        return self.equivariance(lambda scale: self.value(SOURCE * scale, TARGET * scale) / scale**2)

    def use_missing(self, source):
        self.value(source, TARGET)

    def metrics(self):
        return yes(f"it is one: {float(self.value(SOURCE, TARGET)):.3g}")


class ForestFlowPeer(Peer):
    """Trees that generate rows like those given to the constructor, which is where it trains."""

    title, module, distribution = "ForestFlow", "ForestDiffusion", "ForestDiffusion"

    def train(self, rows, **parameters):
        from ForestDiffusion import ForestDiffusionModel

        small = {"n_t": 4, "duplicate_K": 4, "n_estimators": 4, "n_jobs": 1, "diffusion_type": "flow"}
        return ForestDiffusionModel(rows, **{**small, **parameters})

    def make(self, **parameters):
        return self.train(TARGET, **parameters)

    def fit(self, model, source, target):
        return self.train(target)

    def fitted(self, **parameters):
        return self.train(TARGET, **parameters)

    def move(self, model, points):
        """As many rows as there are points, always the same."""
        np.random.seed(0)
        return model.generate(batch_size=len(points))

    def draw(self, model, n_samples):
        return model.generate(batch_size=n_samples)

    def new_points(self):
        self.require("transform")

    def inverse(self):
        self.require("inverse_transform")

    def images(self):
        self.train(IMAGES[1])
        return yes()

    def conditional(self):
        one_hot = np.eye(2)[LABELS[: len(TARGET)]]
        drawn = self.train(TARGET, X_covs=one_hot).generate(batch_size=5, X_covs=one_hot[:5])
        labelled = self.train(TARGET, label_y=LABELS[: len(TARGET)]).generate(batch_size=5)
        return yes(f"X_covs: shape {drawn.shape}; label_y draws the labels itself: {labelled.shape}")

    def device(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            outcome = answer_of(lambda: yes(f"drew {self.train(TARGET, gpu_hist=True).generate(3).shape}"))
        said = next((short(warning.message) for warning in caught if "GPU" in str(warning.message)), "")
        answer = yes if said or outcome.verdict == "no" else no
        return answer(f"gpu_hist=True, CUDA alone; without a GPU: {outcome.reason} {said}".rstrip())

    def callbacks(self):
        from xgboost.callback import TrainingCallback

        rounds = []

        class Counter(TrainingCallback):
            def after_iteration(self, model, epoch, evals_log):
                rounds.append(epoch)
                return False

        self.train(TARGET, callbacks=[Counter()])
        by_default = len(rounds)
        self.train(TARGET, callbacks=[Counter()], n_batch=0)
        if by_default == 0 and rounds:
            return part("xgboost's callbacks with n_batch=0; by default they are not called")
        return yes("xgboost's callbacks") if rounds else no("callbacks are not called")

    def curve(self):
        booster = self.train(TARGET, n_batch=0).regr[0][0]
        return yes(str(booster.evals_result()))

    def warm_start(self):
        model = self.make()
        names = [name for name in ("fit", "resume", "warm_start") if hasattr(model, name)]
        return part(f"has {names}") if names else no("trains in the constructor, once")

    def early_stopping(self):
        self.train(TARGET, early_stopping_rounds=1, n_batch=0)
        return yes()

    def partial_fit(self):
        self.make().partial_fit(TARGET)
        return yes()

    def safe_file(self):
        own_types, foreign = self.skops_round_trip(self.fitted())
        if foreign:
            return part(f"types of others to trust: {', '.join(foreign)}")
        return yes(f"own types to trust: {', '.join(own_types)}")

    def use_memmap(self, source, target):
        self.train(target, n_batch=16, n_t=1, duplicate_K=1, n_estimators=1, max_depth=1)
        return yes()

    def seeded_answer(self):
        return self.train(TARGET, seed=0).generate(batch_size=7)

    def nan_error(self):
        holed = TARGET.copy()
        holed[3, 1] = np.nan
        drawn = self.train(holed).generate(batch_size=7)
        if np.isfinite(drawn).all():
            raise NotThisKind("missing values are allowed")
        return no("rows with NaN are generated")

    def metrics(self):
        return self.no_public_name("metric", "distance", "wasserstein")


def own(answer):
    """What works only in code that the user writes."""
    return part(OWN_LOOP, answer.figure) if answer.verdict == "yes" else answer


def frames_refused(peer):
    """Columns cannot be checked where no frame comes in."""
    import pandas as pd

    try:
        peer.frames_in(pd.DataFrame)
    except Exception as error:
        raise NotThisKind(f"no DataFrame comes in: {short(error)}") from error
    raise NotTried("frames come in")


def with_mass_one(images):
    """Densities of images."""
    return images / images.sum(dim=(2, 3), keepdim=True)
