"""Makes features whose dot products are a team's scores."""

from collections.abc import Sequence
from typing import Optional

import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import TeacherError
from recbole_freqd.core.rows import Features
from recbole_freqd.teacher.team.member import Member, StandardisedRanker, in_order
from recbole_freqd.teacher.team.moments import product_moments


def team_features(
    members: Sequence[Member],
    weights: Sequence[float],
    *,
    exclude: Optional[sp.csr_array] = None,
    factor: float = 1.0,
    offsets: bool = False,
) -> Features:
    """Features U, V with U Vᵀ = factor · Σ w_m z_m, the members' side by side.

    Of each member: items are centred, users divided by the spread of their scores, both sides
    brought to the same mean row norm over what it knows, times √(w_m · factor). Rows of users and
    items that it does not know are zero in its columns. The team's scores are met exactly (in
    double precision, then rounded) where a member's scores are products of its features; of other
    members those of the features stand for its scores, in mean and spread too.

    Items are centred by the mean over all known items. That of a user leaves his training items
    out, and differs by a number of his own, which changes no ranking: it is left out of the
    features unless ``offsets``.

    Args:
        members: See :class:`recbole_freqd.teacher.team.team.TeamRanker`; all with features.
        weights: One each.
        exclude: (n_users, n_items) sparse, non-zero for the training interactions: they do not
            count in mean and spread.
        factor: The team's constant, above 0.
        offsets: Whether each member has one more column, so that its mean is the user's own.

    Returns:
        (n_users, Σ d_m) and (n_items, Σ d_m) float32, columns in the order of the names.

    Raises:
        TeacherError: A member has no features.
    """
    rankers, values = in_order(members, weights, exclude)
    tables = [_of_member(ranker, offsets) for ranker in rankers]
    widths = [pair[0].shape[1] for pair in tables]
    shape, device = rankers[0].shape, rankers[0].device
    user, item = (torch.empty(n, sum(widths), device=device) for n in shape)
    place = 0
    for ranker, weight, width in zip(rankers, values, widths):
        pair = tables.pop(0)
        ratio = _ratio_of_norms(pair, ranker)
        root = (weight * factor) ** 0.5
        for out, table, scale in ((user, pair[0], ratio), (item, pair[1], 1 / ratio)):
            out[:, place : place + width] = table * (scale * root)
        place += width
    return user, item


def _of_member(ranker: StandardisedRanker, offsets: bool) -> Features:
    """z of a member as a product of features in single precision; rows of the unknown are zero."""
    member, knows_item = ranker.member, ranker.known_items()
    if member.features is None:
        raise TeacherError(
            f"Teacher {member.name} has no features, so the team has none. Give it a "
            "spectral_rank, or leave out what needs features."
        )
    moments = product_moments(member.features, knows_item, ranker.exclude)
    is_flat = (moments.spread == 0) | ~ranker.known_users()
    inverse = (1 / moments.spread).masked_fill(is_flat, 0.0)
    user, item = member.features
    user = (user.double() * inverse[:, None]).float()
    item = (item.double() - moments.centre).float() * knows_item[:, None]
    user[is_flat] = 0  # also where a feature is not finite
    if offsets:
        user = torch.cat([user, (-moments.offset * inverse).float()[:, None]], dim=1)
        item = torch.cat([item, knows_item.float()[:, None]], dim=1)
    return user, item


def _ratio_of_norms(pair: Features, ranker: StandardisedRanker) -> float:
    """What the users' side is multiplied by, and the items' divided, for equal mean row norms."""
    user, item = (
        float(table[known].norm(dim=1).double().mean()) if known.any() else 0.0
        for table, known in zip(pair, (ranker.known_users(), ranker.known_items()))
    )
    return (item / user) ** 0.5 if user > 0 and item > 0 else 1.0
