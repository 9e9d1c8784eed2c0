"""Flow matching by torchcfm, trained for a number of seconds the way our estimators are."""

import math
import time

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchcfm.conditional_flow_matching import (
    ConditionalFlowMatcher,
    ExactOptimalTransportConditionalFlowMatcher,
)

MATCHERS = {"I-CFM": ConditionalFlowMatcher, "OT-CFM": ExactOptimalTransportConditionalFlowMatcher}


def train_torchcfm(name, network, draw_source, target_rows, *, seconds, seed, learning_rate, batch_size=256):
    """Return the averaged network and the iterations made.

    The optimiser, the schedule over the seconds, the clipping and the averaging are those of our training
    loop. `draw_source` takes a number of rows.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)  # torchcfm draws from the plan with NumPy's global generator
    matcher = MATCHERS[name](sigma=0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / 250))
    network.train()
    n_iter, start = 0, time.perf_counter()
    while (spent := (time.perf_counter() - start) / seconds) < 1:
        rate = learning_rate * min(1.0, spent / 0.05 + 0.01) * (1 + math.cos(math.pi * spent)) / 2
        optimizer.param_groups[0]["lr"] = rate
        x1 = target_rows[torch.randint(len(target_rows), (batch_size,))]
        t, x_t, v_t = matcher.sample_location_and_conditional_flow(draw_source(batch_size), x1)
        loss = (network(t, x_t) - v_t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        n_iter += 1
    return average.module.eval(), n_iter
