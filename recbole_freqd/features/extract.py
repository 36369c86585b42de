"""A teacher's features, read once: exact ones, or a truncated SVD of its scores."""

import logging
from typing import Any, Optional

import numpy as np
import torch

from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.core.rankers import FeatureRanker, Ranker
from recbole_freqd.core.rows import Features, empty_rows, is_mapped
from recbole_freqd.core.schema import read_keys
from recbole_freqd.features.base import FeatureAdapter, with_bias_columns
from recbole_freqd.features.check import (
    ORDER_TOLERANCE,
    are_exact,
    ranks_alike,
    some_users,
    whole_table,
)
from recbole_freqd.features.find import adapter_of
from recbole_freqd.features.low_rank import FactoredScores, Scores, low_rank_features
from recbole_freqd.features.own import OwnMethod, warn_of_other_order
from recbole_freqd.features.scores import ScoredUsers, inspecting, score_users

_ROWS_AT_ONCE = 65_536
logger = logging.getLogger(__name__)


def extract_features(
    model: Any,
    with_bias: bool = True,
    *,
    rank: Optional[int] = None,
    progress: bool = False,
    dtype: torch.dtype = torch.float32,
    mapped: bool = False,
    check: bool = True,
) -> Features:
    """Computes the features a model scores with, afresh, in eval mode and without gradient.

    The model's training flags, cached embeddings and all random streams are left as they were, and
    cached embeddings are not believed. That the features rank as the model does is checked on some
    users; where they do not, or where a score is no product of features (NeuMF, ItemKNN, ...), they
    come from a truncated SVD of the scores: with S ≈ UΣVᵀ, UΣ^½ and VΣ^½. The log says so, and what
    share of the energy ‖S‖²_F is kept.

    Args:
        model: A RecBole general recommender, or a model of your own that follows its conventions.
        with_bias: True: dot products of the rows reproduce the model's scores (up to a monotone
            map), biases being extra columns. False: without bias columns, as distillation wants.
        rank: ≥ 1, dimensions of an SVD; None: ``spectral_rank`` of ``properties/teacher.yaml``, or
            as many as the data allows.
        progress: Whether to show a bar while scores are computed.
        dtype: Of the features; ``torch.float16`` halves their memory.
        mapped: Whether they are put into a file that is paged in and out, block by block, on the
            CPU; see :func:`recbole_freqd.core.rows.empty_rows`.
        check: Whether features that are not finite are refused, the padding row apart.

    Returns:
        ``(user_features, item_features)``: (n_users, d) and (n_items, d), copies on the model's
        device (but for ``mapped``); row 0 is RecBole's padding.

    Raises:
        ConfigError: A package is missing; ``rank`` for a model with exact features, or too large.
        TeacherError: Its features, or the scores that they come from, are NaN or infinite.
    """
    check_teacher(model, rank)
    adapter = adapter_of(model)
    promised, own = adapter.exact(model), isinstance(adapter, OwnMethod)
    alike = promised and ranks_alike(model, adapter)
    if own and not alike:
        warn_of_other_order(model)
    if alike or own:
        with inspecting(model, adapter.caches):
            rows = adapter.rows(model)
            features = (
                whole_table(rows.user, model.n_users, model, dtype, mapped),
                whole_table(rows.item, model.n_items, model, dtype, mapped),
            )
            biases = adapter.biases(model)
        if check:
            _check_finite(model, features)
        return with_bias_columns(features, biases) if with_bias else features
    if promised:
        logger.warning(
            "%s does not rank by the features of %s that it inherits or resembles: approximating "
            "its scores instead.",
            type(model).__name__,
            type(adapter).__name__,
        )
    with inspecting(model, adapter.caches):
        features = _spectral(model, adapter, rank, progress)
        return tuple(stored_as(part, dtype, mapped) for part in features)  # type: ignore[return-value]


def ranker_of(model: Any, mapped: bool = False) -> Ranker:
    """What a model ranks by: dot products of features, biases included, where its scores are.

    Args:
        model: The model.
        mapped: Where these features are put, see :func:`extract_features`.
    """
    adapter = adapter_of(model)
    if are_exact(model, adapter):
        return FeatureRanker(*extract_features(model, with_bias=True, mapped=mapped))
    logger.info(
        "%s is asked for its scores, which are no products of features.", type(model).__name__
    )
    return adapter.ranker(model)


def check_teacher(model: Any, rank: Optional[int]) -> None:
    """Refuses, before it is trained, a model whose features could not be read.

    Args:
        model: The teacher.
        rank: ``teacher.spectral_rank``, or None where it is not given.

    Raises:
        ConfigError: Keys that RecBole would fail on later; features of wrong shapes; a rank for
            exact features, or too high.
    """
    adapter = adapter_of(model)
    adapter.check(model)
    if isinstance(adapter, OwnMethod):
        with inspecting(model):
            adapter.rows(model)  # looks at the shapes
    if rank is not None and are_exact(model, adapter):
        raise ConfigError(
            f"teacher.spectral_rank: got {rank}, but the features of {type(model).__name__} are "
            "exact and are not approximated. Remove it; the model's own keys set their width."
        )
    choose_rank(rank, (model.n_users, model.n_items))


def choose_rank(rank: Optional[int], shape: tuple[int, ...]) -> int:
    """Dimensions of an SVD of scores (n_users, n_items): those asked for, or the default.

    Raises:
        ConfigError: More than there are users or items.
    """
    most = min(shape) - 1  # the padding is one of each
    if rank is None:
        return min(read_keys("teacher.yaml")["spectral_rank"].default, most)
    if rank > most:
        raise ConfigError(
            f"teacher.spectral_rank: got {rank}; allowed: at most {most}, the smaller number of "
            "users and items."
        )
    return rank


def _spectral(model: Any, adapter: FeatureAdapter, rank: Optional[int], progress: bool) -> Features:
    """Low-rank features of a model's scores."""
    name = type(model).__name__
    rank = choose_rank(rank, (model.n_users, model.n_items))
    try:
        scores = _scores(model, adapter, progress)
        logger.info("Factoring the scores of %s: three passes over all users", name)
        user_emb, item_emb, share = low_rank_features(scores, rank)
    except ValueError as error:
        raise TeacherError(f"{name} cannot teach: {error}. Train it again.") from None
    features = tuple(torch.from_numpy(part).to(model.device) for part in (user_emb, item_emb))
    logger.info(
        "Features of %s: truncated SVD of its scores, rank %d, %.1f %% of their energy kept, and "
        "%.0f %% of the top 10 of some users",
        name,
        user_emb.shape[1],
        100 * share,
        100 * _top_kept(model, features),  # type: ignore[arg-type]
    )
    return features  # type: ignore[return-value]


def _top_kept(model: Any, features: Features, top: int = 10) -> float:
    """Share of the model's best items, for some users, that features rank among the best, too."""
    users, top = some_users(model), min(top, model.n_items - 1)
    own = score_users(model, users).to(model.device, torch.float32)
    ranked = [
        scores[:, 1:].topk(top, dim=1).indices
        for scores in (own, features[0][users] @ features[1].T)
    ]
    return float((ranked[0][:, :, None] == ranked[1][:, None, :]).any(2).double().mean())


def _scores(model: Any, adapter: FeatureAdapter, progress: bool) -> Scores:
    """The score matrix; factors are believed only where they give what the model scores."""
    scores = adapter.scores(model, progress)
    if isinstance(scores, FactoredScores):
        users = some_users(model)
        own = score_users(model, users).cpu().numpy()
        wrong = np.abs(scores.rows(users.cpu().numpy()) - own)[:, 1:].max()
        if wrong > ORDER_TOLERANCE * np.abs(own[:, 1:]).max():
            return ScoredUsers(model, progress)
    return scores


def factored_scores(model: Any) -> Optional[FactoredScores]:
    """The scores of a model as a product of matrices, or None where it has no such factors."""
    adapter = adapter_of(model)
    if adapter.exact(model):
        return None
    with inspecting(model, adapter.caches):
        if not isinstance(adapter.scores(model, False), FactoredScores):
            return None
        scores = _scores(model, adapter, False)
    return scores if isinstance(scores, FactoredScores) else None


def _check_finite(model: Any, features: Features) -> None:
    """Raises where features are not numbers; a teacher is never silently wrong."""
    for side, values in zip(("user", "item"), features):
        bad = torch.cat([~torch.isfinite(rows).all(dim=1) for rows in values.split(_ROWS_AT_ONCE)])
        bad[0] = False
        if bad.any():
            raise TeacherError(
                f"{type(model).__name__} cannot teach: {int(bad.sum())} of {len(values)} {side} "
                "rows hold NaN or infinite numbers. Train it again, with a smaller learning rate."
            )


def stored_as(values: torch.Tensor, dtype: torch.dtype, mapped: bool) -> torch.Tensor:
    """The same values in a precision, and with ``mapped`` in a file."""
    if not mapped or (is_mapped(values) and values.dtype == dtype):
        return values.to(dtype)
    n_rows, width = values.shape
    return empty_rows(n_rows, width, dtype, values.device, mapped=True).copy_(values)
