"""Rankers that multiply scores by a constant, or know only some items."""

from typing import Optional, Union

import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError, short_repr
from recbole_freqd.core.rankers import FeatureRanker, Ranker
from recbole_freqd.core.rows import Features, changed_rows
from recbole_freqd.teacher.team.member import StandardisedRanker, TeamMember


class ScaledRanker(Ranker):
    """The scores of a ranker times a constant above 0; -inf stays -inf."""

    def __init__(self, ranker: Ranker, factor: float) -> None:
        self.ranker, self.factor = ranker, factor
        self.shape, self.device = ranker.shape, ranker.device

    def known_items(self) -> torch.Tensor:
        return self.ranker.known_items()

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.ranker.block(user_ids).mul_(self.factor)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        return self.ranker.at(user_ids, item_ids) * self.factor

    def mean_over(self, user_ids: torch.Tensor, items: torch.Tensor) -> Optional[torch.Tensor]:
        means = self.ranker.mean_over(user_ids, items)
        return None if means is None else means * self.factor

    def exchanged(self) -> Optional[Ranker]:
        exchanged = self.ranker.exchanged()
        return None if exchanged is None else ScaledRanker(exchanged, self.factor)

    def factors(self) -> Optional[Features]:
        factors = self.ranker.factors()
        return None if factors is None else scale_features(factors, self.factor)


class MaskedRanker(Ranker):
    """Dot products of features; -inf for unknown items.

    Args:
        features: (n_users, d) and (n_items, d).
        known: (n_items,) bool.
    """

    def __init__(self, features: Features, known: torch.Tensor) -> None:
        self.ranker, self.known = FeatureRanker(*features), known
        self.shape, self.device = self.ranker.shape, self.ranker.device

    def known_items(self) -> torch.Tensor:
        return self.known.clone()

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.ranker.block(user_ids).masked_fill_(~self.known, -torch.inf)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        scores = self.ranker.at(user_ids, item_ids)
        return scores.masked_fill_(~self.known[item_ids], -torch.inf)

    def exchanged(self) -> Ranker:
        return self.ranker.exchanged()

    def factors(self) -> Features:
        return self.ranker.factors()


def scale_features(features: Features, factor: float) -> Features:
    """Features whose dot products are ``factor`` times as large."""
    if factor == 1:
        return features
    root = factor**0.5
    user, item = (changed_rows(table, lambda block, rows: block * root) for table in features)
    return user, item


def rescaled(
    teacher: Union[Ranker, TeamMember],
    spread: float,
    *,
    exclude: Optional[sp.csr_array] = None,
    most_users: Optional[int] = None,
) -> Ranker:
    """Multiplies scores so that the users' mean spread of scores becomes ``spread``.

    Use it for a single teacher that is not trained by gradient. Its scores may be so close together
    that a softmax over them is flat. It does not centre them: no ranking changes.

    Args:
        teacher: A ranker, or a member if it does not know everything.
        spread: Above 0.
        exclude: (n_users, n_items) sparse, pairs whose scores do not count in the spread.
        most_users: See :meth:`StandardisedRanker.mean_spread`.

    Returns:
        The ranker itself if its scores are constant.

    Raises:
        ConfigError: ``spread`` is not above 0.
    """
    if not spread > 0:
        raise ConfigError(f"spread: got {short_repr(spread)}; allowed: above 0.")
    member = teacher if isinstance(teacher, TeamMember) else TeamMember.of("teacher", teacher)
    own = StandardisedRanker(member, exclude).mean_spread(most_users)
    return member.ranker if own == 0 else ScaledRanker(member.ranker, spread / own)
