"""Chooses the keys of teachers that need no training, in memory and in seconds."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp

from recbole_freqd.core.errors import ConfigError, join_names
from recbole_freqd.core.schema import read_keys
from recbole_freqd.features.products import SummedRanker, SummedScores
from recbole_freqd.graph.similarity import shrunk_cosines
from recbole_freqd.teacher.choice.sampled import ValidationSample
from recbole_freqd.teacher.models.gfcf import ideal_basis, normalise_both_sides, summed_filters

Keys = dict[str, Any]
Scorer = Callable[[Keys], SummedScores]

GRIDS: dict[str, tuple[Keys, ...]] = {
    "ShrunkKNN": (
        {"k": 100, "shrink": 10.0},
        *({"k": k, "shrink": s} for k, s in ((100, 3.0), (100, 30.0), (50, 10.0), (200, 10.0))),
    ),
    "GFCF": (
        {"rank": 256, "ideal_weight": 0.3},
        *(
            {"rank": rank, "ideal_weight": a}
            for rank, a in ((64, 0.3), (256, 0.1), (64, 0.1), (128, 0.3), (256, 1.0))
        ),
    ),
    "EASE": ({"reg_weight": 300.0}, {"reg_weight": 100.0}, {"reg_weight": 1000.0}),
}
"""The candidates of each model: it tries the first in any case, the others if time is left."""

_MOST_NEIGHBOURS = 60_000_000  # kept at once for all shrinkages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TriedKeys:
    """A model with values of its keys.

    Attributes:
        keys: RecBole keys of the model.
        value: Its metric on the sample; None if no time was left to try it.
    """

    keys: Keys
    value: Optional[float]


@dataclass(frozen=True)
class BestKeys:
    """The best keys of a model.

    Attributes:
        model: Its name in a recipe.
        keys: Of the candidate with the highest value; ties go to the first.
        value: That value.
        candidates: All, in the order of the grid.
        seconds: The time to try them.
    """

    model: str
    keys: Keys
    value: float
    candidates: tuple[TriedKeys, ...]
    seconds: float


def panel_models(n_items: int, ease_items: Optional[int] = None) -> list[str]:
    """The models that a catalogue of this size allows.

    Args:
        n_items: Number of items, padding included.
        ease_items: With fewer items, EASE is among the models; None: ``panel_ease_items`` of
            ``properties/panel.yaml``.
    """
    bound = _default("panel_ease_items", ease_items)
    names = list(read_keys("panel.yaml")["panel_models"].default)
    return [name for name in names if name != "EASE" or n_items < bound]


def choose_panel(
    user_items: sp.csr_array,
    sample: ValidationSample,
    *,
    models: Optional[Sequence[str]] = None,
    seconds: Optional[float] = None,
) -> dict[str, BestKeys]:
    """Tries a few values of the keys of each model on validation users, in memory.

    It computes once what candidates share: one Gram matrix for all values of EASE, one product for
    all neighbours and shrinkages, one singular value decomposition for all ranks.

    Args:
        user_items: (n_users, n_items), non-zero for training interactions; see
            :func:`recbole_freqd.features.data.training_matrix`.
        sample: The metric and its users.
        models: Names of :data:`GRIDS`; None: :func:`panel_models`.
        seconds: Time for all models. Each has an equal share, and the time that others left over. A
            model always tries its first candidate, however long it takes. None: ``panel_seconds``.

    Returns:
        The choice for each model, in the order of ``models``.

    Raises:
        ConfigError: An unknown model.
    """
    names = panel_models(user_items.shape[1]) if models is None else list(models)
    _check_names(names)
    budget = float(_default("panel_seconds", seconds))
    start = perf_counter()
    logger.info(
        "Panel: %s by %s of %d validation users, in %g seconds",
        join_names(names), sample.metric, len(sample.users), budget,
    )  # fmt: skip
    binary = sp.csr_array(user_items != 0).astype(np.float32)
    return {
        name: _choose(name, binary, sample, start + budget * (place + 1) / len(names))
        for place, name in enumerate(names)
    }


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in GRIDS:
            raise ConfigError(f"panel_models: got {name!r}; allowed: {join_names(GRIDS)}.")


def _default(key: str, given: Any) -> Any:
    spec = read_keys("panel.yaml")[key]
    return spec.default if given is None else spec.check(given)


def _choose(
    name: str, user_items: sp.csr_array, sample: ValidationSample, deadline: float
) -> BestKeys:
    start = perf_counter()
    grid = distinct_candidates(name, user_items.shape)
    scorer = _SCORERS[name](user_items, grid)
    tried: list[TriedKeys] = []
    longest = 0.0
    for keys in grid:
        began = perf_counter()
        if tried and began + longest > deadline:
            tried.append(TriedKeys(keys, None))
            continue
        tried.append(TriedKeys(keys, sample.value(SummedRanker(scorer(keys)))))
        longest = max(longest, perf_counter() - began)
    best = max(tried, key=lambda each: -np.inf if each.value is None else each.value)
    choice = BestKeys(name, best.keys, float(best.value or 0), tuple(tried), perf_counter() - start)
    _log(choice, sample.metric)
    return choice


def distinct_candidates(name: str, shape: tuple[int, int]) -> list[Keys]:
    """A model's grid for data of some (n_users, n_items), without repeats on such data.

    Ranks and neighbours end at the size of the data. A large catalogue has only the first
    shrinkage, since memory holds the neighbours of all shrinkages at once.
    """
    most = {"rank": min(shape) - 1, "k": shape[1] - 1}
    grid = [
        {
            key: min(value, max(1, most[key])) if key in most else value
            for key, value in keys.items()
        }
        for keys in GRIDS[name]
    ]
    if name == "ShrunkKNN":
        shrinks = {keys["shrink"] for keys in grid}
        if shape[1] * max(keys["k"] for keys in grid) * len(shrinks) > _MOST_NEIGHBOURS:
            grid = grid[:1]
    return [keys for place, keys in enumerate(grid) if keys not in grid[:place]]


def _log(choice: BestKeys, metric: str) -> None:
    figures = "; ".join(
        f"{_named(each.keys)}: {'no time' if each.value is None else f'{each.value:.4f}'}"
        for each in choice.candidates
    )
    logger.info(
        "Panel: %s with %s, %s %.4f (%s), %.1f seconds",
        choice.model, _named(choice.keys), metric, choice.value, figures, choice.seconds,
    )  # fmt: skip


def _named(keys: Keys) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in keys.items())


def _knn(user_items: sp.csr_array, grid: Sequence[Keys]) -> Scorer:
    """Finds neighbours for all shrinkages at once; a smaller number takes the first of them."""
    shrinks = tuple(dict.fromkeys(keys["shrink"] for keys in grid))
    most = max(keys["k"] for keys in grid)
    found = shrunk_cosines(user_items, side="item", k=most, shrinkages=shrinks)
    nearest = dict(zip(shrinks, found))

    def scores(keys: Keys) -> SummedScores:
        rows = nearest[keys["shrink"]]
        place = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], np.diff(rows.indptr))
        owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        kept = place < keys["k"]
        entries = rows.data[kept], (rows.indices[kept], owner[kept])
        return SummedScores([[user_items, sp.csr_array(entries, shape=rows.shape)]])

    return scores


def _gfcf(user_items: sp.csr_array, grid: Sequence[Keys]) -> Scorer:
    """Finds the singular vectors of the largest rank; a smaller rank takes the first of them."""
    normalised = normalise_both_sides(user_items)
    basis, _ = ideal_basis(user_items, normalised, max(keys["rank"] for keys in grid))

    def scores(keys: Keys) -> SummedScores:
        first = np.ascontiguousarray(basis[:, : keys["rank"]])
        return summed_filters(user_items, normalised, first, keys["ideal_weight"])

    return scores


def _ease(user_items: sp.csr_array, grid: Sequence[Keys]) -> Scorer:
    """Makes one Gram matrix, as large as that of RecBole's EASE, and an inverse for each value."""
    gram = (user_items.T @ user_items).toarray()

    @lru_cache(1)
    def weights(reg_weight: float) -> np.ndarray:
        regularised = gram.copy()
        regularised[np.diag_indices_from(regularised)] += reg_weight
        inverse = np.linalg.inv(regularised)
        inverse /= -np.diag(inverse)
        np.fill_diagonal(inverse, 0.0)
        return inverse

    return lambda keys: SummedScores([[user_items, weights(keys["reg_weight"])]])


_SCORERS: dict[str, Callable[[sp.csr_array, Sequence[Keys]], Scorer]] = {
    "ShrunkKNN": _knn,
    "GFCF": _gfcf,
    "EASE": _ease,
}
