"""Sets a student's weights so that its features become given ones; see ``warm_start``."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import nn
from torch.nn import functional as F

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import user_blocks
from recbole_freqd.core.rows import FeatureRows

TABLES, PROPAGATED = "tables", "propagated"
EPSILON = 1e-8  # beside the eigenvalues of PᵀP, of which the largest is near 1
MOST_STEPS = 200
_TOLERANCE = 1e-6  # of the gradient, of where it began
_PROBE = 1e-3  # how far P(2x) may be from 2 P(x)


@dataclass(frozen=True)
class Target:
    """The features that a student is to have.

    Attributes:
        user_emb, item_emb: (n_users, r) and (n_items, r), r at most the width of its features: the
            columns beyond keep the student's own initial values.
        user_mask, item_mask: (n_users,) and (n_items,) bool: the other rows keep theirs.
        user_bias, item_bias: (n_users,) and (n_items,), or None, for students that have some.
    """

    user_emb: torch.Tensor
    item_emb: torch.Tensor
    user_mask: torch.Tensor
    item_mask: torch.Tensor
    user_bias: Optional[torch.Tensor] = None
    item_bias: Optional[torch.Tensor] = None


def fill_rows(table: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> None:
    """Writes values (n, r) into the first r columns of the masked rows of a table (n, d)."""
    with torch.no_grad():
        kept = table[:, : values.shape[1]]
        kept.copy_(torch.where(mask[:, None], values.to(table), kept))


def fill_bias(bias: torch.Tensor, values: Optional[torch.Tensor], mask: torch.Tensor) -> None:
    """Writes values (n,) into the masked places of a bias, if there are any."""
    if values is not None:
        with torch.no_grad():
            bias.copy_(torch.where(mask, values.to(bias), bias))


def with_rows(table: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A copy of a table with :func:`fill_rows` done to it."""
    made = table.detach().clone()
    fill_rows(made, values, mask)
    return made


class Propagation:
    """P, as a model applies it: from tables that are weights to features, both linear.

    The model's own code is P: weights are put into the model and its features are read; Pᵀ is the
    gradient, which of a linear function is the same at all weights. Rows of the weights that are
    not free, and of features that are not aimed at, are taken out on both sides.

    Args:
        model: The student; its weights are changed, and are for the caller to set in the end.
        rows: Reads its features, differentiably.
        weights: The tables that are free.
        free: (n,) bool of each, the rows that may move.
        aimed: (n_users,) and (n_items,) bool, the features that are aimed at; None: that side is
            none of P's.

    Raises:
        ConfigError: The features are no linear function of these weights.
    """

    def __init__(
        self,
        model: Any,
        rows: Callable[[], FeatureRows],
        weights: list[torch.Tensor],
        free: list[torch.Tensor],
        aimed: tuple[Optional[torch.Tensor], Optional[torch.Tensor]],
    ) -> None:
        self.model, self.rows, self.weights = model, rows, weights
        self._free = [mask[:, None] for mask in free]
        self._aimed = [(side, mask) for side, mask in enumerate(aimed) if mask is not None]

    def features(self) -> list[torch.Tensor]:
        """The features aimed at, as the weights in the model now make them."""
        with torch.no_grad():
            rows = self.rows()
            return [self._whole(rows, side) * mask[:, None] for side, mask in self._aimed]

    def of(self, moves: list[torch.Tensor]) -> list[torch.Tensor]:
        """P x for x (n, d), a table for each of the weights."""
        for weight, move, free in zip(self.weights, moves, self._free):
            weight.detach().copy_(move * free)
        return self.features()

    def transposed(self, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        """Pᵀ y for y, a table for each side that is aimed at."""
        total = [torch.zeros_like(weight) for weight in self.weights]
        with torch.enable_grad():
            rows = self.rows()
            for values, wanted in self._pieces(rows, gradients):
                # Blocks may share what the model computes once for all rows.
                found = torch.autograd.grad(
                    values, self.weights, wanted, retain_graph=True, allow_unused=True
                )
                for kept, part in zip(total, found):
                    if part is not None:
                        kept += part
        return [part * free for part, free in zip(total, self._free)]

    def check(self) -> None:
        """Raises ConfigError unless P(0) = 0 and P(2x) = 2 P(x) for the weights there are."""
        before = [weight.detach().clone() for weight in self.weights]
        once, twice, none = (
            self.of([factor * weight for weight in before]) for factor in (1.0, 2.0, 0.0)
        )
        for weight, kept in zip(self.weights, before):
            weight.detach().copy_(kept)
        wrong = sum(
            float((2 * one - two).abs().sum() + zero.abs().sum())
            for one, two, zero in zip(once, twice, none)
        )
        if not wrong <= _PROBE * sum(float(a.abs().sum()) for a in once):
            raise ConfigError(
                f"{type(self.model).__name__} cannot start warm: its features are no linear "
                "function of its embedding tables. Set warm_start: none."
            )

    def _pieces(
        self, rows: FeatureRows, gradients: list[torch.Tensor]
    ) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
        """Features and their gradients: whole tables, or block by block."""
        masked = [part * mask[:, None] for part, (_, mask) in zip(gradients, self._aimed)]
        if rows.tables is not None:
            yield [rows.tables[side] for side, _ in self._aimed], masked
            return
        for (side, mask), gradient in zip(self._aimed, masked):
            for ids in self._blocks(len(mask)):
                yield [(rows.user, rows.item)[side](ids)], [gradient[ids]]

    def _whole(self, rows: FeatureRows, side: int) -> torch.Tensor:
        if rows.tables is not None:
            return rows.tables[side]
        n_rows = (self.model.n_users, self.model.n_items)[side]
        return torch.cat([(rows.user, rows.item)[side](ids) for ids in self._blocks(n_rows)])

    def _blocks(self, n_rows: int) -> Iterator[torch.Tensor]:
        widest = max(self.model.n_users, self.model.n_items)
        return user_blocks(n_rows, widest, self.model.device)


def solve(
    operator: Propagation,
    wanted: list[torch.Tensor],
    *,
    epsilon: float = EPSILON,
    most_steps: int = MOST_STEPS,
) -> int:
    """Moves the weights of a model so that its features come near to wanted ones.

    The least move δ from the weights E₀ there are, min ‖P(E₀ + δ) - E*‖² + ε ‖δ‖², so that what P
    cannot see of the weights stays as it was: (PᵀP + εI) δ = Pᵀ(E* - P E₀), by conjugate gradients
    on the normal equations (CGLS), which never forms PᵀP.

    Args:
        operator: P; its model holds E₀, and E₀ + δ in the end.
        wanted: E*, a table for each side that is aimed at, (n, r), zeros in rows that are not; r at
            most the width of the features, whose other columns are not aimed at.
        epsilon: ε > 0.
        most_steps: The cap on the steps.

    Returns:
        The number of steps; below the cap the gradient is at most 1e-6 of what it was at first.

    Source: Björck, "Numerical Methods for Least Squares Problems", SIAM 1996, algorithm 7.4.1.
    """
    before = [weight.detach().clone() for weight in operator.weights]
    widths = [want.shape[1] for want in wanted]
    left = [
        _padded(want.to(now) - now[:, : want.shape[1]], now.shape[1])
        for want, now in zip(wanted, operator.features())
    ]
    moved = [torch.zeros_like(weight) for weight in before]
    slope = operator.transposed(left)
    direction, size, steps = slope, _square(slope), 0
    least = _TOLERANCE**2 * size
    while steps < most_steps and size > least:
        steps += 1
        made = [_padded(p[:, :r], p.shape[1]) for p, r in zip(operator.of(direction), widths)]
        pace = size / (_square(made) + epsilon * _square(direction))
        moved = [whole + pace * part for whole, part in zip(moved, direction)]
        left = [whole - pace * part for whole, part in zip(left, made)]
        slope = [s - epsilon * m for s, m in zip(operator.transposed(left), moved)]
        now = _square(slope)
        direction = [s + now / size * d for s, d in zip(slope, direction)]
        size = now
    for weight, was, move in zip(operator.weights, before, moved):
        weight.detach().copy_(was + move)
    return steps


def _padded(values: torch.Tensor, width: int) -> torch.Tensor:
    return F.pad(values, (0, width - values.shape[1]))


def _square(parts: list[torch.Tensor]) -> float:
    """Σ of squares over all tables."""
    return sum(float(part.double().square().sum()) for part in parts)


def start_propagated(
    model: Any,
    rows: Callable[[], FeatureRows],
    target: Target,
) -> int:
    """Sets the two tables of a model whose features are linear in them; returns the steps taken.

    Raises:
        ConfigError: It has no such tables, or its features are not linear in them.
    """
    masks = target.user_mask, target.item_mask
    operator = Propagation(model, rows, tables_of(model), list(masks), masks)
    operator.check()
    return solve(operator, [target.user_emb, target.item_emb])


def tables_of(model: Any) -> list[torch.Tensor]:
    """The two tables that RecBole's models have by convention, (n_users, d) and (n_items, d').

    Raises:
        ConfigError: It has none.
    """
    tables = []
    for name, count in (("user_embedding", "n_users"), ("item_embedding", "n_items")):
        table = getattr(model, name, None)
        if not isinstance(table, nn.Embedding) or table.num_embeddings != getattr(model, count):
            raise ConfigError(
                f"{type(model).__name__} cannot start warm: it has no table {name} of {count} "
                "rows. Set warm_start: none."
            )
        tables.append(table.weight)
    return tables
