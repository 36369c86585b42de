"""``auto``: chooses weights, and side and α of the filter, on validation before any training."""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core import rankers as catalogue
from recbole_freqd.core.rankers import Ranker
from recbole_freqd.teacher.choice.sampled import Measure, ValidationSample
from recbole_freqd.teacher.filter import Mixture
from recbole_freqd.teacher.team.member import Member, StandardisedRanker, in_order

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_FINE_GRID = 5  # members; more of them than this are tried one by one, in pairs and all together
_NARROW = 200  # items of each block that a mixture is first measured on
_OWN_COPIES = 6  # arrays of the size of the scores beside the blocks: the mixture, masks, top lists

logger = logging.getLogger(__name__)

Blocks = Callable[[torch.Tensor, set[int]], list[Optional[torch.Tensor]]]
"""From users (b,) and places to blocks of scores (b, n_items), -inf where unknown. A block at any
other place may be None."""


@dataclass(frozen=True)
class Candidate:
    """One way to teach: a weighted sum of blocks of scores; unknown scores count as 0.

    Attributes:
        label: For tables and the log.
        value: The setting that it stands for: weights by name, or (key, α).
        coefficients: One per block, not all 0.
    """

    label: str
    value: Any
    coefficients: tuple[float, ...]


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
    score = _Scoring(blocks_of, sample, device)
    values = score.values(candidates, sample.users)
    means = values.mean(dim=1).tolist()
    near = _near_the_best(values) if many_parts else [int(np.argmax(means))]
    plain, best = (
        candidates[0],
        candidates[max(near, key=lambda at: (_parts(candidates[at]), means[at]))],
    )
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


def _parts(candidate: Candidate) -> int:
    """How many blocks a candidate mixes."""
    return sum(coefficient != 0 for coefficient in candidate.coefficients)


def _near_the_best(values: torch.Tensor) -> list[int]:
    """Rows of values (c, m) whose mean is within one standard error of the best row's."""
    behind = values[values.mean(dim=1).argmax()] - values
    error = behind.std(dim=1, unbiased=False) / values.shape[1] ** 0.5
    return (behind.mean(dim=1) <= error).nonzero().flatten().tolist()


@dataclass(frozen=True)
class _Scoring:
    """A metric of users; see :func:`choose`."""

    blocks_of: Blocks
    sample: ValidationSample
    device: Any

    def values(self, candidates: Sequence[Candidate], users: np.ndarray) -> torch.Tensor:
        """(c, m) float64, the metric of each candidate and user."""
        needed = {
            place
            for candidate in candidates
            for place, coefficient in enumerate(candidate.coefficients)
            if coefficient != 0
        }
        found = []
        for ids in self._user_blocks(users, len(needed)):
            measure = self.sample.measure(ids)
            blocks = [_filled(block, measure) for block in self.blocks_of(ids, needed)]
            values_of = _Narrowed(blocks, measure, needed).values
            found.append(torch.stack([values_of(candidate).cpu() for candidate in candidates]))
        return torch.cat(found, dim=1)

    def _user_blocks(self, users: np.ndarray, n_blocks: int) -> Iterator[torch.Tensor]:
        each = 4 * (n_blocks + _OWN_COPIES) * self.sample.wanted.shape[1]
        ids = torch.from_numpy(users).to(self.device, torch.int64)
        yield from ids.split(max(1, min(catalogue.BUDGET_BYTES // each, 1024)))


_Filled = Optional[tuple[torch.Tensor, Optional[torch.Tensor]]]


def _filled(block: Optional[torch.Tensor], measure: Measure) -> _Filled:
    """A block, -inf where nothing is ranked and else 0 for -inf, and a mask of the latter places.

    Without a mask only the padding had -inf. The block may be changed in place.
    """
    if block is None:
        return None
    unknown = block.isneginf()
    if not unknown[:, 1:].any():
        return measure.mask(block), None
    return measure.mask(block.masked_fill(unknown, 0.0)), unknown


class _Narrowed:
    """Measures mixtures on the best items of each block; where that may miss one, on all items.

    An item outside has at most t_p in block p, the worst of those inside. So no item outside is
    among a mixture's k best whose k-th inside is above Σ c_p t_p: the figures are exact.

    Args:
        blocks: Masked and filled, (b, n_items) each.
        measure: Of these users.
        needed: Places of the blocks that some candidate mixes.
    """

    def __init__(self, blocks: Sequence[_Filled], measure: Measure, needed: set[int]) -> None:
        self.blocks, self.measure, self.inside = blocks, measure, measure
        self.narrow: list[_Filled] = []
        own = [place for place in sorted(needed) if blocks[place] is not None]
        if measure.positives.shape[1] <= 2 * len(own) * _NARROW:
            return
        best = {place: blocks[place][0].topk(_NARROW, dim=1) for place in own}  # type: ignore[index]
        columns = torch.cat([found.indices for found in best.values()], dim=1).sort(dim=1).values
        self.least = {place: found.values[:, -1] for place, found in best.items()}
        again = torch.zeros_like(columns, dtype=torch.bool)
        again[:, 1:] = columns[:, 1:] == columns[:, :-1]
        self.narrow = [_columns_of(block, columns, again) for block in blocks]
        self.inside = measure.at(columns)

    def values(self, candidate: Candidate) -> torch.Tensor:
        """(b,) float64, the metric of a mixture."""
        if not self.narrow:
            return self.measure(_mixed(candidate, self.blocks))
        mixed = _mixed(candidate, self.narrow)
        values = self.inside(mixed)
        worst = mixed.topk(min(self.measure.length, mixed.shape[1]), dim=1).values[:, -1]
        bound = torch.zeros_like(worst)
        for place, coefficient in enumerate(candidate.coefficients):
            if coefficient != 0 and self.blocks[place] is not None:
                bound.add_(self.least[place], alpha=coefficient)
        open_rows = (~(worst > bound)).nonzero().flatten()
        if len(open_rows):
            blocks = [_rows_of(block, open_rows) for block in self.blocks]
            values[open_rows] = self.measure.of(open_rows)(_mixed(candidate, blocks))
        return values


def _columns_of(block: _Filled, columns: torch.Tensor, again: torch.Tensor) -> _Filled:
    """Some items of each user (b, w); what is there ``again`` is not ranked."""
    if block is None:
        return None
    scores, unknown = block
    picked = scores.gather(1, columns).masked_fill_(again, -torch.inf)
    return picked, None if unknown is None else unknown.gather(1, columns)


def _rows_of(block: _Filled, rows: torch.Tensor) -> _Filled:
    if block is None:
        return None
    scores, unknown = block
    return scores[rows], None if unknown is None else unknown[rows]


def _mixed(candidate: Candidate, blocks: Sequence[_Filled]) -> torch.Tensor:
    """(b, n_items), Σ c_p Y_p with 0 for what Y_p does not know; -inf if no block knows it."""
    parts = [
        (coefficient, *block)
        for coefficient, block in zip(candidate.coefficients, blocks)
        if coefficient != 0 and block is not None
    ]
    coefficient, scores, unknown = parts[0]
    total = scores * coefficient
    for coefficient, scores, missing in parts[1:]:
        total.add_(scores, alpha=coefficient)
        unknown = None if unknown is None or missing is None else unknown & missing
    return total if unknown is None else total.masked_fill_(unknown, -torch.inf)


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
