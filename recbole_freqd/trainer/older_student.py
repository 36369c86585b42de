"""Starts a student from an older one: known rows by token, new ones beside their neighbours."""

import logging
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.core.rows import Features
from recbole_freqd.features import FeatureAdapter, extract_features
from recbole_freqd.features.approximation import Approximation
from recbole_freqd.features.base import Biases
from recbole_freqd.features.warm import Target
from recbole_freqd.graph.cooccurrence import SIDES, cooccurrence_graph
from recbole_freqd.teacher.alignment import align
from recbole_freqd.teacher.reader import Reader
from recbole_freqd.teacher.restore import Environment, restore
from recbole_freqd.trainer.warm_start import check_warm, feature_width, start_at

_NEIGHBOURS = 10  # of a newcomer, where no teacher knows it
_LEAST = 1e-3  # of the largest singular value of a map: below it, a direction is not inverted
_FOR_WARM_START = Reader(
    "Older student",
    TeacherError,
    "Put its data back, or leave warm_start out: a checkpoint of RecBole keeps no names of users "
    "and items.",
    trust="distil it anew without classes of your own",
    trust_data="leave warm_start out",
    named_by="warm_start",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OlderStudent:
    """The data of an older student that a start needs.

    Attributes:
        features: Its user features (m_users, d) and item features (m_items, d), without biases.
        biases: (m_users,) and (m_items,), or None.
        rows: (n_users,) and (n_items,) int64: its id of each of the new student's users and items,
            0 where it has none, and for the padding.
    """

    features: Features
    biases: Biases
    rows: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class OlderStart:
    """Counts of users and items, by how they were placed.

    Attributes:
        matched: Found in the older student by token.
        mapped: Newcomers whose rows are the teacher's, mapped into the older student's space.
        beside: Newcomers whose rows are the mean of their neighbours'.
        left: Those that keep the student's own initial values.
    """

    matched: tuple[int, int]
    mapped: tuple[int, int]
    beside: tuple[int, int]
    left: tuple[int, int]


def warm_start_from(
    path: str,
    model: Any,
    adapter: FeatureAdapter,
    config: Any,
    dataset: Any,
    user_items: sp.csr_array,
    approximation: Optional[Approximation] = None,
) -> OlderStart:
    """Sets a student's weights so that its features begin as an older student's.

    Args:
        path: The older student's checkpoint, of the same model and width; its data has to be where
            its config says, since a checkpoint of RecBole does not keep tokens.
        model, adapter: The student.
        config: Its Config.
        dataset: The RecBole dataset of the training data.
        user_items: (n_users, n_items) sparse, the training interactions.
        approximation: Of what is taught, at the student's width, for newcomers; None: no teacher.

    Raises:
        ConfigError: Another model or width; a student that cannot start warm.
        CheckpointError, TeacherError: It cannot be loaded, or its data is gone or has changed.
    """
    check_warm(model, adapter)
    older = read_older(path, adapter, config, dataset)
    return start_from(older, model, adapter, user_items, approximation)


def read_older(path: str, adapter: FeatureAdapter, config: Any, dataset: Any) -> OlderStudent:
    """Loads an older student, and finds the new one's users and items in it by token."""
    # Nothing is measured by it, so another split, or one that nothing proves, is only mentioned.
    older = restore(
        path,
        Environment.of(config),
        _FOR_WARM_START,
        trust_data=True,
        allow_leakage=True,
        own=dataset,
    )
    if older.stored["model"] != config["model"]:
        raise ConfigError(
            f"warm_start: got {path}, which is of {older.stored['model']}; allowed: one of the "
            f"student's own model, {config['model']}. Change warm_start, or model."
        )
    model, train = older.model(), older.train
    biases = tuple(None if bias is None else bias.detach() for bias in adapter.biases(model))
    features = extract_features(model, with_bias=False)
    return OlderStudent(features, biases, align(train, dataset).rows)  # type: ignore[arg-type]


def start_from(
    older: OlderStudent,
    model: Any,
    adapter: FeatureAdapter,
    user_items: sp.csr_array,
    approximation: Optional[Approximation] = None,
) -> OlderStart:
    """:func:`warm_start_from`, of an older student that has been read."""
    width = feature_width(model, adapter)
    if older.features[1].shape[1] != width:
        raise ConfigError(
            f"warm_start: the older student has {older.features[1].shape[1]} dimensions, this one "
            f"{width}. Set {', '.join(adapter.capacity)} to what it was, or warm_start: teacher."
        )
    target, done = older_target(older, user_items, approximation)
    start_at(model, adapter, target)
    for side, *counts in zip(SIDES, done.matched, done.mapped, done.beside, done.left):
        logger.info(
            "Warm start from an older student: %d %ss are its own, %d new ones are placed by the "
            "teacher, %d beside their neighbours, %d keep their first values",
            counts[0],
            side,
            *counts[1:],
        )
    return done


def older_target(
    older: OlderStudent,
    user_items: sp.csr_array,
    approximation: Optional[Approximation] = None,
    neighbours: int = _NEIGHBOURS,
) -> tuple[Target, OlderStart]:
    """Computes the features that a new student is to have; arrays in, arrays out.

    Those that the older student has are its own. Of the others, those that the teacher knows are
    its approximation's, mapped into the older student's space; then those with neighbours in the
    co-occurrence graph of the new data that have a row by now are their mean.

    Args:
        older: See there.
        user_items: (n_users, n_items), the new data.
        approximation: Of what is taught, in the order of the new data.
        neighbours: K of the graph.
    """
    tables = _Tables(older)
    counts: list[Any] = [tables.placed_now()]
    if approximation is not None:
        tables.place_by_teacher(approximation)
    counts.append(tables.placed_now())
    for side, name in enumerate(SIDES):
        graph = cooccurrence_graph(user_items, side=name, k=neighbours)
        tables.place_beside(side, graph)
    counts += [tables.placed_now(), tuple(len(rows) - 1 for rows in older.rows)]
    steps = [tuple(np.subtract(later, now).tolist()) for now, later in zip(counts, counts[1:])]
    return tables.target(), OlderStart(counts[0], *steps)


class _Tables:
    """Features and biases of the new users and items, as far as they are placed; else zeros."""

    def __init__(self, older: OlderStudent) -> None:
        self.emb = [_matched(table, rows) for table, rows in zip(older.features, older.rows)]
        self.bias = [
            None if bias is None else _matched(bias[:, None], rows)
            for bias, rows in zip(older.biases, older.rows)
        ]
        self.placed = [rows > 0 for rows in older.rows]

    def placed_now(self) -> tuple[int, int]:
        return int(self.placed[0].sum()), int(self.placed[1].sum())

    def place_by_teacher(self, found: Approximation) -> None:
        moved, own_bias = map_into(found, self.emb, self.placed), (found.user_bias, found.item_bias)
        for side, own in enumerate(own_bias):
            new = found.masks[side] & ~self.placed[side]
            mask = torch.from_numpy(new).to(self.emb[side].device)
            self.emb[side][mask] = moved[side].to(self.emb[side])[mask]
            bias = self.bias[side]
            if bias is not None and own is not None:
                bias[mask, 0] = own.to(bias)[mask]
            self.placed[side] = self.placed[side] | new

    def place_beside(self, side: int, graph: sp.csr_array) -> None:
        means = mean_of_neighbours(graph, self.placed[side])
        self.emb[side] = _plus(self.emb[side], means)
        bias = self.bias[side]
        if bias is not None:
            self.bias[side] = _plus(bias, means)
        self.placed[side] = self.placed[side] | (np.diff(means.indptr) > 0)

    def target(self) -> Target:
        masks = (torch.from_numpy(mask).to(self.emb[0].device) for mask in self.placed)
        return Target(*self.emb, *masks, *(b if b is None else b[:, 0] for b in self.bias))


def map_into(
    approximation: Approximation, tables: list[torch.Tensor], placed: list[np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The approximation's tables in another space, where scores stay what they are.

    Items by the M that is best on those that both have, min ‖V M - V'‖², users by M⁻ᵀ: then
    U M⁻ᵀ (V M)ᵀ = U Vᵀ. A direction in which M is below 1e-3 of its largest is not inverted.

    Args:
        approximation: (n_users, r) and (n_items, r).
        tables: (n_users, d) and (n_items, d) in the space to go to, where ``placed``.
        placed: (n_users,) and (n_items,) bool.

    Returns:
        (n_users, d) and (n_items, d); a warning says if M is poor.
    """
    both = torch.from_numpy(placed[1] & approximation.masks[1]).to(tables[1].device)
    theirs, ours = approximation.item_emb[both].double(), tables[1][both].double()
    turn = torch.linalg.pinv(theirs, rtol=_LEAST**2) @ ours
    sizes = torch.linalg.svdvals(turn)
    weak = int((sizes <= _LEAST * sizes.max()).sum()) if len(ours) else len(sizes)
    if weak:
        logger.warning(
            "%d items are both the older student's and the teacher's; by them %d of %d dimensions "
            "of the one are not found in the other: new users are placed without these.",
            len(ours),
            weak,
            len(sizes),
        )
    back = torch.linalg.pinv(turn, rtol=_LEAST).T
    user_emb, item_emb = approximation.features
    return (user_emb.double() @ back).float(), (item_emb.double() @ turn).float()


def mean_of_neighbours(graph: sp.csr_array, placed: np.ndarray) -> sp.csr_array:
    """(n, n): a newcomer's row has 1/m at its m neighbours that are placed; others are empty."""
    entries = graph.tocoo()
    kept = ~placed[entries.row] & placed[entries.col] & (entries.row > 0)
    counts = np.bincount(entries.row[kept], minlength=len(placed))
    weights = 1.0 / counts[entries.row[kept]]
    places = entries.row[kept], entries.col[kept]
    return sp.csr_array((weights, places), shape=graph.shape)


def _matched(table: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    index = torch.from_numpy(rows).to(table.device)
    return torch.where(index[:, None] > 0, table.index_select(0, index).float(), 0.0)


def _plus(table: torch.Tensor, sums: sp.csr_array) -> torch.Tensor:
    """A table and weighted sums of its rows, for rows that were zero."""
    return table + torch.from_numpy(sums @ table.cpu().numpy()).to(table)
