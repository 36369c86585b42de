"""What every distillation loss is: a module with options checked against ``properties/``."""

from typing import Any, ClassVar, Optional, Union

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recbole_freqd.catalogue import FeatureRanker, Ranker
from recbole_freqd.errors import TeacherError
from recbole_freqd.registry import Registry
from recbole_freqd.rng import RandomStream
from recbole_freqd.rows import FeatureRows, Features
from recbole_freqd.settings import resolve


class DistillationLoss(nn.Module):
    """Base of the losses that a trainer can add to a student's own loss.

    A subclass names its ``method`` (the name in ``trainer:``, and of ``properties/trainer/*.yaml``)
    and its key ``prefix``, builds what it needs in ``build`` and computes in ``forward``.

    Args:
        user_items: (n_users, n_items) sparse, the training interactions.
        student_dims: Widths of the student's user and item features.
        teacher_features: The teacher's user features (n_users, d) and item features (n_items, d').
        teacher_scores: What the teacher ranks by, for losses that read scores; None: the dot
            products of its features.
        seed: Of the loss's own random stream (initial projectors, dropout, masks).
        **options: The keys of the method without prefix; what is not given is the default of
            ``properties/``.

    Raises:
        ConfigError: An unknown option or a value that is not allowed.
        TeacherError: The teacher's rows are not the users and items of ``user_items``.

    Attributes:
        reads_scores: Whether the loss is made of the teacher's scores and not of its features.
        user_items: The training interactions.
        teacher_scores: See above.
        stream: The loss's own random stream.
    """

    method: ClassVar[str]
    prefix: ClassVar[str]
    reads_scores: ClassVar[bool] = False
    teacher_user_emb: torch.Tensor
    teacher_item_emb: torch.Tensor

    def __init__(
        self,
        user_items: sp.csr_array,
        student_dims: tuple[int, int],
        teacher_features: Features,
        *,
        teacher_scores: Optional[Ranker] = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.check_options(options)
        rows = tuple(len(features) for features in teacher_features)
        if rows != tuple(user_items.shape):
            raise TeacherError(
                f"The teacher has {rows[0]} user rows and {rows[1]} item rows, the student's data "
                f"{user_items.shape[0]} users and {user_items.shape[1]} items. "
                "Distil from a teacher trained on the same data."
            )
        self.options = resolve(self.method, self.prefix, options)
        self.stream, self.user_items = RandomStream(seed), user_items
        self.teacher_scores = teacher_scores or FeatureRanker(*teacher_features)
        for name, features in zip(("teacher_user_emb", "teacher_item_emb"), teacher_features):
            # Not persistent: a loss's state is what it learns, the teacher has its own file.
            self.register_buffer(name, features.detach(), persistent=False)
        self.build(user_items, student_dims)

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """Raises ConfigError where options that were *given* contradict each other."""

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        """Makes graphs, projectors, lists: all that depends on data and widths."""
        raise NotImplementedError

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        """Told at the start of every epoch; what is drawn per epoch changes.

        Args:
            epoch: Counted from 0.
            student: The student as it ranks now, for losses that look at its whole lists.
        """

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """The loss of one batch.

        Args:
            student_features: User features (n_users, d) and item features (n_items, d'), with grad;
                or :class:`FeatureRows`, which compute only the rows that a step reads.
            user_ids: (b,) int64, repeats allowed.
            positive_item_ids: (b,) int64, repeats allowed; may be empty.
            negative_item_ids: (b',) int64, or None where the batch knows no such thing: then the
                positives are simply *the* items and count with weight 1.

        Returns:
            A scalar.
        """
        raise NotImplementedError

    def relative_band_losses(self, student: Features) -> dict[str, np.ndarray]:
        """By side, what of each band of frequencies is not learnt yet; empty where not asked for.

        Args:
            student: All its features, (n_users, d) and (n_items, d').
        """
        return {}


LOSSES: Registry[type[DistillationLoss]] = Registry("trainer")
"""Every distillation loss by the name it has in ``trainer:``."""
