"""Turns a model into vectors whose inner products rank as it does, or nearly."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Optional

import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.rankers import FeatureRanker, top_items
from recbole_freqd.features import adapter_of
from recbole_freqd.features.base import FeatureAdapter
from recbole_freqd.features.check import ranks_alike, some_users, whole_table
from recbole_freqd.features.low_rank import low_rank_features
from recbole_freqd.features.scores import ModelRanker, ScoredUsers, inspecting, score_users

Read = Callable[[torch.Tensor], torch.Tensor]
_TOP = 10


@dataclass(frozen=True)
class Vectors:
    """The vectors of both sides, from ids (b,) int64 to rows (b, width) float32, padding included.

    Attributes:
        user, item: Read them; only inside the block that gave them.
        width: Columns, those of biases included.
        biases: Which sides have one: ``user``, ``item``.
        transform: What the model does to an inner product: ``none``, ``sigmoid``, ``monotone``
            (something else that changes no order), or ``approximated``.
        approximation: How the vectors were made where they are no features of the model, and how
            well they rank; else None.
    """

    user: Read
    item: Read
    width: int
    biases: tuple[str, ...]
    transform: str
    approximation: Optional[dict[str, Any]] = None

    @property
    def exact_columns(self) -> int:
        """The last columns, which are biases or the ones beside them."""
        return len(self.biases)


@contextmanager
def vectors_of(
    model: Any, rank: Optional[int], seen: sp.csr_array, *, progress: bool = False
) -> Iterator[Vectors]:
    """Yields vectors whose inner products rank as a model does, or nearly.

    Args:
        model: A RecBole model, which is left as it was.
        rank: Dimensions of a truncated SVD of the scores, for a model that needs one.
        seen: (n_users, n_items), non-zero for the pairs that are not ranked when the loss of the
            SVD is measured.
        progress: Whether to show a bar while all users are scored.

    Raises:
        ConfigError: Its scores are no inner products and there is no ``rank``; or there is one, and
            they are; or it is too high.
        CheckpointError: The scores are no numbers.
    """
    name, adapter = type(model).__name__, adapter_of(model)
    if adapter.exact(model) and ranks_alike(model, adapter):
        if rank is not None:
            raise ConfigError(
                f"--spectral: got {rank}, but the vectors of {name} are exact and are not "
                "approximated. Remove it."
            )
        with inspecting(model, adapter.caches):
            yield _exact(model, adapter)
        return
    if rank is None:
        raise ConfigError(
            f"{name} cannot be exported exactly: its scores are no inner products of a user's and "
            "an item's vector. Allowed: models with exact features (docs/models.md), or "
            "--spectral 64 (spectral=64), a truncated SVD of the scores; the manifest then says "
            "how much of the top 10 that keeps."
        )
    most = min(model.n_users, model.n_items) - 1  # the padding is one of each
    if not 1 <= rank <= most:
        raise ConfigError(
            f"--spectral: got {rank}; allowed: 1 to {most}, the smaller number of users and items."
        )
    yield _approximated(model, adapter, rank, seen, progress)


def _exact(model: Any, adapter: FeatureAdapter) -> Vectors:
    """The model's own features; biases as columns: [U, b_u, 1] and [V, 1, b_i]."""
    rows, biases = adapter.rows(model), adapter.biases(model)

    def with_columns(of: Read, own: int) -> Read:
        def read(ids: torch.Tensor) -> torch.Tensor:
            features = of(ids).float()
            columns = [
                (bias[ids].float() if side == own else features.new_ones(len(ids))).unsqueeze(1)
                for side, bias in enumerate(biases)
                if bias is not None
            ]
            return torch.cat([features, *columns], dim=1)

        return read

    user, item = with_columns(rows.user, 0), with_columns(rows.item, 1)
    names = tuple(name for name, bias in zip(("user", "item"), biases) if bias is not None)
    width = user(some_users(model)[:1]).shape[1]
    return Vectors(user, item, width, names, _transform(model, user, item))


def _transform(model: Any, user: Read, item: Read) -> str:
    """Measures, on some users, what the model makes of an inner product."""
    users = some_users(model)
    scores = score_users(model, users).float()[:, 1:]
    products = (user(users) @ whole_table(item, model.n_items, model).T)[:, 1:]
    tolerance = 1e-3 * float(scores.abs().nan_to_num().max())
    for name, mapped in (("none", products), ("sigmoid", products.sigmoid())):
        if torch.allclose(scores, mapped, rtol=1e-3, atol=tolerance):
            return name
    return "monotone"


def _approximated(
    model: Any, adapter: FeatureAdapter, rank: int, seen: sp.csr_array, progress: bool
) -> Vectors:
    """UΣ^½ and VΣ^½ of the truncated SVD of the scores, and what they keep."""
    try:
        with inspecting(model, adapter.caches):
            *found, energy = low_rank_features(ScoredUsers(model, progress), rank)
    except ValueError as error:
        raise CheckpointError(
            f"{type(model).__name__} cannot be exported: {error}. Train it again."
        ) from None
    user_emb, item_emb = map(torch.from_numpy, found)
    rankers = ModelRanker(model, adapter.caches), FeatureRanker(user_emb, item_emb)
    own, other = (
        top_items(ranker, _TOP, exclude=seen, progress=progress).ids[1:] for ranker in rankers
    )
    common = (own[:, :, None] == other[:, None, :]) & (own != 0)[:, :, None]
    facts = {
        "method": "truncated SVD of the scores",
        "rank": user_emb.shape[1],
        "energy_kept": round(energy, 6),
        "top10_overlap": round(float(common.sum() / (own != 0).sum()), 6),
        "measured_on": "all users, training interactions masked",
    }
    width = user_emb.shape[1]
    return Vectors(user_emb.__getitem__, item_emb.__getitem__, width, (), "approximated", facts)
