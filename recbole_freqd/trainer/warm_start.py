"""Starts a student as the best approximation of what it is taught."""

import logging
from dataclasses import dataclass
from typing import Any, Optional, Union

import torch
from torch import nn

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rows import Features
from recbole_freqd.features import ADAPTERS, FeatureAdapter
from recbole_freqd.features.approximation import Approximation, Masks, approximate
from recbole_freqd.features.check import whole_features
from recbole_freqd.features.low_rank import Scores
from recbole_freqd.features.scores import inspecting
from recbole_freqd.features.warm import MOST_STEPS, PROPAGATED, TABLES, Target

_ROWS_AT_ONCE = 65_536  # of features, made float64
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmStart:
    """The outcome of a warm start.

    Attributes:
        way: ``"tables"`` or ``"propagated"``.
        rank: Columns that were set; the others keep the student's own initial values.
        width: Columns that the student's features have.
        share: Of the energy of the scores that the approximation keeps, in [0, 1].
        steps: Of conjugate gradients; 0 where tables were assigned.
        residual: ‖F_U F_Vᵀ - U Vᵀ‖ / ‖U Vᵀ‖, what P cannot make of the approximation U Vᵀ; 0 where
            tables were assigned.
        found: U and V.
    """

    way: str
    rank: int
    width: int
    share: float
    steps: int
    residual: float
    found: Approximation


def warm_start(
    model: Any,
    adapter: FeatureAdapter,
    taught: Union[Ranker, Scores],
    known: Optional[Masks] = None,
    *,
    stand_ins: Optional[Features] = None,
    seed: int = 0,
) -> WarmStart:
    """Sets a student's weights so that it begins as what is taught, cut to its width.

    Its features, biases included, are the best approximation of their width, see
    :func:`recbole_freqd.features.approximation.approximate`. Where the student has biases, these
    begin as the means, which leaves all columns for the rest; where only the teacher has some, they
    are in the columns. What the teacher says nothing of stays as it was: columns beyond the rank of
    what is taught, rows of users and items that it does not know, the padding row. Random streams,
    training flags and attributes are left alone, but for caches of scores, which are emptied.

    Args:
        model: The student; what is not among its features (context tables, say) is not changed.
        adapter: How its features are read.
        taught: What ranks, or its scores as products.
        known: The users and items the teacher knows; None: all.
        stand_ins: See :func:`recbole_freqd.features.approximation.approximate`.
        seed: Of a randomised SVD.

    Returns:
        What was done; the log says it, too.

    Raises:
        ConfigError: A student whose weights cannot be set so.
        TeacherError: Scores that are NaN or infinite.
    """
    check_warm(model, adapter)
    width = feature_width(model, adapter)
    found = approximate(
        taught,
        width - adapter.warm_spare,
        known,
        biases=adapter.warm_biases,
        stand_ins=stand_ins,
        seed=seed,
    )
    target = target_of(found, model.device)
    steps, residual = start_at(model, adapter, target)
    done = WarmStart(adapter.warm_by(model), found.rank, width, found.share, steps, residual, found)
    _say(type(model).__name__, done)
    return done


def check_warm(model: nn.Module, adapter: FeatureAdapter) -> None:
    """Raises ConfigError, with the reason, for a student that cannot start warm."""
    way = adapter.warm_by(model)
    if way in (TABLES, PROPAGATED):
        return
    others = [name for name in ADAPTERS.names() if ADAPTERS.get(name).warm in (TABLES, PROPAGATED)]
    raise ConfigError(
        f"{type(model).__name__} cannot start warm: {way}. Set warm_start: none, or change model; "
        f"these can: {', '.join(sorted(others))}."
    )


def target_of(found: Approximation, device: Any) -> Target:
    """An approximation as what a student's features are to be."""
    user_mask, item_mask = (torch.from_numpy(mask).to(device) for mask in found.masks)
    of_users, of_items = (
        None if bias is None else bias.to(device) for bias in (found.user_bias, found.item_bias)
    )
    user_emb, item_emb = (table.to(device) for table in found.features)
    return Target(user_emb, item_emb, user_mask, item_mask, of_users, of_items)


def start_at(model: Any, adapter: FeatureAdapter, target: Target) -> tuple[int, float]:
    """Sets a student's weights so that its features are a target.

    Args:
        model, adapter: The student, which :func:`check_warm` lets pass.
        target: What they are to be; its unmasked rows are zero.

    Returns:
        Steps and residual, see :class:`WarmStart`.
    """
    with inspecting(model, adapter.caches):
        steps = adapter.start(model, target)
        residual = 0.0
        if adapter.warm_by(model) == PROPAGATED:
            residual = _residual(whole_features(model, adapter), target)
    for name in adapter.caches:
        if name in vars(model):
            setattr(model, name, None)
    return steps, residual


def _residual(features: Features, target: Target) -> float:
    """Of the scores, without any: [F_U, -U] [F_V, V]ᵀ is their difference, known by its Grams."""
    wanted, masks = (target.user_emb, target.item_emb), (target.user_mask, target.item_mask)
    rank = target.user_emb.shape[1]
    parts = []
    for sign, *tables in zip((-1, 1), features, wanted, masks):
        gram: Any = 0.0
        for made, want, mask in zip(*(table.split(_ROWS_AT_ONCE) for table in tables)):
            both = torch.cat([made[mask][:, :rank], sign * want[mask].to(made)], dim=1).double()
            gram = gram + both.T @ both
        parts.append(gram)
    # What is left of a difference of equal numbers can be below zero.
    error = float((parts[0] * parts[1]).sum().clamp(min=0))
    size = float((parts[0][rank:, rank:] * parts[1][rank:, rank:]).sum())
    return (error / size) ** 0.5 if size else 0.0


def feature_width(model: Any, adapter: FeatureAdapter) -> int:
    """Columns of a student's features, which are as many for users as for items."""
    one = torch.ones(1, dtype=torch.int64, device=model.device)
    with inspecting(model, adapter.caches):
        return adapter.rows(model).item(one).shape[1]


def _say(name: str, done: WarmStart) -> None:
    logger.info(
        "Warm start of %s: %d of its %d dimensions, %.1f %% of the energy of what is taught kept",
        name,
        done.rank,
        done.width,
        100 * done.share,
    )
    if done.way == PROPAGATED:
        logger.info(
            "Solved for its tables in %d steps%s; its scores differ from the approximation by "
            "%.2g of their norm",
            done.steps,
            " (the cap)" if done.steps >= MOST_STEPS else "",
            done.residual,
        )
