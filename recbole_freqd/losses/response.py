"""What losses over the rows of a batch, made of scores and not of features, have in common."""

from typing import Optional, Union

import torch

from recbole_freqd.core.rankers import Ranker, RowsRanker
from recbole_freqd.core.rows import FeatureRows, Features, as_rows
from recbole_freqd.losses.base import DistillationLoss


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
