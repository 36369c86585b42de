"""Measures what a model costs: its size, the time of an epoch, the time to rank."""

from time import perf_counter
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.features import adapter_of
from recbole_freqd.features.check import are_exact
from recbole_freqd.features.scores import inspecting, score_users
from recbole_freqd.teacher.taught import RankedBy

_TOP = 20
_REPEATS = 7
_USERS = 1000
_SLOW_SECONDS = 1.0
_OF_IDS = (torch.int32, torch.int64)  # of the items in lists, which are not learned
_NUMBER, _ITEM_ID, _OFFSET = 4, 4, 8  # bytes of a float32, of an item in a history, of its start


def parameter_count(model: torch.nn.Module) -> int:
    """Number of numbers that a model has learned: trained, or computed (EASE, ItemKNN, ...)."""
    if isinstance(model, RankedBy):
        own = (part.numel() for part in model.buffers() if part.dtype not in _OF_IDS)
        return sum(map(parameter_count, model.models)) or sum(own)
    learned = _learned(model)
    if learned:  # then its parameters are a dummy that RecBole's trainer needs
        return sum(int(values.nnz if sp.issparse(values) else values.size) for values in learned)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def size_mb(model: torch.nn.Module) -> float:
    """Size of what a model has learned in MB (10⁶ bytes): what has to be kept to serve it.

    That is its ``state_dict``, and what is learned outside of it; values and indices of a sparse
    matrix. The interactions that some models read at serving time are not counted.
    """
    if isinstance(model, RankedBy) and model.models:
        return sum(map(size_mb, model.models))
    size = sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, torch.Tensor) and name not in adapter_of(model).learned
    )
    for values in _learned(model):
        if sp.issparse(values):
            values = sp.csr_array(values)
            size += values.data.nbytes + values.indices.nbytes + values.indptr.nbytes
        else:
            size += values.nbytes
    return size / 1e6


def bytes_per_entity(model: Any, interactions: int) -> float:
    """Bytes that are needed to rank, for each of the users and items.

    Where scores are products, these are the vectors that are served: both tables in float32, and
    biases. Else it is all that the model has learned and, where its scores read them, the users'
    histories: an id for each training interaction, and where a user's begin.

    Args:
        model: A RecBole model, or what stands for one.
        interactions: Of the training data.
    """
    entities = model.n_users + model.n_items
    parts = _parts(model)
    size = sum(_own_bytes(part) for part in parts)
    if any(_reads_histories(part) for part in parts):
        size += _ITEM_ID * interactions + _OFFSET * model.n_users
    return size / entities


def _parts(model: Any) -> list[Any]:
    """The models of a team; else the model."""
    return list(model.models) if isinstance(model, RankedBy) and model.models else [model]


def _reads_histories(model: Any) -> bool:
    if isinstance(model, RankedBy):
        return False
    adapter = adapter_of(model)
    return adapter.reads_histories and not are_exact(model, adapter)


def _own_bytes(model: Any) -> float:
    """What a model ranks by, without histories."""
    if isinstance(model, RankedBy):
        return sum(values.numel() * values.element_size() for values in model.buffers())
    adapter = adapter_of(model)
    if not are_exact(model, adapter):
        return 1e6 * size_mb(model)
    one = torch.ones(1, dtype=torch.int64, device=model.device)
    with inspecting(model, adapter.caches):
        rows, biases = adapter.rows(model), adapter.biases(model)
        numbers = sum(bias.numel() for bias in biases if bias is not None)
        numbers += model.n_users * rows.user(one).shape[1] + model.n_items * rows.item(one).shape[1]
    return _NUMBER * numbers


def _learned(model: torch.nn.Module) -> list[Any]:
    """Arrays and sparse matrices that a model learns outside of its ``state_dict``."""
    values = [getattr(model, name) for name in adapter_of(model).learned]
    return [value.cpu().numpy() if isinstance(value, torch.Tensor) else value for value in values]


@torch.no_grad()
def ranking_latencies(models: list[Any], batch_size: int = 256) -> list[float]:
    """Milliseconds each model takes to rank the whole catalogue for 1,000 users: scores, top 20.

    The median of seven passes over 1,000 users (the ids in turn, if there are fewer), in eval mode,
    after a first batch that fills caches. The models take turns, so that what else the machine does
    hits all of them. A model that needs more than a second for a batch is timed on one batch, once.

    Args:
        models: RecBole models.
        batch_size: Users scored at once.
    """
    training = [model.training for model in models]
    for model in models:
        model.eval()
        _pass(model, batch_size, batch_size)
    firsts = [_pass(model, batch_size, batch_size) for model in models]
    seconds: list[list[float]] = [
        [first * _USERS / batch_size] if first > _SLOW_SECONDS else [] for first in firsts
    ]
    for _ in range(_REPEATS):
        for model, taken, first in zip(models, seconds, firsts):
            if first <= _SLOW_SECONDS:
                taken.append(_pass(model, batch_size, _USERS))
    for model, flag in zip(models, training):
        model.train(flag)
    return [float(np.median(taken) * 1000) for taken in seconds]


def _pass(model: Any, batch_size: int, users: int) -> float:
    """Seconds to rank the catalogue for some users once."""
    device = next(model.parameters()).device
    ids = (torch.arange(users, device=device) % (model.n_users - 1)) + 1
    _finish(device)
    start = perf_counter()
    for batch in ids.split(batch_size):
        score_users(model, batch).topk(min(_TOP, model.n_items), dim=1)
    _finish(device)
    return perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
