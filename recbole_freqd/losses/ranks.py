"""Draws ranks for a batch of users at once: from one law, in tournaments, in pairs."""

from typing import Any, Callable

import torch
from torch import nn

from recbole_freqd.core.rng import RandomStream
from recbole_freqd.losses.draws import repeats, uniform

_ROUNDS = 32
_TINY = 1e-300  # a chance that underflowed is still above zero


class RankDraws(nn.Module):
    """Draws ranks 0, …, n-1 with chances proportional to weights, from one CDF for all users.

    A user with ``limits`` below n draws only the first ranks, in the same proportions.

    Args:
        weights: (n,) positive, of the ranks.
        device: Draws ranks here.

    Example:
        >>> RankDraws(torch.ones(4), "cpu").draw(torch.tensor([1, 0]), 3, RandomStream(0)).tolist()
        [[0, 0, 0], [0, 0, 0]]
    """

    weights: torch.Tensor
    cdf: torch.Tensor
    squares: torch.Tensor

    def __init__(self, weights: torch.Tensor, device: Any) -> None:
        super().__init__()
        weights = weights.to(device, torch.float64)
        weights = weights / weights.sum()
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("cdf", weights.cumsum(0), persistent=False)
        self.register_buffer("squares", weights.square().cumsum(0), persistent=False)

    @classmethod
    def exponential(cls, n: int, scale: float, device: Any) -> "RankDraws":
        """p_r proportional to exp(-r / scale), r = 0, …, n-1 (the same as from 1 on)."""
        return cls(torch.exp(-torch.arange(n, dtype=torch.float64) / scale), device)

    def draw(self, limits: torch.Tensor, count: int, stream: RandomStream) -> torch.Tensor:
        """(b, count) int64, independent ranks below limits (b,); 0 where a limit is 0."""
        last = (limits - 1).clamp(min=0)[:, None]
        chances = uniform(limits, count, stream) * self.cdf[last]
        return torch.searchsorted(self.cdf, chances, right=True).minimum(last)

    def tournaments(
        self, limits: torch.Tensor, count: int, stream: RandomStream, *, distinct: bool = False
    ) -> torch.Tensor:
        """(b, count) int64, each the better (smaller) of two independent ranks.

        Args:
            limits: (b,).
            count: Tournaments of each user.
            stream: Draws the ranks.
            distinct: Whether to draw repeated winners of a user again; then places beyond the limit
                hold -1.
        """

        def winners(limits: torch.Tensor) -> torch.Tensor:
            return self.draw(limits, count, stream).minimum(self.draw(limits, count, stream))

        if not distinct:
            return winners(limits)
        return distinct_draws(limits, count, stream, winners, self._winning_chances)

    def _winning_chances(self, limits: torch.Tensor, n: int) -> torch.Tensor:
        """(b, n), the chance that each rank below the limits (b,) wins, up to a factor."""
        total = self.cdf[limits - 1][:, None]
        rest = (total - self.cdf[:n]).clamp(min=0.0)  # of the ranks behind
        return self.weights[:n] * (self.weights[:n] + 2.0 * rest)

    def pairs(
        self, limits: torch.Tensor, count: int, stream: RandomStream
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two independent ranks given that they differ, the better (smaller) one first.

        Bisection finds the first (its chance is p (C - p), C the chance of all ranks below the
        limit). The second draw steps over the first, so that no pair is drawn again.

        Returns:
            (b, count) int64 each; 0 and 0 where a limit is below 2.
        """
        last = (limits - 1).clamp(min=0)[:, None]
        total = self.cdf[last]
        mass = uniform(limits, count, stream) * (total.square() - self.squares[last])
        low, high = torch.zeros_like(mass, dtype=torch.int64), last.expand(mass.shape)
        for _ in range(len(self.cdf).bit_length()):
            middle = (low + high) // 2
            above = total * self.cdf[middle] - self.squares[middle] > mass
            low, high = torch.where(above, low, middle + 1), torch.where(above, middle, high)
            low = low.minimum(high)
        first = low
        own = self.weights[first]
        chance = uniform(limits, count, stream) * (total - own)
        chance = torch.where(chance < self.cdf[first] - own, chance, chance + own)
        second = torch.searchsorted(self.cdf, chance, right=True).minimum(last)
        # Rounding at an edge may find the first again: then take its neighbour.
        beside = torch.where(first < last, first + 1, (first - 1).clamp(min=0))
        second = torch.where(second == first, beside, second)
        none = (limits < 2)[:, None]
        return (
            first.minimum(second).masked_fill(none, 0),
            first.maximum(second).masked_fill(none, 0),
        )


def distinct_draws(
    limits: torch.Tensor,
    count: int,
    stream: RandomStream,
    draw: Callable[[torch.Tensor], torch.Tensor],
    weigh: Callable[[torch.Tensor, int], torch.Tensor],
) -> torch.Tensor:
    """Draws ranks one after the other, and repeated ranks of a user again.

    After a number of rounds, it draws the missing ranks from all that are left in one go.

    Args:
        limits: (b,) int64; a user's ranks are below.
        count: Ranks of each user.
        stream: Draws the ranks that are missing in the end.
        draw: From limits (b',) to independent ranks (b', count).
        weigh: From limits (b',) and n to the chances (b', n) that ``draw`` gives to the ranks below
            the limits, up to a factor.

        Returns:
            (b, count) int64; with a limit of at most ``count``, all ranks in order and then -1.
    """
    every = torch.arange(count, device=limits.device)
    ranks = every.where(every < limits[:, None], -1)
    (open_rows,) = (limits > count).nonzero(as_tuple=True)
    if len(open_rows):
        ranks[open_rows] = draw(limits[open_rows])
    for _ in range(_ROUNDS):
        repeated = repeats(ranks[open_rows])
        stuck = repeated.any(dim=1)
        open_rows, repeated = open_rows[stuck], repeated[stuck]
        if len(open_rows) == 0:
            return ranks
        ranks[open_rows] = torch.where(repeated, draw(limits[open_rows]), ranks[open_rows])
    if len(open_rows):
        chances = weigh(limits[open_rows], int(limits[open_rows].max()))
        ranks[open_rows] = _completed(ranks[open_rows], limits[open_rows], chances, stream)
    return ranks


def _completed(
    ranks: torch.Tensor, limits: torch.Tensor, chances: torch.Tensor, stream: RandomStream
) -> torch.Tensor:
    """(b, k), replaces all repeated ranks, by a draw without replacement from those left."""
    repeated = repeats(ranks)
    race = torch.empty_like(chances).exponential_(generator=stream.on(chances.device))
    outside = torch.arange(chances.shape[1], device=limits.device) >= limits[:, None]
    taken = ranks.where(~repeated, ranks[:, :1])
    race = (chances.clamp(min=_TINY) / race).masked_fill(outside, -1.0).scatter(1, taken, -1.0)
    fresh = race.topk(ranks.shape[1], dim=1).indices
    place = (repeated.cumsum(dim=1) - 1).clamp(min=0)
    return torch.where(repeated, fresh.gather(1, place), ranks)
