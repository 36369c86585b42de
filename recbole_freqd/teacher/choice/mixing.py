"""Measures weighted sums of blocks of scores, many of the same blocks, on validation users."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
import torch

from recbole_freqd.core import rankers as catalogue
from recbole_freqd.teacher.choice.sampled import Measure, ValidationSample

_NARROW = 200  # items of each block that a mixture is first measured on
_OWN_COPIES = 6  # arrays of the size of the scores beside the blocks: the mixture, masks, top lists

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

    @property
    def n_parts(self) -> int:
        """How many blocks it mixes."""
        return sum(coefficient != 0 for coefficient in self.coefficients)


@dataclass(frozen=True)
class Scoring:
    """A metric of users.

    Attributes:
        blocks_of: Gives the blocks that candidates mix.
        sample: The metric.
        device: Of the blocks.
    """

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
