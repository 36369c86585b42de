"""Draws without replacement for many users at once: by weights, and uniformly outside of lists."""

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recbole_freqd.core.rng import RandomStream
from recbole_freqd.sampling import gumbel, repeats

_ENTRIES = 2**22  # of lists worked on at once


def weighted_draw(
    log_weights: torch.Tensor, count: int, stream: RandomStream
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places drawn in turn without replacement, in proportion to weights (Gumbel-top-k).

    Args:
        log_weights: (b, m) floating; -inf where a place is never drawn.
        count: How many are wanted of each row; m where that is less.
        stream: Where they are drawn from.

    Returns:
        (b, count) int64, the places in ascending order, and (b, count) bool, whether there is one:
        False, at the end of a row, where it has fewer places than asked for.
    """
    width = log_weights.shape[1]
    keys = log_weights + gumbel(log_weights, stream)
    places = keys.topk(min(count, width), dim=1).indices
    never = log_weights.gather(1, places).isneginf()
    places = places.masked_fill(never, width).sort(dim=1).values
    return places.clamp(max=width - 1), places < width


def distinct_below(limits: torch.Tensor, count: int, stream: RandomStream) -> torch.Tensor:
    """Distinct numbers of each row, drawn uniformly from 0 to its limit (exclusive).

    Args:
        limits: (b,) int64, at least 0.
        count: How many are wanted of each row.
        stream: Where they are drawn from.

    Returns:
        (b, count) int64, in random order; -1 at the end of a row whose limit is below ``count``.
    """
    generator = stream.on(limits.device)
    # The first distinct ones of draws with replacement are a draw without replacement. Where there
    # are more than 4 * count numbers, 2 * count + 8 draws are as good as certain to hold enough.
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


class UniformOutside(nn.Module):
    """Items of a pool that are in no list of a user's, drawn uniformly without replacement.

    An item is drawn by its rank among those allowed, which the sorted forbidden ones turn into an
    id: nothing is rejected, so users with few items left cost no more than others.

    Args:
        pool: (p,) int64 on the CPU, ascending: the items that may be drawn at all.
        user_items: (n_users, n_items) sparse, non-zero for pairs that are not drawn.
        lists: (n_users, m) integer, more of them; 0 is an empty place.

    Attributes:
        n_allowed: (n_users,) int64, how many items are left to draw from.
    """

    n_allowed: torch.Tensor
    _pool: torch.Tensor
    _gaps: torch.Tensor
    _starts: torch.Tensor

    def __init__(self, pool: torch.Tensor, user_items: sp.csr_array, lists: torch.Tensor) -> None:
        super().__init__()
        places = np.full(user_items.shape[1], -1)
        places[pool.numpy()] = np.arange(len(pool))
        gaps, counts = [], []
        for users in torch.arange(len(lists)).split(max(1, _ENTRIES // (lists.shape[1] + 1))):
            some = _forbidden(user_items, lists, users, places, len(pool))
            gaps.append(some[0])
            counts.append(some[1])
        lengths = torch.from_numpy(np.concatenate(counts))
        for name, values in (
            ("_pool", pool),
            ("_gaps", torch.from_numpy(np.concatenate([*gaps, np.zeros(1, np.int32)]))),
            ("_starts", torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])),
            ("n_allowed", len(pool) - lengths),
        ):
            self.register_buffer(name, values.to(lists.device), persistent=False)
        self._steps = int(lengths.max()).bit_length()

    def sample(self, user_ids: torch.Tensor, count: int, stream: RandomStream) -> torch.Tensor:
        """(b, count) int64, items of users (b,); 0 at the end of a row where none is left."""
        ranks = distinct_below(self.n_allowed[user_ids], count, stream)
        # Of the forbidden items, those with at most `rank` allowed ones before them come first.
        start = self._starts[user_ids][:, None].expand_as(ranks)
        low, high = start, self._starts[user_ids + 1][:, None].expand_as(ranks)
        for _ in range(self._steps):
            middle = (low + high) // 2
            before = (low < high) & (self._gaps[middle] <= ranks)
            low, high = torch.where(before, middle + 1, low), torch.where(before, high, middle)
        places = (ranks + low - start).clamp_(0, len(self._pool) - 1)
        return torch.where(ranks < 0, 0, self._pool[places])


def _forbidden(
    user_items: sp.csr_array,
    lists: torch.Tensor,
    users: torch.Tensor,
    places: np.ndarray,
    n_pool: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Of some users: how many allowed items lie before each forbidden one, and how many there are.

    Args:
        user_items, lists: See :class:`UniformOutside`.
        users: (b,), consecutive.
        places: (n_items,), where an item is in the pool; -1: it is not.
        n_pool: Items in the pool.
    """
    first, last = int(users[0]), int(users[-1]) + 1
    train, listed = user_items[first:last].tocoo(), lists[first:last].cpu().numpy()
    row = np.concatenate([train.row, np.repeat(np.arange(len(listed)), listed.shape[1])])
    place = places[np.concatenate([train.col, listed.ravel()])]
    keys = np.sort(row[place >= 0].astype(np.int64) * n_pool + place[place >= 0])
    keys = keys[np.diff(keys, prepend=-1) > 0]  # six times as fast as NumPy's own unique
    row, place = keys // n_pool, keys % n_pool
    counts = np.bincount(row, minlength=len(listed))
    within = np.arange(len(keys)) - (counts.cumsum() - counts)[row]
    return (place - within).astype(np.int32), counts
