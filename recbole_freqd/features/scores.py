"""Scores of RecBole's models over the whole catalogue, the model left as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from recbole_freqd.core.rankers import Ranker, user_blocks
from recbole_freqd.core.rng import rng_untouched
from recbole_freqd.features.low_rank import BlockScores

_PAIRS = 4096  # scored at once by predict: RecBole's default eval_batch_size


def score_users(model: Any, users: torch.Tensor) -> torch.Tensor:
    """(b, n_items), the scores of users (b,) as the model itself ranks them.

    Through ``full_sort_predict`` or, where a model has none, ``predict`` over all pairs.
    """
    try:
        return full_sort(model, users)
    except NotImplementedError:
        items = torch.arange(model.n_items, device=users.device)
        return predict_pairs(model, users, items.expand(len(users), -1))


def full_sort(model: Any, users: torch.Tensor) -> torch.Tensor:
    """(b, n_items), what ``full_sort_predict`` gives users (b,).

    Raises:
        NotImplementedError: The model has no such thing.
    """
    from recbole.data.interaction import Interaction

    scores = model.full_sort_predict(Interaction({model.USER_ID: users}))
    return scores.view(len(users), -1)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switches every module's training flag off inside, and restores it afterwards.

    Not by ``model.eval()``: some models rebuild their graphs in ``train(mode)``.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def inspecting(model: nn.Module, caches: tuple[str, ...] = ()) -> Iterator[None]:
    """Reads a model inside in eval mode and without gradient, and leaves it unchanged.

    Training flags, attributes (so cached embeddings too) and buffers of all its modules, and all
    random streams are put back. What is drawn inside is the same every time.

    Args:
        model: The model.
        caches: Attributes that hold scores of earlier weights; they are None inside.
    """
    kept = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        with evaluating(model), torch.no_grad(), rng_untouched():
            _seed_all()
            for name in caches:
                if name in vars(model):
                    setattr(model, name, None)
            yield
    finally:
        for module, attributes, buffers in kept:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


def _seed_all() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


class ScoredUsers(BlockScores):
    """The scores of a model, computed anew in blocks of users at each pass.

    A model that draws random numbers when it scores (RecBole's Random, the tie-breaking noise of
    ADMMSLIM) draws the same ones for every block, so the matrix stays the same from pass to pass.
    The padding user and item score 0.

    Args:
        model: A RecBole model, inside :func:`inspecting`.
        progress: Whether to show a progress bar.
    """

    def __init__(self, model: Any, progress: bool = False) -> None:
        self.model, self.progress = model, progress
        self.shape, self.device = (model.n_users, model.n_items), torch.device(model.device)

    def blocks(self) -> Iterator[torch.Tensor]:
        from tqdm import tqdm

        blocks = list(user_blocks(*self.shape, self.device))
        for users in tqdm(blocks, desc="Scoring users", ncols=100, disable=not self.progress):
            _seed_all()
            scores = score_users(self.model, users)
            # A copy: some models hand out what they keep.
            scores = scores.to(self.device, torch.float32, copy=True)
            scores[:, 0] = 0
            scores[users == 0] = 0
            yield scores


class ModelRanker(Ranker):
    """The scores that a RecBole model itself ranks by, in eval mode; the model is left as it was.

    Args:
        model: The model.
        caches: Attributes that hold scores of earlier weights, see :func:`inspecting`.
        pairs_by: How scores of chosen pairs are read, see :func:`score_pairs`. With ``"forward"``
            whole rows come from there too.
    """

    def __init__(self, model: Any, caches: tuple[str, ...] = (), pairs_by: str = "predict") -> None:
        self.model, self.caches, self.pairs_by = model, caches, pairs_by
        self.shape, self.device = (model.n_users, model.n_items), torch.device(model.device)

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        with inspecting(self.model, self.caches):
            if self.pairs_by == "forward":
                items = torch.arange(self.shape[1], device=self.device)
                scores = score_pairs(
                    self.model, user_ids, items.expand(len(user_ids), -1), "forward"
                )
            else:
                scores = score_users(self.model, user_ids)
            return scores.to(self.device, torch.float32, copy=True)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        scores = torch.empty(item_ids.shape, device=self.device)
        # As many at once as have room for the scores of all items, which a model may make.
        for places in user_blocks(len(user_ids), self.shape[1], self.device):
            with inspecting(self.model, self.caches):
                some = user_ids[places], item_ids[places]
                scores[places] = score_pairs(self.model, *some, self.pairs_by).to(scores)
        return scores


def score_pairs(
    model: Any, user_ids: torch.Tensor, item_ids: torch.Tensor, by: str = "predict"
) -> torch.Tensor:
    """(b, k), the scores of a model for users (b,) and items (b, k) of their own, differentiable.

    Args:
        model: A RecBole model.
        user_ids: (b,) int64, repeats allowed.
        item_ids: (b, k) int64.
        by: ``"predict"``; ``"forward"``, of users and items, where ``predict`` is its sigmoid;
            ``"rows"``, picked out of the scores (b, n_items) of the distinct users.
    """
    if by == "rows":
        distinct, place = torch.unique(user_ids, return_inverse=True)
        with suppress(NotImplementedError):
            scores = full_sort(model, distinct).to(item_ids.device)
            return scores[place[:, None], item_ids]
    return predict_pairs(model, user_ids, item_ids, by)


def predict_pairs(
    model: Any, user_ids: torch.Tensor, item_ids: torch.Tensor, by: str = "predict"
) -> torch.Tensor:
    """(b, k), what ``predict`` or ``forward`` gives users (b,) and items (b, k) of their own."""
    from recbole.data.interaction import Interaction

    def scores(users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        if by == "forward":
            return model.forward(users, items)
        return model.predict(Interaction({model.USER_ID: users, model.ITEM_ID: items}))

    users = user_ids.repeat_interleave(item_ids.shape[1])
    parts = [
        scores(*some).view(-1)
        for some in zip(users.split(_PAIRS), item_ids.reshape(-1).split(_PAIRS))
    ]
    return torch.cat(parts).view(item_ids.shape)
