"""A team of teachers: the weighted sum of their scores, standardised per user."""

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Optional

import scipy.sparse as sp
import torch
from tqdm import tqdm

from recbole_freqd.core.errors import ConfigError, short_repr
from recbole_freqd.core.rankers import FeatureRanker, Ranker, spread_over, stored_pairs, user_blocks
from recbole_freqd.core.rows import Features
from recbole_freqd.features.products import StandardisedSum
from recbole_freqd.teacher.team.member import Member, in_order
from recbole_freqd.teacher.team.moments import moments_of, product_moments
from recbole_freqd.teacher.team.team_features import team_features

logger = logging.getLogger(__name__)


class TeamRanker(Ranker):
    """y = c Σ w_m z_m over the members' standardised scores.

    A user or item that a member does not know has z_m = 0; weights are not re-normalised. Items
    that no member knows score -inf. Ignore the rows of users that no member knows, see
    :meth:`known_users`. The constant c gives the users' scores the mean spread of the members
    trained by gradient, or ``closed_form_spread`` without such a member. Its first use takes one
    pass over some users, or all; no pass if all members are products of features. The order of the
    members changes nothing, to the last bit.

    Args:
        members: At least one; a member of weight 0 counts as absent. A
            :class:`StandardisedRanker` with the same ``exclude`` keeps its measurements.
        weights: One each, finite and not negative, not all 0.
        exclude: (n_users, n_items) sparse, non-zero for the training interactions.
        closed_form_spread: Above 0.
        factor: c if it is known already; None: measure it.
        most_users: How many users measure c if scores are not products; None: all.
        progress: Whether to show a bar for the pass.

    Raises:
        ConfigError: Weights or names are not allowed.
        TeacherError: Members have different shapes.
    """

    def __init__(
        self,
        members: Sequence[Member],
        weights: Sequence[float],
        *,
        exclude: Optional[sp.csr_array] = None,
        closed_form_spread: float = 1.0,
        factor: Optional[float] = None,
        most_users: Optional[int] = None,
        progress: bool = False,
    ) -> None:
        if not closed_form_spread > 0:
            raise ConfigError(
                f"closed_form_spread: got {short_repr(closed_form_spread)}; allowed: above 0."
            )
        self.members, self.weights = in_order(members, weights, exclude)
        self.exclude, self.closed_form_spread = exclude, closed_form_spread
        self.shape, self.device = self.members[0].shape, self.members[0].device
        self.progress, self.most_users = progress, most_users
        if factor is not None:
            vars(self)["factor"] = factor
        self._knows_item = _any_of([member.known_items() for member in self.members])

    @property
    def is_product(self) -> bool:
        """Whether all members' scores, and so the team's, are products of features."""
        return all(member.member.is_product for member in self.members)

    def known_users(self) -> torch.Tensor:
        """(n_users,) bool, the users that some member knows; nobody teaches the others."""
        return _any_of([member.known_users() for member in self.members])

    def known_items(self) -> torch.Tensor:
        return self._knows_item.clone()

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        scores = self._sum_block(user_ids).mul_(self.factor)
        return scores.masked_fill_(~self._knows_item, -torch.inf)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(item_ids.shape, device=self.device)
        for member, weight in zip(self.members, self.weights):
            scores.add_(member.at(user_ids, item_ids), alpha=weight)
        return scores.mul_(self.factor).masked_fill_(~self._knows_item[item_ids], -torch.inf)

    def mean_over(self, user_ids: torch.Tensor, items: torch.Tensor) -> Optional[torch.Tensor]:
        total = torch.zeros(len(user_ids), dtype=torch.float64, device=self.device)
        for member, weight in zip(self.members, self.weights):
            means = member.mean_over(user_ids, items)
            if means is None:
                return None
            total.add_(means, alpha=weight)
        return total.mul_(self.factor)

    def exchanged(self) -> Optional[Ranker]:
        factors = self.factors()
        return None if factors is None else FeatureRanker(*factors).exchanged()

    def factors(self) -> Optional[Features]:
        return self._factors if self.is_product else None

    def products(self) -> Optional[StandardisedSum]:
        terms = []
        for member, weight in zip(self.members, self.weights):
            term = member.as_term(weight * self.factor)
            if term is None:
                return None
            terms.append(term)
        return StandardisedSum(terms)

    @cached_property
    def _factors(self) -> Features:
        return team_features(self.members, self.weights, factor=self.factor, offsets=True)

    @cached_property
    def factor(self) -> float:
        """c, see above; 1 if all scores of the sum are the same."""
        own = self._mean_spread()
        factor = self._wanted_spread() / own if own > 0 else 1.0
        names = ", ".join(
            f"{weight:g} {member.member.name}" for member, weight in zip(self.members, self.weights)
        )
        logger.info("Team of %s: mean spread %.4g, multiplied by %.4g.", names, own, factor)
        return factor

    def _wanted_spread(self) -> float:
        """The weighted mean spread of the members trained by gradient."""
        trained = [
            (weight, member.mean_spread(self.most_users))
            for member, weight in zip(self.members, self.weights)
            if member.member.trained_by_gradient
        ]
        if not trained:
            return self.closed_form_spread
        return sum(weight * spread for weight, spread in trained) / sum(w for w, _ in trained)

    def _mean_spread(self) -> float:
        """The mean spread of Σ w_m z_m over the known users; measures the members on the way."""
        users = self.known_users().nonzero().flatten()
        if len(users) == 0:
            return 0.0
        if self.is_product:
            features = team_features(self.members, self.weights, offsets=True)
            return float(
                product_moments(features, self._knows_item, self.exclude).spread[users].mean()
            )
        users, total = spread_over(users, self.most_users), 0.0
        blocks = list(user_blocks(len(users), self.shape[1], self.device))
        for places in tqdm(blocks, desc="Team's scores", ncols=100, disable=not self.progress):
            scores = self._sum_block(users[places])
            counts = self._knows_item.expand_as(scores).clone()
            if self.exclude is not None:
                counts[stored_pairs(self.exclude, users[places])] = False
            total += float(moments_of(scores, counts)[1].double().sum())
        return total / len(users)

    def _sum_block(self, user_ids: torch.Tensor) -> torch.Tensor:
        """(b, n_items), Σ w_m z_m; one member's scores at a time."""
        total = torch.zeros(len(user_ids), self.shape[1], device=self.device)
        for member, weight in zip(self.members, self.weights):
            total.add_(member.block(user_ids), alpha=weight)
        return total


def _any_of(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(masks)).any(dim=0)
