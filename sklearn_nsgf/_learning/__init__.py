"""How a leg of the flow is learnt: minibatches, paths between them, the training loop, callbacks."""
