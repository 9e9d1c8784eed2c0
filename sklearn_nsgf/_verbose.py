"""What `verbose` says, and where."""

from __future__ import annotations

import logging

logger = logging.getLogger("sklearn_nsgf")


def say(message: str, *arguments: object) -> None:
    """Log a line if logging shows it, and print it otherwise, as scikit-learn's estimators do.

    Logging shows it if there is a handler and lines of the level INFO are wanted. By default neither is so.

    Parameters
    ----------
    message : str
        With the places of %-formatting.
    *arguments : object
        What belongs there.

    Examples
    --------
    >>> from sklearn_nsgf._verbose import say
    >>> say("simulated %d flows", 32)
    simulated 32 flows
    """
    if logger.hasHandlers() and logger.isEnabledFor(logging.INFO):
        logger.info(message, *arguments)
    else:
        print(message % arguments, flush=True)
