"""A teacher as a member of a team, with its scores standardised per user."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError, TeacherError, join_names, short_repr
from recbole_freqd.core.rankers import Ranker, spread_over
from recbole_freqd.core.rows import Features
from recbole_freqd.features.approximation import product_scores
from recbole_freqd.features.low_rank import FactoredScores
from recbole_freqd.features.products import Standardised
from recbole_freqd.teacher.team.moments import UserMoments


@dataclass(frozen=True)
class TeamMember:
    """What a team needs of a teacher.

    Attributes:
        name: Differs between members; the team sums in the order of the names.
        ranker: Its scores, in the student's ids.
        features: (n_users, d) and (n_items, d), biases as columns. Their dot products are its
            scores, or approximate them best. None: it has no features.
        known: Masks (n_users,) and (n_items,) of what it knows, without the padding; None: all.
            An item that scores -inf for everybody is unknown too.
        trained_by_gradient: Whether its scores have the scale of a trained model.
        is_product: Whether its scores are exactly the dot products of ``features``.
    """

    name: str
    ranker: Ranker
    features: Optional[Features] = None
    known: Optional[tuple[np.ndarray, np.ndarray]] = None
    trained_by_gradient: bool = True
    is_product: bool = False

    @classmethod
    def of(cls, name: str, ranker: Ranker, *, trained_by_gradient: bool = True) -> "TeamMember":
        """A member that knows everything; its features are the ranker's own, if it has some."""
        factors = ranker.factors()
        is_product = factors is not None
        return cls(name, ranker, factors, None, trained_by_gradient, is_product)


class StandardisedRanker(Ranker):
    """z = (y - mean) / spread of each user, 0 where the member knows nothing.

    Mean and spread run over the items that the member knows, without item 0 and the pairs of
    ``exclude``. The excluded pairs still get a z. z = 0 for users and items that the member does
    not know, for a pair at -inf, and for a user with all scores the same.

    Args:
        member: Gives the scores.
        exclude: (n_users, n_items) sparse, non-zero for the training interactions; None: none.
    """

    def __init__(self, member: TeamMember, exclude: Optional[sp.csr_array] = None) -> None:
        self.member, self.exclude = member, exclude
        self.shape, self.device = member.ranker.shape, member.ranker.device
        self._knows_user, self._knows_item = known_masks(member)
        features = member.features if member.is_product else None
        self._moments = UserMoments(
            member.ranker, self._knows_item, exclude, features, f"Teacher {member.name}"
        )

    def known_users(self) -> torch.Tensor:
        """(n_users,) bool, the users that the member knows; never user 0."""
        return self._knows_user

    def known_items(self) -> torch.Tensor:
        return self._knows_item

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        scores = self.member.ranker.block(user_ids)
        self._moments.measure(user_ids, scores)
        return self._standardise(scores, user_ids, self._knows_item)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        self._moments.measure(user_ids)  # first: whole rows may be needed
        scores = self.member.ranker.at(user_ids, item_ids)
        return self._standardise(scores, user_ids, self._knows_item[item_ids])

    def mean_over(self, user_ids: torch.Tensor, items: torch.Tensor) -> Optional[torch.Tensor]:
        own = items & self._knows_item
        means = self.member.ranker.mean_over(user_ids, own)
        if means is None:
            return None
        mean, spread = (part.double() for part in self._moments.of(user_ids))
        is_flat = (spread == 0) | ~self._knows_user[user_ids]
        share = own.sum() / items.sum().clamp(min=1)  # the others score 0
        return ((means - mean) / spread * share).masked_fill(is_flat, 0.0)

    def as_term(self, weight: float) -> Optional[Standardised]:
        """``weight`` times z as products of matrices; None if its scores are not products.

        A pair at -inf of an item that is otherwise known is not a product. Members with such pairs
        are models of RecBole's own, and have no factors.
        """
        features = self.member.features if self.member.is_product else None
        scores: Any = None
        if features is not None:
            user, item = (values.detach().float().cpu().numpy() for values in features)
            scores = FactoredScores([user, item.T])
        else:
            scores = product_scores(self.member.ranker)
        if not isinstance(scores, FactoredScores):
            return None
        mean, spread = self._moments.of(torch.arange(self.shape[0], device=self.device))
        is_flat = (spread == 0) | ~self._knows_user
        scale = (weight / spread.masked_fill(is_flat, 1.0)).masked_fill(is_flat, 0.0)
        known = self._knows_item.clone()
        known[0] = False
        return Standardised(
            scores, *(values.float().cpu().numpy() for values in (scale, mean, known))
        )

    def mean_spread(self, most_users: Optional[int] = None) -> float:
        """The mean spread of scores, over the users that it knows.

        Args:
            most_users: How many to measure at most; None: all. Products of features always measure
                all, since that costs nothing.
        """
        users = self._knows_user.nonzero().flatten()
        if not self.member.is_product:
            users = spread_over(users, most_users)
        return float(self._moments.of(users)[1].double().mean()) if len(users) else 0.0

    def _standardise(
        self, scores: torch.Tensor, user_ids: torch.Tensor, knows_item: torch.Tensor
    ) -> torch.Tensor:
        mean, spread = self._moments.of(user_ids)
        is_flat = (spread == 0) | ~self._knows_user[user_ids]
        unknown = scores.isneginf() | ~knows_item
        scores.sub_(mean[:, None]).div_(spread.masked_fill(is_flat, 1.0)[:, None])
        return scores.masked_fill_(unknown, 0.0).masked_fill_(is_flat[:, None], 0.0)


Member = Union[TeamMember, StandardisedRanker]


def known_masks(member: TeamMember) -> tuple[torch.Tensor, torch.Tensor]:
    n_users, device = member.ranker.shape[0], member.ranker.device
    users = torch.arange(n_users, device=device) > 0
    items = member.ranker.known_items()
    if member.known is not None:
        users &= torch.as_tensor(member.known[0], device=device)
        items = items & torch.as_tensor(member.known[1], device=device)
    return users, items


def in_order(
    members: Sequence[Member], weights: Sequence[float], exclude: Optional[sp.csr_array] = None
) -> tuple[list[StandardisedRanker], list[float]]:
    """Standardises the members that have a weight, and sorts them by name, with their weights.

    Floating-point sums depend on their order, so every sum uses this one.

    Raises:
        ConfigError: Weights are not one finite number ≥ 0 each, or all 0; or a name comes twice.
        TeacherError: Members have different shapes.
    """
    values = [float(weight) for weight in weights]
    good = len(values) == len(members) and np.isfinite(values).all() and min(values, default=0) >= 0
    if not good or sum(values) == 0:
        raise ConfigError(
            f"teacher_weights: got {short_repr(list(weights))} for {len(members)} teachers; "
            "allowed: one finite number of at least 0 each, not all 0."
        )
    rankers = [_standardised(member, exclude) for member in members]
    names = [ranker.member.name for ranker in rankers]
    if len(set(names)) < len(names):
        raise ConfigError(f"Teachers of a team: got {join_names(names)}; allowed: each name once.")
    if len({ranker.shape for ranker in rankers}) > 1:
        raise TeacherError(
            f"Teachers of a team score {join_names(ranker.shape for ranker in rankers)} users and "
            "items; allowed: the student's numbers, for all of them."
        )
    present = sorted((name, place) for place, name in enumerate(names) if values[place] > 0)
    return [rankers[place] for _, place in present], [values[place] for _, place in present]


def _standardised(member: Member, exclude: Optional[sp.csr_array]) -> StandardisedRanker:
    return StandardisedRanker(member, exclude) if isinstance(member, TeamMember) else member
