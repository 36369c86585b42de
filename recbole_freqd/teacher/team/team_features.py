"""Makes features whose dot products are a team's scores."""

from collections.abc import Sequence
from typing import Optional

import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import TeacherError
from recbole_freqd.core.rows import Features, changed_rows, empty_rows, is_mapped
from recbole_freqd.teacher.team.member import Member, StandardisedRanker, in_order
from recbole_freqd.teacher.team.moments import product_moments

_ROWS = 65_536  # read at once


def team_features(
    members: Sequence[Member],
    weights: Sequence[float],
    *,
    exclude: Optional[sp.csr_array] = None,
    factor: float = 1.0,
    offsets: bool = False,
) -> Features:
    """Features U, V with U Vᵀ = factor · Σ w_m z_m: the members' features side by side.

    For each member, this centres items, divides users by the spread of their scores, brings both
    sides to the same mean row norm over what it knows, and multiplies by √(w_m · factor). Rows of
    users and items that it does not know are zero in its columns. If a member's scores are products
    of its features, the result is exact (in double precision, then rounded). For any other member
    the products of its features stand for its scores, also in mean and spread.

    The centre of the items is the mean over all known items. A user's own mean leaves out the
    training items, and so differs by one number per user. That number changes no ranking: the
    features leave it out unless ``offsets``.

    Args:
        members: See :class:`recbole_freqd.teacher.team.team.TeamRanker`; all with features.
        weights: One each.
        exclude: (n_users, n_items) sparse, non-zero for the training interactions: they do not
            count in mean and spread.
        factor: The team's constant, above 0.
        offsets: Whether each member gets one more column, which makes its mean the user's own.

    Returns:
        (n_users, Σ d_m) and (n_items, Σ d_m) float32, columns in the order of the names.

    Raises:
        TeacherError: A member has no features.
    """
    rankers, values = in_order(members, weights, exclude)
    own = [_features_of(ranker) for ranker in rankers]
    widths = [pair[0].shape[1] + offsets for pair in own]
    # In a file if a member's features are.
    mapped = any(is_mapped(table) for pair in own for table in pair)
    user, item = (
        empty_rows(n, sum(widths), torch.float32, rankers[0].device, mapped=mapped)
        for n in rankers[0].shape
    )
    place = 0
    for ranker, weight, width in zip(rankers, values, widths):
        pair = user[:, place : place + width], item[:, place : place + width]
        _fill(pair, ranker, offsets)
        ratio, root = _ratio_of_norms(pair, ranker), (weight * factor) ** 0.5
        for table, scale in zip(pair, (ratio, 1 / ratio)):
            table.mul_(scale * root)
        place += width
    return user, item


def _features_of(ranker: StandardisedRanker) -> Features:
    if ranker.member.features is None:
        raise TeacherError(
            f"Teacher {ranker.member.name} has no features, so the team has none. Give it a "
            "spectral_rank, or leave out the losses that need features."
        )
    return ranker.member.features


def _fill(pair: Features, ranker: StandardisedRanker, offsets: bool) -> None:
    """Writes z of a member as a product into both tables; rows of the unknown are zero."""
    (user, item), knows_item = _features_of(ranker), ranker.known_items()
    width = user.shape[1]
    moments = product_moments((user, item), knows_item, ranker.exclude)
    is_flat = (moments.spread == 0) | ~ranker.known_users()
    inverse = (1 / moments.spread).masked_fill(is_flat, 0.0)

    def of_users(block: torch.Tensor, rows: slice) -> torch.Tensor:
        scaled = (block.double() * inverse[rows, None]).float()
        return scaled.masked_fill_(is_flat[rows, None], 0.0)  # also what is not finite

    def of_items(block: torch.Tensor, rows: slice) -> torch.Tensor:
        return (block.double() - moments.centre).float() * knows_item[rows, None]

    changed_rows(user, of_users, into=pair[0][:, :width])
    changed_rows(item, of_items, into=pair[1][:, :width])
    if offsets:
        pair[0][:, width] = (-moments.offset * inverse).float()
        pair[1][:, width] = knows_item.float()


def _ratio_of_norms(pair: Features, ranker: StandardisedRanker) -> float:
    """The factor that equalises mean row norms: times it for users, divided by it for items."""
    user, item = (
        _mean_norm(table, known)
        for table, known in zip(pair, (ranker.known_users(), ranker.known_items()))
    )
    return (item / user) ** 0.5 if user > 0 and item > 0 else 1.0


def _mean_norm(table: torch.Tensor, known: torch.Tensor) -> float:
    """The mean length of the rows (n, d) that are known (n,); 0 of none."""
    norms = [
        rows[counts].norm(dim=1) for rows, counts in zip(table.split(_ROWS), known.split(_ROWS))
    ]
    return float(torch.cat(norms).double().mean()) if known.any() else 0.0
