"""Passes over the whole catalogue, without RecBole: scores in blocks of users, and top lists."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

import scipy.sparse as sp
import torch
from tqdm import tqdm

from recbole_freqd.core.rows import FeatureRows, Features, single_precision
from recbole_freqd.core.top import best_of

BUDGET_BYTES = 256 * 2**20
_COPIES = 4  # a model's own intermediate arrays of the size of the scores
_MOST_USERS = 1024
_CACHED_BYTES = 2**24  # scores that stay in the cache of a CPU: made, masked, ranked in one go
_FEWEST_USERS = 32  # fewer would read all items again for too little
_ITEMS_AT_ONCE = 2**16  # made float32 at once
_SAMPLED_USERS = 8
logger = logging.getLogger(__name__)


def user_blocks(n_users: int, n_items: int, device: Any) -> Iterator[torch.Tensor]:
    """The ids of all users, 0 included, in blocks whose scores fit the memory budget."""
    size = min(BUDGET_BYTES // (4 * _COPIES * n_items), _MOST_USERS)
    if torch.device(device).type == "cpu":
        size = min(size, max(_FEWEST_USERS, _CACHED_BYTES // (4 * n_items)))
    yield from torch.arange(n_users, device=device).split(max(1, size))


def spread_users(n_users: int, device: Any) -> torch.Tensor:
    """The ids of up to eight users, from the first to the last, at even distances."""
    steps = torch.arange(_SAMPLED_USERS, device=device)
    ids = 1 + steps * (n_users - 2) // (_SAMPLED_USERS - 1)
    return ids.clamp(max=n_users - 1).unique()


def spread_over(ids: torch.Tensor, most: Optional[int]) -> torch.Tensor:
    """At most so many of ids (n,), at even distances; None: all of them.

    Example:
        >>> spread_over(torch.tensor([1, 2, 3, 4, 5, 6]), 3).tolist()
        [1, 3, 5]
    """
    if most is None or len(ids) <= most:
        return ids
    return ids[torch.arange(most, device=ids.device) * len(ids) // most]


class Ranker:
    """Gives every user and item a score, without gradient; 0 is RecBole's padding.

    In single precision, autocast or not: scores in half precision are full of ties.

    Attributes:
        shape: (n_users, n_items).
        device: Where scores are computed.
    """

    shape: tuple[int, int]
    device: torch.device

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        """(b, n_items), the scores of users (b,) int64 for all items; the caller's to change."""
        raise NotImplementedError

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        """(b, k), the scores of users (b,) int64 for items (b, k) int64 of their own."""
        raise NotImplementedError

    def exchanged(self) -> Optional["Ranker"]:
        """The same scores with users and items exchanged, (n_items, n_users) in shape.

        None where they are no products of features, since an item then has none to rank users by;
        and where a student computes its features instead of looking them up: that costs too much.
        """
        return None

    def factors(self) -> Optional[Features]:
        """User and item features that the scores are the dot products of; None where they are not.

        Also where an item is -inf, which no product is: what :meth:`known_items` leaves out.
        """
        return None

    def products(self) -> Optional[Any]:
        """The scores as products (:class:`recbole_freqd.features.low_rank.Scores`), if they are.

        Those are multiplied by a few columns at a fraction of the cost of whole rows.
        """
        return None

    def stored(self, user_ids: torch.Tensor) -> Optional[sp.csr_array]:
        """(b, n_items), the scores of users (b,) of whom nearly all are 0, as the others.

        None where they are not sparse, or the catalogue is so small that whole rows are as fast.
        """
        return None

    def mean_over(self, user_ids: torch.Tensor, items: torch.Tensor) -> Optional[torch.Tensor]:
        """(b,) float64, each user's mean over items (n_items,) bool, known without whole rows.

        None where it is not, or the catalogue is so small that these are as fast.
        """
        return None

    def known_items(self) -> torch.Tensor:
        """(n_items,) bool, the items that it can score: not -inf for everybody; never item 0.

        Of everybody some are asked: a teacher may give -inf to what its user has seen already.
        """
        some = spread_users(self.shape[0], self.device)
        known = ~self.block(some).isneginf().all(dim=0)
        known[0] = False
        unknown = self.shape[1] - 1 - int(known.sum())
        if unknown:
            logger.info("The teacher cannot score %d of %d items.", unknown, self.shape[1] - 1)
        return known


class FeatureRanker(Ranker):
    """Scores that are dot products of features.

    Args:
        user_emb: (n_users, d). item_emb: (n_items, d); any floating dtype, computed in float32.

    Example:
        >>> items = torch.tensor([[0.0], [1.0], [3.0]])
        >>> ranker = FeatureRanker(torch.tensor([[0.0], [2.0]]), items)
        >>> ranker.block(torch.tensor([1])).tolist()
        [[0.0, 2.0, 6.0]]
    """

    def __init__(self, user_emb: torch.Tensor, item_emb: torch.Tensor) -> None:
        self.user_emb, self.item_emb = user_emb.detach(), item_emb.detach()
        self.shape, self.device = (len(user_emb), len(item_emb)), user_emb.device

    def exchanged(self) -> Ranker:
        return FeatureRanker(self.item_emb, self.user_emb)

    def factors(self) -> Features:
        return self.user_emb, self.item_emb

    def mean_over(self, user_ids: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        blocks = zip(self.item_emb.split(_ITEMS_AT_ONCE), items.split(_ITEMS_AT_ONCE))
        total = sum(rows[counts].double().sum(dim=0) for rows, counts in blocks)
        return self.user_emb[user_ids].double() @ (total / items.sum().clamp(min=1))

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        users = self.user_emb[user_ids].float()
        with single_precision(self.device):
            if self.item_emb.dtype == torch.float32:
                return users @ self.item_emb.T
            # In parts, so that there is never a second, wider copy of the whole table.
            parts = [users @ items.float().T for items in self.item_emb.split(_ITEMS_AT_ONCE)]
            return torch.cat(parts, dim=1)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        scores = torch.empty(item_ids.shape, device=self.device)
        each = 4 * max(1, item_ids.shape[1]) * self.item_emb.shape[1]
        for some in torch.arange(len(user_ids), device=self.device).split(_fitting(each)):
            users, items = self.user_emb[user_ids[some]], self.item_emb[item_ids[some]]
            with single_precision(self.device):
                scores[some] = (items.float() @ users.float()[:, :, None])[:, :, 0]
        return scores


class RowsRanker(Ranker):
    """Scores of the current features, e.g. of a student without a trainer.

    Args:
        rows: The features; they are read without gradient.
        shape: (n_users, n_items).
        device: Where they are.
    """

    def __init__(self, rows: FeatureRows, shape: tuple[int, int], device: Any) -> None:
        self.rows, self.shape, self.device = rows, shape, torch.device(device)

    def exchanged(self) -> Optional[Ranker]:
        if self.rows.scorer is not None or self.rows.tables is None:
            return None
        return RowsRanker(self.rows.exchanged(), self.shape[::-1], self.device)

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        items = torch.arange(self.shape[1], device=self.device)
        if self.rows.scorer is not None:
            return self.at(user_ids, items.expand(len(user_ids), -1))
        with torch.no_grad(), single_precision(self.device):
            users = self.rows.of("user", user_ids).float()
            parts = [self.rows.of("item", some).float() for some in items.split(_ITEMS_AT_ONCE)]
            products = torch.cat([users @ part.T for part in parts], dim=1)
            return self.rows.with_biases(products, user_ids, items)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), single_precision(self.device):
            return self.rows.scores(user_ids, item_ids).float()


@dataclass(frozen=True)
class TopItems:
    """The best items of every user, best first.

    Attributes:
        ids: (n_users, k) int32; 0, the padding, where a user has fewer items to choose from.
        scores: (n_users, k) float32; -inf there.
    """

    ids: torch.Tensor
    scores: torch.Tensor


def top_items(
    ranker: Ranker,
    k: int,
    *,
    exclude: Optional[sp.csr_array] = None,
    allowed: Optional[torch.Tensor] = None,
    progress: bool = False,
    title: str = "Ranking",
) -> TopItems:
    """The top lists of all users, made in blocks of users within a memory budget.

    Args:
        ranker: Whose.
        k: Length of the lists; the number of items where there are fewer.
        exclude: (n_users, n_items) sparse, non-zero for the pairs that do not count, e.g. the
            training interactions. The padding item never counts.
        allowed: (n_items,) bool, the only items that count; None: all.
        progress: Whether to show a bar.
        title: Of the bar.

    Example:
        >>> items = torch.tensor([[9.0], [1.0], [3.0]])
        >>> ranker = FeatureRanker(torch.tensor([[0.0], [2.0]]), items)
        >>> top_items(ranker, 1).ids.tolist()  # item 0 is the padding
        [[1], [2]]
    """
    blocks = top_blocks(ranker, k, exclude=exclude, allowed=allowed, progress=progress, title=title)
    return collected(ranker, k, blocks)


def collected(ranker: Ranker, k: int, blocks: Iterable[tuple[torch.Tensor, TopItems]]) -> TopItems:
    """The lists of all users from those of blocks; see :func:`top_blocks`."""
    shape = ranker.shape[0], min(k, ranker.shape[1] - 1)
    ids = torch.zeros(shape, dtype=torch.int32, device=ranker.device)
    scores = torch.full(shape, -torch.inf, device=ranker.device)
    for users, best in blocks:
        ids[users], scores[users] = best.ids, best.scores
    return TopItems(ids, scores)


def top_blocks(
    ranker: Ranker,
    k: int,
    *,
    users: Optional[torch.Tensor] = None,
    exclude: Optional[sp.csr_array] = None,
    allowed: Optional[torch.Tensor] = None,
    progress: bool = False,
    title: str = "Ranking",
) -> Iterator[tuple[torch.Tensor, TopItems]]:
    """As :func:`top_items`, block by block: users (b,) and their lists, for what keeps less.

    Of equal scores the smaller id comes first. ``users``: (n,) int64, whose lists; None: all.
    """
    k = min(k, ranker.shape[1] - 1)
    for some, scores in candidate_blocks(
        ranker, users=users, exclude=exclude, allowed=allowed, progress=progress, title=title
    ):
        best, items = best_of(scores, k)
        yield some, TopItems(items.int(), best)


def candidate_blocks(
    ranker: Ranker,
    *,
    users: Optional[torch.Tensor] = None,
    exclude: Optional[sp.csr_array] = None,
    allowed: Optional[torch.Tensor] = None,
    progress: bool = False,
    title: str = "Ranking",
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Users (b,) and their :func:`candidates` (b, n_items), block by block; all, or ``users``."""
    n_users = ranker.shape[0] if users is None else len(users)
    blocks = list(user_blocks(n_users, ranker.shape[1], ranker.device))
    for places in tqdm(blocks, desc=title, ncols=100, disable=not progress):
        some = places if users is None else users[places]
        yield some, candidates(ranker, some, exclude, allowed)


def candidates(
    ranker: Ranker,
    user_ids: torch.Tensor,
    exclude: Optional[sp.csr_array] = None,
    allowed: Optional[torch.Tensor] = None,
) -> torch.Tensor:
    """(b, n_items) float32, the scores of users (b,), -inf for what does not count.

    That is the padding and, see :func:`top_items`, ``exclude`` and what is not ``allowed``.
    """
    scores = ranker.block(user_ids).float()
    scores[:, 0] = -torch.inf
    if allowed is not None:
        others = (~allowed).nonzero()[:, 0]
        if len(others) > 1:  # more than the padding
            scores.index_fill_(1, others, -torch.inf)
    if exclude is not None:
        scores[stored_pairs(exclude, user_ids)] = -torch.inf
    return scores


def stored_pairs(user_items: sp.csr_array, user_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Places (p,) in user_ids and items (p,) int64 of the non-zero entries of users (b,)."""
    part = user_items[user_ids.cpu().numpy()].tocoo()
    kept = part.data != 0
    row, col = (torch.from_numpy(ids[kept]).long() for ids in (part.row, part.col))
    return row.to(user_ids.device), col.to(user_ids.device)


def _fitting(bytes_each: int) -> int:
    """How many of something fit the memory budget, at least one."""
    return max(1, BUDGET_BYTES // bytes_each)
