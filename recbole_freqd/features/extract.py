"""Finding a model's adapter and reading its features: a teacher's once, a student's per step."""

import copy
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Callable, Optional

import numpy as np
import torch
from torch import nn

from recbole_freqd.errors import ConfigError, TeacherError
from recbole_freqd.features.base import ADAPTERS, Biases, FeatureAdapter
from recbole_freqd.features.closed_form import OnlyScores
from recbole_freqd.features.own import OwnMethod, by_convention
from recbole_freqd.ranking import (
    ScoredUsers,
    evaluating,
    score_users,
    undisturbed,
    user_blocks,
)
from recbole_freqd.rng import rng_untouched
from recbole_freqd.rows import FeatureRows, Features, empty_rows
from recbole_freqd.settings import read_keys
from recbole_freqd.svd import FactoredScores, Scores, low_rank_features

logger = logging.getLogger(__name__)

_BUILT_IN = frozenset(ADAPTERS.names())
_SAMPLED_USERS = 8
_ORDER_TOLERANCE = 1e-3  # of a user's range of scores


def adapter_of(model: nn.Module) -> FeatureAdapter:
    """The adapter of a model: its own method, else a registered one, else what conventions tell.

    In this order: the model has ``user_item_features()``; an adapter is registered under the name
    of its class or, nearest first, of a class that it inherits from (ours are for RecBole's classes
    only, not for others of the same name); ``forward()`` without
    arguments returns the users' and the items' embeddings; it has ``user_embedding`` and
    ``item_embedding`` tables. Where nothing is found, only its scores are known.
    """
    if callable(getattr(model, "user_item_features", None)):
        return OwnMethod()
    adapter = registered_adapter(type(model)) or by_convention(model) or OnlyScores()
    if adapter.shared_forward and not _is_registered(type(model)):
        # Who knows what else the loss of another class calls: its features are read by themselves.
        adapter = copy.copy(adapter)
        adapter.shared_forward = None
    return adapter


def registered_adapter(model_class: type) -> Optional[FeatureAdapter]:
    """The adapter registered for a class or the nearest class it inherits from.

    Raises:
        ConfigError: RecBole needs a package for this model that is not installed.
    """
    for ancestor in model_class.__mro__:
        if _is_registered(ancestor):
            adapter = ADAPTERS.get(ancestor.__name__)
            if adapter.extra and importlib.util.find_spec(adapter.extra[0]) is None:
                package, extra = adapter.extra
                raise ConfigError(
                    f"{model_class.__name__} needs the package {package}, which is not installed: "
                    f'pip install "recbole_freqd[{extra}]"'
                )
            return adapter
    return None


def _is_registered(model_class: type) -> bool:
    """Whether a class itself has an adapter; ours are not for namesakes of RecBole's classes."""
    name, of_recbole = model_class.__name__, model_class.__module__.startswith("recbole.model.")
    return name in ADAPTERS.names() and (of_recbole or name not in _BUILT_IN)


def closed_form_error(name: str) -> ConfigError:
    """What to say of a model that is computed, where one to be trained is wanted."""
    return ConfigError(
        f"{name} cannot be a student: it is computed in one pass, there is no training a teacher "
        "could steer. It can be a teacher. Change model to one that is trained, e.g. BPR or "
        "LightGCN."
    )


def student_adapter(model: nn.Module) -> FeatureAdapter:
    """The adapter of a model as a student, checked.

    Raises:
        ConfigError: The model cannot be a student, or what would be taken for its features does not
            rank as the model does.
    """
    adapter, name = adapter_of(model), type(model).__name__
    adapter.check(model)
    if adapter.student is None and registered_adapter(type(model)):
        raise closed_form_error(name)
    if adapter.student is None or (adapter.exact(model) and not _are_exact(model, adapter)):
        raise ConfigError(
            f"{name} cannot be a student yet: its features are not known"
            + (", and its tables alone do not rank as it does. " if adapter.student else ". ")
            + f"Give {name} a method user_item_features() that returns user and item features, or "
            f'register an adapter: recbole_freqd.features.ADAPTERS.register("{name}")(...).'
        )
    if not _is_trained(model, adapter):
        raise ConfigError(
            f"{name} cannot be a student as it is configured: nothing that its features are made "
            "of is trained (RaCT's train_stage critic_pretrain, frozen embeddings, no_grad). "
            "Distil a stage that trains it."
        )
    return adapter


def _is_trained(model: Any, adapter: FeatureAdapter) -> bool:
    """Whether a gradient would reach anything through the features of a user or an item."""
    one = torch.ones(1, dtype=torch.int64, device=model.device)
    with undisturbed(model, adapter.caches), torch.enable_grad():
        rows = adapter.rows(model)
        return rows.user(one).requires_grad or rows.item(one).requires_grad


def extract_features(
    model: nn.Module,
    with_bias: bool = True,
    *,
    rank: Optional[int] = None,
    progress: bool = False,
    dtype: torch.dtype = torch.float32,
    mapped: bool = False,
) -> Features:
    """The features a model scores with, computed afresh in eval mode and without gradient.

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
            CPU; see :func:`recbole_freqd.rows.empty_rows`.

    Returns:
        ``(user_features, item_features)``: (n_users, d) and (n_items, d), copies on the model's
        device (but for ``mapped``); row 0 is RecBole's padding.

    Raises:
        ConfigError: A package is missing; ``rank`` for a model with exact features, or too large.
        TeacherError: Its features, or the scores that they come from, are NaN or infinite.
    """
    adapter = adapter_of(model)
    check_teacher(model, rank)
    if isinstance(adapter, OwnMethod) and not ranks_alike(model, adapter):
        logger.warning(
            "What user_item_features() of %s returns does not rank as the model does. It is taken "
            "as it is: make sure that row i is user (item) i.",
            type(model).__name__,
        )
    if _are_exact(model, adapter):
        with undisturbed(model, adapter.caches):
            rows = adapter.rows(model)
            features = (
                _table(rows.user, model.n_users, model, dtype, mapped),
                _table(rows.item, model.n_items, model, dtype, mapped),
            )
            biases = adapter.biases(model)
        _check_finite(model, features)
        return _with_columns(features, biases) if with_bias else features
    if adapter.exact(model):
        logger.warning(
            "%s does not rank by the features of %s that it inherits or resembles: approximating "
            "its scores instead.",
            type(model).__name__,
            type(adapter).__name__,
        )
    with undisturbed(model, adapter.caches):
        features = _spectral(model, adapter, rank, progress)
        return tuple(_kept(part, dtype, mapped) for part in features)  # type: ignore[return-value]


def check_teacher(model: Any, rank: Optional[int]) -> None:
    """Refuses, before it is trained, a model whose features could not be had.

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
        with undisturbed(model):
            adapter.rows(model)  # looks at the shapes
    if rank is not None and _are_exact(model, adapter):
        raise ConfigError(
            f"teacher.spectral_rank: got {rank}, but the features of {type(model).__name__} are "
            "exact and are not approximated. Remove it; the model's own keys set their width."
        )
    most = min(model.n_users, model.n_items) - 1  # the padding is one of each
    if rank is not None and rank > most:
        raise ConfigError(
            f"teacher.spectral_rank: got {rank}; allowed: at most {most}, the smaller number of "
            "users and items."
        )


def _spectral(model: Any, adapter: FeatureAdapter, rank: Optional[int], progress: bool) -> Features:
    """Low-rank features of a model's scores."""
    name = type(model).__name__
    default = read_keys("teacher.yaml")["spectral_rank"].default
    rank = rank or min(default, model.n_users - 1, model.n_items - 1)
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
    users, top = _some_users(model), min(top, model.n_items - 1)
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
        users = _some_users(model)
        own = score_users(model, users).cpu().numpy()
        wrong = np.abs(scores.rows(users.cpu().numpy()) - own)[:, 1:].max()
        if wrong > _ORDER_TOLERANCE * np.abs(own[:, 1:]).max():
            return ScoredUsers(model, progress)
    return scores


def _check_finite(model: Any, features: Features) -> None:
    """Raises where features are not numbers; a teacher is never silently wrong."""
    for side, values in zip(("user", "item"), features):
        bad = ~torch.isfinite(values).all(dim=1)
        if bad.any():
            raise TeacherError(
                f"{type(model).__name__} cannot teach: {int(bad.sum())} of {len(values)} {side} "
                "rows hold NaN or infinite numbers. Train it again, with a smaller learning rate."
            )


def _table(
    of: Callable[[torch.Tensor], torch.Tensor],
    n_rows: int,
    model: Any,
    dtype: torch.dtype = torch.float32,
    mapped: bool = False,
) -> torch.Tensor:
    """All rows of one side, read in blocks that the wider side of the data would fit."""
    table: Optional[torch.Tensor] = None
    for ids in user_blocks(n_rows, max(model.n_users, model.n_items), model.device):
        block = of(ids)
        if table is None:
            table = empty_rows(n_rows, block.shape[1], dtype, block.device, mapped=mapped)
        table[ids[0] : ids[-1] + 1] = block
    assert table is not None  # there is always the padding row
    return table


def _kept(values: torch.Tensor, dtype: torch.dtype, mapped: bool) -> torch.Tensor:
    """The same values in the form asked for."""
    if not mapped:
        return values.to(dtype)
    n_rows, width = values.shape
    return empty_rows(n_rows, width, dtype, values.device, mapped=True).copy_(values)


def _with_columns(features: Features, biases: Biases) -> Features:
    """Biases as columns: [U, b_u, 1] and [V, 1, b_i], of those that there are."""
    columns: list[list[torch.Tensor]] = [[features[0]], [features[1]]]
    for side, bias in enumerate(biases):
        if bias is not None:
            columns[side].append(bias.detach().unsqueeze(1))
            columns[1 - side].append(features[1 - side].new_ones(len(features[1 - side]), 1))
    return torch.cat(columns[0], dim=1), torch.cat(columns[1], dim=1)


def _are_exact(model: Any, adapter: FeatureAdapter) -> bool:
    """Whether features are the model's own: it says so itself, or they rank as it does."""
    return adapter.exact(model) and (isinstance(adapter, OwnMethod) or ranks_alike(model, adapter))


def _some_users(model: Any) -> torch.Tensor:
    return torch.linspace(1, model.n_users - 1, _SAMPLED_USERS, device=model.device).long()


def ranks_alike(model: Any, adapter: FeatureAdapter) -> bool:
    """Whether an adapter's features order the items of some users as the model's scores do."""
    users = _some_users(model)
    with undisturbed(model, adapter.caches):
        scores = score_users(model, users).to(model.device, torch.float32)
        torch.manual_seed(0)  # the draws of the scores, where there are any
        rows, biases = adapter.rows(model), adapter.biases(model)
        user_rows = rows.user(users)
        item_rows = _table(rows.item, model.n_items, model)
        if user_rows.shape[1] != item_rows.shape[1]:
            return False
        products = user_rows @ item_rows.T
        if biases[1] is not None:
            products = products + biases[1]  # a user's own bias moves no item
    scores, products = scores[:, 1:], products[:, 1:]
    known = torch.isfinite(scores).all(1)  # what is not finite is reported by who uses it
    ordered = scores.gather(1, products.argsort(dim=1))[known]
    if len(ordered) == 0:
        return True
    fall = (ordered.cummax(1).values - ordered).max(1).values
    span = ordered.max(1).values - ordered.min(1).values
    return bool((fall <= _ORDER_TOLERANCE * span).all())


@contextmanager
def shared_features(
    model: nn.Module, adapter: FeatureAdapter
) -> Iterator[Callable[[], FeatureRows]]:
    """Inside, a student's loss is computed; the yielded function then gives its features.

    Where the adapter names a ``shared_forward``, the features are those that the loss was computed
    from; else, or if the loss did not call it, they are read afterwards, as in evaluation: without
    dropout, so that no random number is drawn for them.
    """
    name = adapter.shared_forward
    results: list[Any] = []
    if name is None:
        yield lambda: _read_in_eval_mode(model, adapter)
        return
    before = model.__dict__.get(name)
    original = getattr(model, name)

    def remember(*args: Any, **kwargs: Any) -> Any:
        results.append(original(*args, **kwargs))
        return results[-1]

    model.__dict__[name] = remember
    try:
        yield (
            lambda: (
                adapter.rows_from_calls(model, results)
                if results
                else _read_in_eval_mode(model, adapter)
            )
        )
    finally:
        if before is None:
            del model.__dict__[name]
        else:
            model.__dict__[name] = before


def _read_in_eval_mode(model: nn.Module, adapter: FeatureAdapter) -> FeatureRows:
    with evaluating(model):
        rows = adapter.rows(model)
    if rows.tables is not None:
        return rows  # a lookup knows no mode

    def wrapped(of: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
        def read(ids: torch.Tensor) -> torch.Tensor:
            streams = rng_untouched() if adapter.random_in_eval else nullcontext()
            with evaluating(model), streams:
                return of(ids)

        return read

    return FeatureRows(wrapped(rows.user), wrapped(rows.item))
