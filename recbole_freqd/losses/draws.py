"""Draws for losses: free items, distinct ids, places by weight, noise.

Every draw serves a batch of users at once, exactly, from a
:class:`recbole_freqd.core.rng.RandomStream`. Id 0, RecBole's padding, is never drawn: it marks
a place without a draw.
"""

from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recbole_freqd.core.rng import RandomStream

_ENTRIES = 2**22  # of lists worked on at once


def some_of(ids: torch.Tensor, most: Optional[int], stream: RandomStream) -> torch.Tensor:
    """Draws at most this many places of distinct ids (b,), ascending; None: all, without a draw.

    Example:
        >>> some_of(torch.tensor([3, 5, 7]), 5, RandomStream(0)).tolist()
        [0, 1, 2]
    """
    places = torch.arange(len(ids), device=ids.device)
    return places if most is None else distinct(places, most, stream).sort().values


class FreeItems(nn.Module):
    """Draws items, from 1 on, that are free of a user's interactions and lists.

    The free items of a user have ranks 0, 1, … by ascending ids. A binary search among the items
    that are not free finds the item of a rank. So it rejects no draw, and users with few items left
    cost no more than others.

    Args:
        user_items: (n_users, n_items) sparse, non-zero for the pairs that are not free.
        device: Draws items here.
        allowed: (n_items,) bool, the only items that may be free; None: all but the padding.
        lists: (n_users, m) integer, more items that are not free; 0 is an empty place.

    Attributes:
        counts: (n_users,) int64, how many items are free.

    Example:
        >>> free = FreeItems(sp.csr_array(np.array([[0, 0, 0, 0], [0, 1, 0, 0]])), "cpu")
        >>> free.counts.tolist(), free.items(torch.tensor([1]), torch.tensor([[0, 1, 2]])).tolist()
        ([3, 2], [[2, 3, 0]])
    """

    counts: torch.Tensor
    _pool: torch.Tensor
    _gaps: torch.Tensor
    _starts: torch.Tensor

    def __init__(
        self,
        user_items: sp.csr_array,
        device: Any,
        allowed: Optional[torch.Tensor] = None,
        lists: Optional[torch.Tensor] = None,
    ) -> None:
        super().__init__()
        n_users, n_items = user_items.shape
        pool = np.arange(1, n_items) if allowed is None else np.flatnonzero(allowed.cpu().numpy())
        places = np.full(n_items, -1)
        places[pool] = np.arange(len(pool))
        width = 1 if lists is None else lists.shape[1] + 1
        parts = [
            _taken(user_items, lists, users, places, len(pool))
            for users in torch.arange(n_users).split(max(1, _ENTRIES // width))
        ]
        gaps, taken = (np.concatenate(part) for part in zip(*parts))
        for name, values in (
            ("_pool", np.append(pool, 0)),
            ("_gaps", gaps),
            ("_starts", np.append(0, taken.cumsum())),
            ("counts", len(pool) - taken),
        ):
            self.register_buffer(name, torch.from_numpy(values).to(device), persistent=False)

    def draw(self, user_ids: torch.Tensor, count: int, stream: RandomStream) -> torch.Tensor:
        """(b, count) int64, independent free items of users (b,); 0 if a user has none."""
        limits = self.counts[user_ids, None]
        return self.items(user_ids, (uniform(limits[:, 0], count, stream) * limits).long())

    def draw_distinct(
        self, user_ids: torch.Tensor, count: int, stream: RandomStream
    ) -> torch.Tensor:
        """(b, count) int64, different free items; 0 at the end of a row once none is left."""
        return self.items(user_ids, distinct_below(self.counts[user_ids], count, stream))

    def items(self, user_ids: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
        """(b, k) int64, the free items of users (b,) of ranks (b, k); 0 for a rank without one."""
        # Of the items taken, those with at most `rank` free ones before them come first. One search
        # serves all users, in one ascending list of row * width + free ones before.
        start, width = self._starts[user_ids], len(self._pool)
        lengths = self._starts[user_ids + 1] - start
        first, owner = lengths.cumsum(0) - lengths, torch.repeat_interleave(lengths)
        entry = torch.arange(len(owner), device=owner.device) + (start - first)[owner]
        keys = self._gaps[entry] + owner * width
        none = (ranks < 0) | (ranks >= self.counts[user_ids, None])
        ranks = ranks.masked_fill(none, 0)
        rows = torch.arange(len(user_ids), device=owner.device)[:, None]
        taken = torch.searchsorted(keys, ranks + rows * width, right=True) - first[:, None]
        return self._pool[(ranks + taken).masked_fill(none, -1)]


def uniform(limits: torch.Tensor, count: int, stream: RandomStream) -> torch.Tensor:
    """(b, count) float64 in [0, 1)."""
    shape, device = (len(limits), count), limits.device
    return torch.rand(shape, generator=stream.on(device), dtype=torch.float64, device=device)


def repeats(ranks: torch.Tensor) -> torch.Tensor:
    """(b, k), where a row has the same rank further to the left.

    Example:
        >>> repeats(torch.tensor([[4, 2, 4, 4]])).tolist()
        [[False, False, True, True]]
    """
    ordered, order = ranks.sort(dim=1, stable=True)
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.empty_like(again).scatter_(1, order, again)


def distinct(candidates: torch.Tensor, count: int, stream: RandomStream) -> torch.Tensor:
    """Draws different candidates, each set of them as likely as any other.

    The work grows with ``count``, however many candidates there are.

    Args:
        candidates: (n,), each once.
        count: How many.
        stream: Draws them.

    Returns:
        (min(count, n),); all of them, without a draw, if there are no more than ``count``.
    """
    n, device = len(candidates), candidates.device
    if count >= n:
        return candidates
    generator = stream.on(device)
    if 4 * count > n:
        return candidates[torch.randperm(n, generator=generator, device=device)[:count]]
    places = torch.empty(0, dtype=torch.int64, device=device)
    while len(places) < count:  # it treats all candidates alike, and so all sets
        missing = count - len(places)
        more = torch.randint(n, (missing,), generator=generator, device=device)
        places = torch.unique(torch.cat([places, more]))
    return candidates[places]


def gumbel(like: torch.Tensor, stream: RandomStream) -> torch.Tensor:
    """Independent standard Gumbel numbers of shape, dtype and device of ``like``, all finite."""
    drawn = torch.empty_like(like).exponential_(generator=stream.on(like.device))
    return -drawn.clamp_(min=torch.finfo(like.dtype).tiny).log_()


def weighted_draw(
    log_weights: torch.Tensor, count: int, stream: RandomStream
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws places in turn without replacement, in proportion to weights (Gumbel-top-k).

    Args:
        log_weights: (b, m) floating; -inf for a place that is never drawn.
        count: How many to draw per row, at most m.
        stream: Draws them.

    Returns:
        (b, count) int64, the places in ascending order, and (b, count) bool, whether there is one.
        It is False at the end of a row with fewer places than ``count``.

    Example:
        >>> log_weights = torch.tensor([[0.0, -torch.inf, 0.0]])
        >>> places, there = weighted_draw(log_weights, 3, RandomStream(0))
        >>> places[there].tolist()
        [0, 2]
    """
    width = log_weights.shape[1]
    keys = log_weights + gumbel(log_weights, stream)
    places = keys.topk(min(count, width), dim=1).indices
    never = log_weights.gather(1, places).isneginf()
    places = places.masked_fill(never, width).sort(dim=1).values
    return places.clamp(max=width - 1), places < width


def distinct_below(limits: torch.Tensor, count: int, stream: RandomStream) -> torch.Tensor:
    """Draws distinct numbers for each row, uniformly from 0 to its limit (exclusive).

    Args:
        limits: (b,) int64, at least 0.
        count: How many to draw per row.
        stream: Draws them.

    Returns:
        (b, count) int64, in random order; -1 at the end of a row with a limit below ``count``.

    Example:
        >>> drawn = distinct_below(torch.tensor([3, 1]), 2, RandomStream(0))
        >>> len(set(drawn[0].tolist())), drawn[1].tolist()
        (2, [0, -1])
    """
    generator = stream.on(limits.device)
    # The first distinct ones of draws with replacement are a draw without replacement. From more
    # than 4 * count numbers, 2 * count + 8 draws are as good as certain to hold enough.
    draws = torch.empty(len(limits), 2 * count + 8, dtype=torch.int64, device=limits.device)
    draws.random_(0, 2**62, generator=generator).remainder_(limits.clamp(min=1)[:, None])
    again = repeats(draws)
    place = (~again).cumsum(dim=1) - 1
    place = torch.where(again | (place >= count), count, place)  # the last column is thrown away
    found = draws.new_full((len(limits), count + 1), -1).scatter_(1, place, draws)[:, :count]
    (few,) = (limits <= 4 * count).nonzero(as_tuple=True)
    if len(few):
        keys = torch.rand(len(few), 4 * count, generator=generator, device=limits.device)
        absent = torch.arange(4 * count, device=limits.device) >= limits[few, None]
        best = keys.masked_fill_(absent, 2.0).topk(count, dim=1, largest=False)
        found[few] = best.indices.masked_fill(best.values == 2.0, -1)
    return found


def _taken(
    user_items: sp.csr_array,
    lists: Optional[torch.Tensor],
    users: torch.Tensor,
    places: np.ndarray,
    n_pool: int,
) -> tuple[np.ndarray, np.ndarray]:
    """For some users: how many free items lie before each taken one, and how many are taken.

    Args:
        user_items, lists: See :class:`FreeItems`.
        users: (b,), consecutive.
        places: (n_items,), where an item is in the pool; -1: it is not.
        n_pool: Items in the pool.
    """
    first, last = int(users[0]), int(users[-1]) + 1
    train = user_items[first:last].tocoo()
    row, column = train.row[train.data != 0], train.col[train.data != 0]
    if lists is not None:
        more = lists[first:last].cpu().numpy()
        row = np.concatenate([row, np.repeat(np.arange(len(more)), more.shape[1])])
        column = np.concatenate([column, more.ravel()])
    place = places[column]
    keys = np.sort(row[place >= 0].astype(np.int64) * n_pool + place[place >= 0])
    keys = keys[np.diff(keys, prepend=-1) > 0]  # six times as fast as NumPy's own unique
    row, place = keys // max(1, n_pool), keys % max(1, n_pool)
    counts = np.bincount(row, minlength=last - first)
    within = np.arange(len(keys)) - (counts.cumsum() - counts)[row]
    return (place - within).astype(np.int32), counts
