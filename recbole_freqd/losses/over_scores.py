"""What losses over whole lists of a user's items share: when lists are drawn, and stable sums."""

from typing import Optional, Union

import scipy.sparse as sp
import torch

from recbole_freqd.core.rankers import BUDGET_BYTES, Ranker, RowsRanker, top_items
from recbole_freqd.core.rows import FeatureRows, Features, as_rows
from recbole_freqd.losses.base import DistillationLoss


class ListwiseLoss(DistillationLoss):
    """Base of the losses that are a mean, over the distinct users of a batch, of what lists say.

    Lists that depend on an epoch are made by ``refresh`` at its start; by hand, without a ranker
    given to ``start_epoch``, at the first batch after it, from the student features of that batch.
    """

    reads_scores = True

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        self._epoch, self._stale = 0, True
        self.prepare()

    def prepare(self) -> None:
        """Makes what is made once: the teacher's lists."""
        raise NotImplementedError

    def refresh(self, student: Ranker) -> None:
        """Makes what is made per epoch, from the student as it ranks now."""

    def of_users(self, student: FeatureRows, user_ids: torch.Tensor) -> torch.Tensor:
        """The loss of distinct users (b,), b > 0."""
        raise NotImplementedError

    def teacher_lists(self, k: int, *, mask_train: bool = True) -> tuple[torch.Tensor, ...]:
        """(n_users, k) int32 ids and float32 scores of the teacher's best, 0 and -inf for none."""
        exclude = self.user_items if mask_train else None
        found = top_items(
            self.teacher_scores,
            k,
            exclude=exclude,
            progress=self.progress,
            title="Teacher's lists",
        )
        return found.ids, found.scores

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        self._epoch, self._stale = epoch, student is None
        if student is not None:
            self.refresh(student)

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student, users = as_rows(student_features), user_ids.unique()
        if len(users) == 0:
            return student.of("user", users).sum() + student.of("item", users).sum()
        if self._stale:
            self.refresh(RowsRanker(student, self.teacher_scores.shape, users.device))
            self._stale = False
        return self.of_users(student, users)


def blocks_of_lists(n_users: int, length: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The ids of all users in blocks whose lists (b, length) fit a memory budget."""
    return torch.arange(n_users, device=device).split(max(1, BUDGET_BYTES // (64 * length)))


def negligible_score(scores: torch.Tensor) -> float:
    """A score next to which every other counts alone; finite, so that no gradient is inf - inf."""
    return torch.finfo(scores.dtype).min / 4


def masked_logsumexp(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(b,), log Σ exp over what is in the mask (b, k); hugely negative where that is nothing."""
    return scores.masked_fill(~mask, negligible_score(scores)).logsumexp(dim=1)


def relaxed_ranking(scores: torch.Tensor, mask: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """-log of the chance that a list is ranked in its order, and before all the rest.

    Σ_k [log(Σ_{l ≥ k} exp s_l + exp rest) - s_k], by a cumulative log-sum-exp: a value for scores
    of any size; at single-precision scores of 1e4 torch's gradient of it is good to 1e-3 of the
    largest one of the list, which goes up to k.

    Args:
        scores: (b, k), of the list, first to last.
        mask: (b, k) bool, what of the list there is.
        rest: (b,), the log-sum-exp of the scores of the rest, see :func:`masked_logsumexp`.

    Returns:
        (b,).
    """
    nothing = negligible_score(scores)
    # Shifted, so that differences to the largest score are exact in single precision.
    listed = scores.masked_fill(~mask, nothing)
    largest = torch.maximum(listed.max(dim=1).values, rest).detach()
    listed = (scores - largest[:, None]).masked_fill(~mask, nothing)
    onwards = listed.flip(1).logcumsumexp(dim=1).flip(1)
    terms = torch.logaddexp(onwards, (rest - largest)[:, None]) - listed
    return torch.where(mask, terms, 0.0).sum(dim=1)


def cross_entropy(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(b,), -Σ softmax(teacher) log softmax(student) over the mask (b, k); 0 of nothing."""
    nothing = negligible_score(student)
    chances = teacher.to(student.dtype).masked_fill(~mask, nothing).softmax(dim=1)
    logs = student.masked_fill(~mask, nothing).log_softmax(dim=1)
    return -torch.where(mask, chances * logs, 0.0).sum(dim=1)


def masked_mean(values: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """The mean of values (b,) over those that are there, (b,) bool; 0 of none, without a wait."""
    return torch.where(there, values, 0.0).sum() / there.sum().clamp(min=1)


def is_in(items: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(b, k) bool, which items (b, k) are among others (b, l) of their row; 0 is in none."""
    ordered = others.long().sort(dim=1).values
    items = items.long()
    place = torch.searchsorted(ordered, items).clamp(max=ordered.shape[1] - 1)
    return (ordered.gather(1, place) == items) & (items > 0)


class RowwiseResponseLoss(DistillationLoss):
    """The mean over the rows (interactions) of a batch of a loss ℓ(u) of the row's user.

    A user with more rows weighs more, as in the base loss; it is computed once. The items of the
    batch are not read. The public code sums over rows, base loss and this one alike, so that its
    weight λ is the β of two means.

    A subclass gives :meth:`of_users`, and for lists of the student :meth:`refresh`.
    """

    reads_scores = True
    counts_rows = True

    def refresh(self, student: Ranker) -> None:
        """Makes what depends on the student's whole lists, at the start of an epoch."""

    def follows_student(self) -> bool:
        """Whether :meth:`refresh` makes anything."""
        return self.options.get("guide") == "student"

    def of_users(self, student: FeatureRows, user_ids: torch.Tensor) -> torch.Tensor:
        """(b,), the losses of distinct users (b,), b > 0; 0 for one with nothing to learn from."""
        raise NotImplementedError

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        """Without a student, its lists are made from the features of the next batch."""
        self._epoch, self._is_fresh = epoch, False
        if self.follows_student() and student is not None:
            self.refresh(student)
            self._is_fresh = True

    _epoch = 0
    _is_fresh = False

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
        if self.follows_student() and not self._is_fresh:
            self.refresh(RowsRanker(student, self.teacher_scores.shape, user_ids.device))
            self._is_fresh = True
        distinct, rows = torch.unique(user_ids, return_counts=True)
        losses = self.of_users(student, distinct)
        return (losses * rows).sum() / len(user_ids)
