"""A teacher filtered by graph frequency: its scores Y become Y Hᵀ (items) or H Y (users).

H = I - α(J - Â). Row sums of H are not 1, so on the items' side a number that all scores of a user
share becomes a term of the item alone, (H 1)_i, and moves its rank. ``centre`` takes each user's
mean over the items that are known away first. On the users' side it changes no ranking.

An item that the teacher does not know (-inf) stays unknown, and counts as 0 for its neighbours:
no score is told from hearsay, and a zero row of features does the same. Where scores are centred
0 is the user's mean; where they are not, a neighbour of unknown items is drawn towards 0.
"""

from collections.abc import Iterator
from typing import Callable, Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core import rankers as catalogue
from recbole_freqd.core.errors import ConfigError, TeacherError, short_repr
from recbole_freqd.core.rankers import FeatureRanker, Ranker
from recbole_freqd.core.rows import Features, changed_rows
from recbole_freqd.filters import GraphFilter, PolynomialFilter, graph_filter
from recbole_freqd.graph.adjacency import EntityGraph
from recbole_freqd.graph.cooccurrence import SIDES
from recbole_freqd.teacher.team.moments import UserMoments
from recbole_freqd.teacher.team.rescaling import MaskedRanker

_ROWS = 65_536  # made float64 at once
Known = tuple[np.ndarray, np.ndarray]
Mixture = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From users (b,) and their scores Y (b, n_items), which it leaves as they are, to P and Q
(b, n_items): filtered with α, the scores rank as (1 - α) P + α Q. P may be Y itself."""


def filtered_ranker(
    ranker: Ranker,
    graph: sp.csr_array,
    *,
    side: str,
    alpha: float,
    centre: bool = False,
    features: Optional[Features] = None,
    known: Optional[Known] = None,
    name: str = "The teacher",
) -> Ranker:
    """A teacher's scores filtered on one side; inside the features where scores are products.

    Args:
        ranker: What is filtered.
        graph: Â of the side, (n, n), as :func:`recbole_freqd.graph.cosine_graph` returns it.
        side: ``"user"`` or ``"item"``.
        alpha: α ≥ 0; 0 gives ``ranker`` itself.
        centre: Whether each user's mean over the known items is taken away first.
        features: (n_users, d) and (n_items, d) whose dot products stand for scores that are no
            products, on the users' side: there all users of an item would be needed at once.
        known: Masks (n_users,) and (n_items,) of what the teacher knows, where that is not all.
        name: Of the teacher, for messages.

    Raises:
        ConfigError: Unknown side, an α that is not allowed, or a graph of another size.
        TeacherError: The users' side of scores that are no products, without ``features``.
    """
    _check(ranker.shape, graph, side, alpha)
    if alpha == 0:
        return ranker
    factors = ranker.factors()
    if factors is None and side == "item":
        return FilteredRanker(CentredRanker(ranker) if centre else ranker, graph, alpha)
    factors = _factors_of(ranker, features, name)
    masks = _known_of(ranker, known)
    filtered = filter_features(factors, graph, side=side, alpha=alpha, centre=centre, known=masks)
    items = torch.from_numpy(masks[1]).to(ranker.device)
    return FeatureRanker(*filtered) if items[1:].all() else MaskedRanker(filtered, items)


def filter_features(
    features: Features,
    graph: sp.csr_array,
    *,
    side: str,
    alpha: float,
    centre: bool = False,
    known: Optional[Known] = None,
) -> Features:
    """H on the features of one side; the dot products are then the filtered scores.

    Args:
        features: (n_users, d) and (n_items, d), biases as columns.
        graph, side, alpha: See :func:`filtered_ranker`; with α = 0 ``features`` come back.
        centre: Whether the mean of the known items' features is taken away from each.
        known: Masks (n_users,) and (n_items,) without the padding; the other rows are 0 before the
            filter and after it. None: all but the padding, whose rows stay as they are.

    Returns:
        The filtered side in its own precision; the other side is the same tensor, unless items
        are centred or rows unknown.

    Raises:
        ConfigError: See :func:`filtered_ranker`.
    """
    _check((len(features[0]), len(features[1])), graph, side, alpha)
    if alpha == 0:
        return features
    place = SIDES.index(side)
    tables, masks = list(features), [_mask(known, at, features[at]) for at in (0, 1)]
    tables = [_without(table, mask) for table, mask in zip(tables, masks)]
    if centre:
        tables[1] = _centred_items(tables[1], masks[1])
    table = tables[place].float()
    operator = _operator(graph, alpha, table)
    tables[place] = _without(operator.apply(table).to(features[place].dtype), masks[place])
    return tables[0], tables[1]


def centre_items(features: Features) -> Features:
    """The features with the mean of all items but the padding taken away from each of these."""
    return features[0], _centred_items(features[1], _mask(None, 1, features[1]))


class FilteredRanker(Ranker):
    """Y Hᵀ for the scores Y of any ranker: the items' side.

    Whole rows are one sparse product; the score of a pair takes the item's neighbours only.

    Args:
        ranker: Y; -inf where an item is unknown, see above.
        graph: Â of the items.
        alpha: Above 0.
    """

    def __init__(self, ranker: Ranker, graph: sp.csr_array, alpha: float) -> None:
        self.ranker, self.shape, self.device = ranker, ranker.shape, ranker.device
        self.operator = _operator(graph, alpha, torch.zeros(0, device=ranker.device))

    def known_items(self) -> torch.Tensor:
        return self.ranker.known_items()

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        return filter_block(self.operator, self.ranker.block(user_ids))

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        scores = torch.empty(item_ids.shape, device=self.device)
        if item_ids.numel() == 0:
            return scores
        n_terms = self.operator.indptr.diff()[item_ids].sum(dim=1)
        for places in _blocks_of_lists(n_terms, self.shape[1]):
            items, users = item_ids[places], user_ids[places]
            if int(n_terms[places].max()) >= self.shape[1]:
                scores[places] = self.block(users).gather(1, items)
            else:
                scores[places] = self._terms(users, items, n_terms[places])
        return scores

    def _terms(
        self, user_ids: torch.Tensor, item_ids: torch.Tensor, n_terms: torch.Tensor
    ) -> torch.Tensor:
        """As :meth:`at`: each user is asked for all terms of his sums, side by side."""
        sums = self.operator.rows(item_ids.flatten())
        row = torch.repeat_interleave(n_terms)
        ends = n_terms.cumsum(0)
        column = torch.arange(len(row), device=self.device) - (ends - n_terms)[row]
        asked = item_ids.new_zeros(len(user_ids), max(1, int(n_terms.max())))
        asked[row, column] = sums.columns
        terms = self.ranker.at(user_ids, asked)[row, column]
        is_own = sums.columns == item_ids.flatten()[sums.owner]
        unknown = terms.isneginf()
        products = terms.masked_fill(unknown, 0.0) * sums.weights
        totals = torch.zeros(item_ids.numel(), device=self.device)
        totals.index_add_(0, sums.owner, products)
        totals[sums.owner[is_own & unknown]] = -torch.inf
        return totals.view(item_ids.shape)


class CentredRanker(Ranker):
    """The scores of a ranker less each user's mean over the known items; -inf stays -inf."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker, self.shape, self.device = ranker, ranker.shape, ranker.device
        self._moments = UserMoments(ranker, ranker.known_items())

    def known_items(self) -> torch.Tensor:
        return self._moments.items.clone()

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        scores = self.ranker.block(user_ids)
        return scores.sub_(self._means(user_ids, scores)[:, None])

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        means = self._means(user_ids)
        return self.ranker.at(user_ids, item_ids) - means[:, None]

    def _means(self, user_ids: torch.Tensor, scores: Optional[torch.Tensor] = None) -> torch.Tensor:
        """(b,) float32, by whole rows only where there is no other way."""
        means = self.ranker.mean_over(user_ids, self._moments.items)
        if means is not None:
            return means.float()
        self._moments.measure(user_ids, scores)
        return self._moments.of(user_ids)[0]


def filter_block(operator: GraphFilter, scores: torch.Tensor) -> torch.Tensor:
    """(b, n_items), scores Hᵀ of a block of users; -inf stays and counts as 0 for the others."""
    unknown = scores.isneginf()
    by_item = scores.masked_fill(unknown, 0.0).T.contiguous()
    return operator.apply(by_item).T.contiguous().masked_fill_(unknown, -torch.inf)


def filter_mixture(
    ranker: Ranker,
    graph: sp.csr_array,
    *,
    side: str,
    centre: bool = False,
    features: Optional[Features] = None,
    known: Optional[Known] = None,
    name: str = "The teacher",
) -> Mixture:
    """What filters a block of scores with any α at once, since H is linear in α.

    Args and errors are those of :func:`filtered_ranker`. With ``centre`` Q is that of the centred
    scores and P that of the others: the difference is one number per user.
    """
    _check(ranker.shape, graph, side, 1.0)
    if side == "item":
        operator = _operator(graph, 1.0, torch.zeros(0, device=ranker.device))
        items = torch.from_numpy(_known_of(ranker, known)[1]).to(ranker.device)
        return lambda _, scores: (scores, filter_block(operator, _less_mean(scores, items, centre)))
    factors, masks = _factors_of(ranker, features, name), _known_of(ranker, known)
    settings = {"graph": graph, "side": side, "alpha": 1.0, "known": masks}
    items = torch.from_numpy(masks[1]).to(ranker.device)
    other = MaskedRanker(filter_features(factors, **settings), items)
    if ranker.factors() is not None:
        return lambda users, scores: (scores, other.block(users))
    plain = MaskedRanker(factors, items)
    return lambda users, _: (plain.block(users), other.block(users))


def _less_mean(scores: torch.Tensor, items: torch.Tensor, centre: bool) -> torch.Tensor:
    if not centre:
        return scores
    counts = items & ~scores.isneginf()
    total = torch.where(counts, scores, 0.0).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
    return scores - total[:, None]


def _check(shape: tuple[int, int], graph: sp.csr_array, side: str, alpha: float) -> None:
    if side not in SIDES:
        raise ConfigError(f"side: got {short_repr(side)}; allowed: 'user' or 'item'.")
    if not (np.isfinite(alpha) and alpha >= 0):
        raise ConfigError(
            f"alpha: got {short_repr(alpha)}; allowed: a finite number of at least 0."
        )
    n = shape[SIDES.index(side)]
    if graph.shape != (n, n):
        raise ConfigError(
            f"The {side} graph is {graph.shape}; allowed: {(n, n)}, padding included."
        )


def _operator(graph: sp.csr_array, alpha: float, like: torch.Tensor) -> GraphFilter:
    adjacency = EntityGraph(graph, dtype=like.dtype).to(like.device).adjacency()
    return graph_filter(adjacency, PolynomialFilter.linear(alpha).coefficients)


def _factors_of(ranker: Ranker, features: Optional[Features], name: str) -> Features:
    factors = ranker.factors()
    factors = features if factors is None else factors
    if factors is None:
        raise TeacherError(
            f"{name} cannot be filtered on the users' side: its scores are no products of "
            "features. Filter the items' side, or give it a spectral_rank."
        )
    return factors


def _known_of(ranker: Ranker, known: Optional[Known]) -> Known:
    """What is known, by the masks and by the ranker."""
    items = ranker.known_items().cpu().numpy()
    if known is None:
        return np.arange(ranker.shape[0]) > 0, items
    return np.asarray(known[0]), np.asarray(known[1]) & items


def _mask(known: Optional[Known], side: int, table: torch.Tensor) -> torch.Tensor:
    mask = np.arange(len(table)) > 0 if known is None else known[side]
    return torch.as_tensor(mask, device=table.device)


def _without(table: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The table with zeros for what is unknown; itself where that is the padding alone."""
    if known[1:].all():
        return table
    return changed_rows(table, lambda block, rows: block.masked_fill(~known[rows, None], 0.0))


def _centred_items(table: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    total = sum(
        block[counts].double().sum(dim=0)
        for block, counts in zip(table.split(_ROWS), known.split(_ROWS))
    )
    mean = total / known.sum().clamp(min=1)

    def centred(block: torch.Tensor, rows: slice) -> torch.Tensor:
        return (block.double() - mean).to(table.dtype).masked_fill_(~known[rows, None], 0.0)

    return changed_rows(table, centred)


def _blocks_of_lists(n_terms: torch.Tensor, n_items: int) -> Iterator[torch.Tensor]:
    """Places of users in blocks whose terms fit the memory budget."""
    longest = min(int(n_terms.max()), n_items)
    size = max(1, catalogue.BUDGET_BYTES // (64 * longest))
    yield from torch.arange(len(n_terms), device=n_terms.device).split(size)
