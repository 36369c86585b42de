"""``auto``: chooses weights, and side and α of the filter, on validation before any training."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.rankers import Ranker
from recbole_freqd.teacher.choice.mixing import Blocks, Candidate, Scoring
from recbole_freqd.teacher.choice.sampled import ValidationSample
from recbole_freqd.teacher.filter import Mixture
from recbole_freqd.teacher.team.member import Member, StandardisedRanker, in_order

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_FINE_GRID = 5  # members; more of them than this are tried one by one, in pairs and all together

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The choice, and every figure that led to it.

    Attributes:
        chosen, plain: Labels.
        value: The chosen candidate's.
        sampled: By label, the metric's mean over the sample, for all candidates in their order.
        compared: The same over more validation users, or all, for the plain form and the best on
            the sample.
        n_sampled, n_compared, n_users: How many users the sample has, the comparison, and all.
        what: The name of the choice, for the log.
        metric: Its name.
    """

    chosen: str
    plain: str
    value: Any
    sampled: dict[str, float]
    compared: dict[str, float]
    n_sampled: int
    n_compared: int
    n_users: int
    what: str = ""
    metric: str = ""

    def __str__(self) -> str:
        best = max(self.sampled, key=self.sampled.__getitem__)
        text = (
            f"{self.what or 'auto'}: {self.chosen}. {self.metric or 'Metric'} on {self.n_sampled} "
            f"validation users {self.sampled[self.chosen]:.4f}, plain ({self.plain}) "
            f"{self.sampled[self.plain]:.4f}"
        )
        whole = f"all {self.n_users}"
        if self.n_compared < self.n_users:
            whole = f"{self.n_compared} of {self.n_users}"
        if self.chosen == self.plain and best != self.plain:
            text += (
                f", best there ({best}) {self.sampled[best]:.4f} but not better on {whole} users"
            )
        figures = ", ".join(f"{label} {value:.4f}" for label, value in self.compared.items())
        return f"{text}; on {whole}: {figures}. Of {len(self.sampled)} candidates."


def choose(
    blocks_of: Blocks,
    candidates: Sequence[Candidate],
    sample: ValidationSample,
    *,
    device: Any,
    what: str = "",
    many_parts: bool = False,
) -> Choice:
    """Chooses the best of some ways to teach on a sample of validation users; the first is plain.

    Another candidate wins only if it is better on the sample and not worse on all compared users.
    Ties go to the first. Each block is made once per user, and once more for the users of the
    comparison that the sample does not hold.

    Args:
        blocks_of: Gives the blocks that candidates mix.
        candidates: At least one; the plain form first.
        sample: The metric and its users.
        device: Of the blocks.
        what: The name of the choice, for the log.
        many_parts: Whether candidates within one standard error of the best (of the difference,
            over the users of the sample) are as good, and the one that mixes most blocks is taken:
            none is left out for noise.
    """
    score = Scoring(blocks_of, sample, device)
    values = score.values(candidates, sample.users)
    means = values.mean(dim=1).tolist()
    near = _near_the_best(values) if many_parts else [int(np.argmax(means))]
    chosen_place = max(near, key=lambda at: (candidates[at].n_parts, means[at]))
    plain, best = candidates[0], candidates[chosen_place]
    sampled = {candidate.label: mean for candidate, mean in zip(candidates, means)}
    pair = [plain] if best is plain else [plain, best]
    whole = [sampled[one.label] for one in pair]
    others = np.setdiff1d(sample.compared, sample.users, assume_unique=True)
    if len(others):
        share = len(others) / len(sample.compared)
        rest = score.values(pair, others).mean(dim=1).tolist()
        whole = [(1 - share) * mean + share * more for mean, more in zip(whole, rest)]
    compared = {candidate.label: mean for candidate, mean in zip(pair, whole)}
    chosen = best if whole[-1] >= whole[0] else plain
    counts = len(sample.users), len(sample.compared), sample.n_users
    labels = chosen.label, plain.label
    choice = Choice(*labels, chosen.value, sampled, compared, *counts, what, sample.metric)
    logger.info("%s", choice)
    return choice


def _near_the_best(values: torch.Tensor) -> list[int]:
    """Rows of values (c, m) whose mean is within one standard error of the best row's."""
    behind = values[values.mean(dim=1).argmax()] - values
    error = behind.std(dim=1, unbiased=False) / values.shape[1] ** 0.5
    return (behind.mean(dim=1) <= error).nonzero().flatten().tolist()


def choose_weights(
    members: Sequence[Member], sample: ValidationSample, *, exclude: Optional[sp.csr_array] = None
) -> Choice:
    """Chooses a team's weights from a coarse grid; equal weights are the plain form.

    A member is left out only where that is better by more than a standard error: a team of more
    members ranks as well, and teaches better.

    Args:
        members: At least one. A :class:`StandardisedRanker` with this ``exclude`` keeps the
            measurements made here.
        sample: See :func:`choose`.
        exclude: See :class:`StandardisedRanker`.

    Returns:
        The choice; its ``value`` is a dict of the weights by the members' names.

    Raises:
        ConfigError: Two members have the same name.
    """
    rankers, _ = in_order(members, [1.0] * len(members), exclude)
    names = [ranker.member.name for ranker in rankers]
    candidates = [_team_of(names, weights) for weights in weight_grid(len(names))]

    def blocks_of(user_ids: torch.Tensor, needed: set[int]) -> list[Optional[torch.Tensor]]:
        return [
            _known_block(ranker, user_ids) if place in needed else None
            for place, ranker in enumerate(rankers)
        ]

    what, device = "teacher_weights: auto", rankers[0].device
    return choose(blocks_of, candidates, sample, device=device, what=what, many_parts=True)


def _known_block(ranker: StandardisedRanker, user_ids: torch.Tensor) -> torch.Tensor:
    """z of users, -inf for users and items that the member does not know."""
    scores = ranker.block(user_ids)
    known = ranker.known_users()[user_ids][:, None] & ranker.known_items()
    return scores.masked_fill_(~known, -torch.inf)


def _team_of(names: Sequence[str], weights: tuple[float, ...]) -> Candidate:
    present = [f"{weight:.2g} {name}" for name, weight in zip(names, weights) if weight > 0]
    return Candidate(" + ".join(present), dict(zip(names, weights)), weights)


def weight_grid(n_members: int) -> list[tuple[float, ...]]:
    """Weights that sum to 1: equal ones first, then each member alone, then mixtures.

    Two members in steps of .1; up to five in steps of .2, and of .1 beside a single member; more
    of them in pairs of .5, .8 and .2.

    Example:
        >>> len(weight_grid(2)), len(weight_grid(3)), weight_grid(1)
        (11, 28, [(1.0,)])
    """
    plain = tuple([1 / n_members] * n_members)
    alone = _spread([(10,)], n_members)
    if n_members == 2:
        mixed = _simplex(n_members, 1)
    elif n_members <= _FINE_GRID:
        mixed = [*_simplex(n_members, 2), *_spread([(9, 1)], n_members)]
    else:
        mixed = _spread([(5, 5), (8, 2)], n_members)
    tenths = [tuple(part / 10 for part in point) for point in (*alone, *mixed)]
    return list(dict.fromkeys([plain, *tenths]))


def _simplex(n_members: int, step: int) -> list[tuple[int, ...]]:
    """All weights in tenths that are multiples of ``step`` and sum to 10."""
    steps = itertools.product(range(0, 11, step), repeat=n_members)
    return [point for point in steps if sum(point) == 10]


def _spread(shares: Sequence[tuple[int, ...]], n_members: int) -> list[tuple[int, ...]]:
    """Gives each share to every ordered choice of members, and nothing to the others."""
    points = []
    for share in shares:
        for places in itertools.permutations(range(n_members), len(share)):
            given = dict(zip(places, share))
            points.append(tuple(given.get(place, 0) for place in range(n_members)))
    return points


def choose_filter(
    ranker: Ranker,
    mixtures: Mapping[Any, Mixture],
    sample: ValidationSample,
    *,
    alphas: Sequence[float] = ALPHAS,
    plain: bool = True,
) -> Choice:
    """Chooses a teacher's filter; the plain form is no filter.

    Args:
        ranker: The teacher or team.
        mixtures: By key, e.g. the side, the mixture that filters its scores: see
            :func:`recbole_freqd.teacher.filter.filter_mixture`.
        sample: See :func:`choose`.
        alphas: The α to try, each in (0, 1].
        plain: Whether it may stay unfiltered; if not, the first key with the first α is plain.

    Returns:
        The choice; its ``value`` is (key, α), or None for the plain form.
    """
    keys, size = list(mixtures), 1 + 2 * len(mixtures)
    candidates = [Candidate("unfiltered", None, _at({0: 1.0}, size))] if plain else []
    for place, key in enumerate(keys):
        for alpha in alphas:
            parts = {1 + 2 * place: 1 - alpha, 2 + 2 * place: alpha}
            candidates.append(Candidate(f"{key} {alpha:g}", (key, alpha), _at(parts, size)))

    def blocks_of(user_ids: torch.Tensor, needed: set[int]) -> list[Optional[torch.Tensor]]:
        scores = ranker.block(user_ids)
        blocks: list[Optional[torch.Tensor]] = [scores]
        for place, key in enumerate(keys):
            wanted = needed & {1 + 2 * place, 2 + 2 * place}
            blocks += mixtures[key](user_ids, scores) if wanted else (None, None)
        return blocks

    what = "teacher_filter: auto" if plain else "teacher_filter_side: auto"
    return choose(blocks_of, candidates, sample, device=ranker.device, what=what)


def _at(parts: dict[int, float], size: int) -> tuple[float, ...]:
    return tuple(parts.get(place, 0.0) for place in range(size))
