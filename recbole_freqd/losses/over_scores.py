"""The base of losses over whole lists of items: when to draw lists, and stable sums."""

from typing import Optional, Union

import torch

from recbole_freqd.core.rankers import BUDGET_BYTES, Ranker, RowsRanker, TopItems
from recbole_freqd.core.rows import FeatureRows, Features, as_rows
from recbole_freqd.losses.base import DistillationLoss
from recbole_freqd.losses.draws import some_of


class ScoreLoss(DistillationLoss):
    """Base of the losses that compare scores: a mean, over the users of a batch, of ℓ(u).

    It computes every distinct user once. A user weighs 1 or, with ``counts_rows``, its number of
    rows in the batch, as in the base loss. The mean may leave out users with nothing to learn from.
    The loss does not read the items of the batch. A method with the option ``step_users`` computes
    at most that many users of a batch, drawn anew in every step: the expected mean stays the same.

    A subclass implements :meth:`of_users` and, for lists of the student, :meth:`refresh`. The start
    of an epoch calls :meth:`refresh`. If you call ``start_epoch`` by hand without a ranker, the
    next batch calls it, on its own student features.
    """

    reads_scores = True
    _epoch = 0
    _is_stale = True
    _made: Optional[TopItems] = None

    def refresh(self, student: Ranker) -> None:
        """Makes everything that depends on the student's whole lists, as it ranks now."""

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        """The losses (b,) of distinct users (b,), b > 0, and who counts, (b,) bool; None: all."""
        raise NotImplementedError

    def teacher_lists(self, k: int, *, mask_train: bool = True) -> tuple[torch.Tensor, ...]:
        """(n_users, k) int32 ids and float32 scores of the teacher's best; empty: 0 and -inf."""
        exclude = self.user_items if mask_train else None
        found = self.lists.top_items(
            self.teacher_scores,
            max(k, self.lists.least),
            exclude=exclude,
            stand_ins=self.stand_ins(self.teacher_scores),
            progress=self.progress,
            title="Teacher's lists",
        )
        if mask_train and self.lists.least:
            self._made = found
        return found.ids[:, :k].clone(), found.scores[:, :k].clone()

    def take_lists(self) -> Optional[TopItems]:
        made, self._made = self._made, None
        return made

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        self._epoch, self._is_stale = epoch, student is None
        if student is not None:
            self.refresh(student)

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student = as_rows(student_features)
        if len(user_ids) == 0:  # zero, and the features have a gradient of zero
            return student.scores(user_ids, user_ids[:, None]).sum()
        if self._is_stale:
            self.refresh(RowsRanker(student, self.teacher_scores.shape, user_ids.device))
            self._is_stale = False
        users, rows = torch.unique(user_ids, return_counts=True)
        drawn = some_of(users, self.options.get("step_users"), self.stream)
        users, rows = users[drawn], rows[drawn]
        losses, counted = self.of_users(student, users)
        weights = rows if self.counts_rows else torch.ones_like(rows)
        return weighted_mean(losses, weights if counted is None else weights * counted)


def blocks_of_lists(n_users: int, length: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The ids of all users, in blocks with lists (b, length) that fit a memory budget."""
    return torch.arange(n_users, device=device).split(max(1, BUDGET_BYTES // (64 * length)))


def negligible_score(scores: torch.Tensor) -> float:
    """A score that counts nothing beside any other; finite, so that no gradient is inf - inf."""
    return torch.finfo(scores.dtype).min / 4


def masked_logsumexp(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(b,), log Σ exp over the places in the mask (b, k); hugely negative for an empty mask."""
    return scores.masked_fill(~mask, negligible_score(scores)).logsumexp(dim=1)


def relaxed_ranking(scores: torch.Tensor, mask: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """-log of the chance of ranking a list in its order, and before all the rest.

    Σ_k [log(Σ_{l ≥ k} exp s_l + exp rest) - s_k], by a cumulative log-sum-exp. It has a value for
    scores of any size. At single-precision scores of 1e4 torch's gradient of it is good to 1e-3 of
    the list's largest gradient, which goes up to k.

    Args:
        scores: (b, k), of the list, first to last.
        mask: (b, k) bool, the filled places of the list.
        rest: (b,), the log-sum-exp of the scores of the rest, see :func:`masked_logsumexp`.

    Returns:
        (b,).
    """
    nothing = negligible_score(scores)
    # Shift, so that differences to the largest score are exact in single precision.
    listed = scores.masked_fill(~mask, nothing)
    largest = torch.maximum(listed.max(dim=1).values, rest).detach()
    listed = (scores - largest[:, None]).masked_fill(~mask, nothing)
    onwards = listed.flip(1).logcumsumexp(dim=1).flip(1)
    terms = torch.logaddexp(onwards, (rest - largest)[:, None]) - listed
    return torch.where(mask, terms, 0.0).sum(dim=1)


def softmax_over(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(b, k), the softmax over the places in the mask (b, k); 0 elsewhere.

    Example:
        >>> mask = torch.tensor([[True, True, False], [False, False, False]])
        >>> softmax_over(torch.zeros(2, 3), mask).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    chances = scores.masked_fill(~mask, negligible_score(scores)).softmax(dim=1)
    return chances.masked_fill(~mask, 0.0)


def cross_entropy(student: torch.Tensor, chances: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(b,), -Σ chances · log softmax(student) over the mask (b, k); 0 for an empty mask.

    Args:
        student: (b, k), scores.
        chances: (b, k), of the teacher, see :func:`softmax_over`.
        mask: (b, k) bool.

    Example:
        >>> scores, mask = torch.zeros(1, 3), torch.tensor([[True, True, False]])
        >>> round(cross_entropy(scores, softmax_over(scores, mask), mask).exp().item(), 3)
        2.0
    """
    logs = student.masked_fill(~mask, negligible_score(student)).log_softmax(dim=1)
    return -(chances.to(student.dtype) * logs).sum(dim=1)


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean of values (b,) with integer weights (b,); weight 0 drops a value; 0 without any.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 5.0, 9.0]), torch.tensor([1, 1, 0])).item()
        3.0
    """
    return torch.where(weights > 0, values * weights, 0.0).sum() / weights.sum().clamp(min=1)


def is_in(items: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(b, k) bool, which items (b, k) are among others (b, l) of their row; item 0 never is.

    Example:
        >>> is_in(torch.tensor([[1, 2, 0]]), torch.tensor([[2, 0]])).tolist()
        [[False, True, False]]
    """
    ordered = others.long().sort(dim=1).values
    items = items.long()
    place = torch.searchsorted(ordered, items).clamp(max=ordered.shape[1] - 1)
    return (ordered.gather(1, place) == items) & (items > 0)
