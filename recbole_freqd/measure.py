"""What a model costs: its size, the time of an epoch, the time to rank."""

from time import perf_counter
from typing import Any, Optional

import numpy as np
import torch

_TOP = 20
_REPEATS = 5


class EpochClock:
    """Times the training part of every epoch of a trainer, without the validation.

    Args:
        trainer: A RecBole trainer; its ``_train_epoch`` is wrapped on the instance.
    """

    def __init__(self, trainer: Any) -> None:
        self.seconds: list[float] = []
        train_epoch = trainer._train_epoch

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            result = train_epoch(*args, **kwargs)
            self.seconds.append(perf_counter() - start)
            return result

        trainer._train_epoch = timed

    def median(self) -> Optional[float]:
        """Median seconds per epoch, or None before the first."""
        return float(np.median(self.seconds)) if self.seconds else None


def parameter_count(model: torch.nn.Module) -> int:
    """Number of trainable numbers in a model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def size_mb(model: torch.nn.Module) -> float:
    """Size of a model's ``state_dict`` in MB (10⁶ bytes): what has to be kept to serve it."""
    tensors = [value for value in model.state_dict().values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


@torch.no_grad()
def ranking_latency(model: Any, n_users: int, batch_size: int = 256) -> float:
    """Milliseconds to rank the whole catalogue for 1,000 users: scores and the top 20.

    The median of five passes over 1,000 users (the ids in turn, if there are fewer), in eval mode,
    after a first pass that fills the model's caches.

    Args:
        model: A RecBole model with ``full_sort_predict``.
        n_users: Number of users, padding included.
        batch_size: Users scored at once.
    """
    from recbole.data.interaction import Interaction

    device = next(model.parameters()).device
    ids = (torch.arange(1000, device=device) % (n_users - 1)) + 1
    was_training = model.training
    model.eval()
    seconds = []
    for _ in range(_REPEATS + 1):
        _finish(device)
        start = perf_counter()
        for batch in ids.split(batch_size):
            scores = model.full_sort_predict(Interaction({model.USER_ID: batch}))
            scores.view(len(batch), -1).topk(min(_TOP, model.n_items), dim=1)
        _finish(device)
        seconds.append(perf_counter() - start)
    model.train(was_training)
    return float(np.median(seconds[1:]) * 1000)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
