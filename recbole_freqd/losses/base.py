"""The base of every distillation loss: a module with options checked against ``properties/``."""

from collections.abc import Sequence
from typing import Any, Callable, ClassVar, Optional, TypedDict, Union

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recbole_freqd.core.errors import ConfigError, FreqDError, TeacherError
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import FeatureRanker, Ranker, TopItems
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import FeatureRows, Features
from recbole_freqd.core.schema import resolve
from recbole_freqd.graph.cooccurrence import SIDES


def call_locally(work: Callable[[], Any]) -> Any:
    """Runs ``work`` in this process."""
    return work()


LossData = tuple[sp.csr_array, tuple[int, int], Features]
"""Interactions, widths of the student's features, and the teacher's features."""


class SharedOptions(TypedDict, total=False):
    """The keywords of every loss, see :class:`DistillationLoss`; a method adds its own.

    Names and types only, for editors and type checkers. ``properties/trainer/`` has defaults and
    ranges; a test compares the types with these.
    """

    teacher_scores: Optional[Ranker]
    teacher_trajectory: Sequence[Callable[[], Ranker]]
    epochs: Optional[int]
    progress: bool
    seed: int
    make_once: Callable[[Callable[[], Any]], Any]
    lists: Optional[ListMaker]


class DistillationLoss(nn.Module):
    """Base of the losses that a trainer can add to a student's own loss.

    A subclass names its ``method`` (the name in ``trainer:``, and of ``properties/trainer/*.yaml``)
    and its key ``prefix``, builds what it needs in ``build`` and computes in ``forward``.

    Args:
        user_items: (n_users, n_items) sparse, the training interactions.
        student_dims: Widths of the student's user and item features.
        teacher_features: The teacher's user features (n_users, d) and item features (n_items, d').
        teacher_scores: The teacher's ranker, for losses that read scores; None: the dot products
            of its features.
        teacher_trajectory: Makers of the rankers of earlier teachers, earliest first, for losses
            that follow its training. Reading one makes it.
        epochs: The most epochs of the training, for losses that plan over it; None: unknown.
        progress: Whether passes over all users show a bar.
        seed: Of the loss's own random stream (initial projectors, dropout, masks).
        make_once: Runs work in one of several processes of a machine that share it; returns its
            tensors in all of them. Default: :func:`call_locally`.
        lists: Makes lists of items, exact or from an index; None: exact ones.
        **options: The keys of the method without prefix. ``properties/`` has the defaults.

        Raises:
            ConfigError: An option is unknown, or its value is not allowed.
            TeacherError: The teacher's rows are not the users and items of ``user_items``.

    Attributes:
        reads_scores: Whether the loss reads the teacher's scores, not its features.
        reads_trajectory: Whether it also reads earlier checkpoints of the teacher.
        scales_teacher: Whether a single teacher that is not trained by gradient has its scores
            scaled to the spread ``teacher_spread`` first.
        counts_rows: Whether a user counts once per row of the batch, not once.
        user_items: The training interactions.
        teacher_scores, teacher_trajectory, epochs: See above.
        known_items: (n_items,) bool, if the loss reads scores: the items that the teacher can
            score. Lists and draws hold no others.
        stream: The loss's own random stream.
    """

    method: ClassVar[str]
    prefix: ClassVar[str]
    reads_scores: ClassVar[bool] = False
    reads_trajectory: ClassVar[bool] = False
    scales_teacher: ClassVar[bool] = False
    counts_rows: ClassVar[bool] = False
    teacher_user_emb: torch.Tensor
    teacher_item_emb: torch.Tensor
    known_items: torch.Tensor

    def __init__(
        self,
        user_items: sp.csr_array,
        student_dims: tuple[int, int],
        teacher_features: Features,
        *,
        teacher_scores: Optional[Ranker] = None,
        teacher_trajectory: Sequence[Callable[[], Ranker]] = (),
        epochs: Optional[int] = None,
        progress: bool = False,
        seed: int = 0,
        make_once: Callable[[Callable[[], Any]], Any] = call_locally,
        lists: Optional[ListMaker] = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.check_options(options)
        reads_features = not self.reads_scores or teacher_scores is None
        for side, features in zip(SIDES, teacher_features if reads_features else ()):
            check_table(f"The teacher's {side} features", features, TeacherError)
        rows = tuple(map(len, teacher_features)) if reads_features else teacher_scores.shape  # type: ignore[union-attr]
        if rows != tuple(user_items.shape):
            raise TeacherError(
                f"The teacher has {rows[0]} user rows and {rows[1]} item rows, but the student's "
                f"data has {user_items.shape[0]} users and {user_items.shape[1]} items. "
                "Distil from a teacher trained on the same data."
            )
        if self.reads_scores and rows[1] < 3:
            raise ConfigError(
                f"{self.method} teaches the order of items and needs at least two; the data has "
                f"{rows[1] - 1}."
            )
        self.options = resolve(self.method, self.prefix, options)
        self.stream, self.user_items = RandomStream(seed), user_items
        self.progress, self.epochs, self.make_once = progress, epochs, make_once
        self.teacher_trajectory, self.lists = teacher_trajectory, lists or ListMaker()
        self._teacher_features = teacher_features
        if reads_features:
            self.keep(
                teacher_user_emb=teacher_features[0].detach().contiguous(),
                teacher_item_emb=teacher_features[1].detach().contiguous(),
            )
        self._scores_are_features = teacher_scores is None
        self.teacher_scores = teacher_scores or self._feature_scores()
        if self.reads_scores:
            self.keep(known_items=self.teacher_scores.known_items())
        self.student_dims = student_dims
        self.build(user_items, student_dims)

    def keep(self, **tensors: torch.Tensor) -> None:
        """Keeps tensors that move with the module but are not part of its state.

        The state holds what a loss learns. The teacher has its own file, and lists are made again.
        """
        for name, values in tensors.items():
            self.register_buffer(name, values, persistent=False)

    def stand_ins(self, ranker: Ranker) -> Optional[Features]:
        """Features that find candidates for a ranker whose scores are not products of features."""
        if ranker is not self.teacher_scores:
            return None
        return self._teacher_features

    def _feature_scores(self) -> Ranker:
        return FeatureRanker(self.teacher_user_emb, self.teacher_item_emb)

    def _apply(self, *args: Any, **kwargs: Any) -> "DistillationLoss":
        """Moves the module, and with the teacher's features the scores that are their products."""
        super()._apply(*args, **kwargs)
        if self._scores_are_features:
            self.teacher_scores = self._feature_scores()
        return self

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """Raises ConfigError if *given* options contradict each other."""

    def __call__(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """Checks its arguments without waiting for the accelerator, then calls :meth:`forward`.

        Raises:
            ConfigError: Features are not float tables of the right shape, or ids are not an int64
                vector. On the CPU also: ids are not rows of the tables.
        """
        n_rows, given = self.user_items.shape, student_features
        tables = given.tables if isinstance(given, FeatureRows) else given
        for side, table, n, width in zip(SIDES, tables or (), n_rows, self.student_dims):
            if table.shape != (n, width):
                raise ConfigError(
                    f"The student's {side} features have the shape {tuple(table.shape)}; allowed: "
                    f"{(n, width)}, the shape that the loss was made for."
                )
        check_ids("user_ids", user_ids, n_rows[0])
        check_ids("positive_item_ids", positive_item_ids, n_rows[1])
        if negative_item_ids is not None:
            check_ids("negative_item_ids", negative_item_ids, n_rows[1])
        return super().__call__(student_features, user_ids, positive_item_ids, negative_item_ids)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        """Makes graphs, projectors and lists: everything that depends on data and widths."""
        raise NotImplementedError

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        """Starts an epoch: draws what the loss draws per epoch.

        Args:
            epoch: Counted from 0.
            student: The student as it ranks now, for losses that read its whole lists.
        """

    def take_lists(self) -> Optional[TopItems]:
        """Hands on the teacher's lists without training items, if the loss has made some."""
        return None

    def epoch_state(self) -> dict[str, torch.Tensor]:
        """Draws of earlier epochs that later epochs use; most losses have none."""
        return {}

    def load_epoch_state(self, state: dict[str, torch.Tensor]) -> None:
        """Puts :meth:`epoch_state` back."""

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
            negative_item_ids: (b',) int64, or None if the batch has no negatives: then the
                positives are simply *the* items and count with weight 1.

        Returns:
            A scalar.
        """
        raise NotImplementedError

    def relative_band_losses(self, student: Features) -> dict[str, np.ndarray]:
        """By side, the share of each frequency band not learnt yet; empty unless asked for.

        Args:
            student: All its features, (n_users, d) and (n_items, d').
        """
        return {}


def check_table(name: str, table: torch.Tensor, error: type[FreqDError]) -> None:
    """Raises ``error`` unless it is a dense matrix of floats."""
    good = isinstance(table, torch.Tensor) and table.layout == torch.strided
    if not (good and table.dim() == 2 and table.is_floating_point() and table.shape[1] > 0):
        what = f"{table.dtype} {tuple(table.shape)}" if good else type(table).__name__
        raise error(
            f"{name} are {what}; allowed: a dense floating-point tensor with one row for each "
            "(.float() converts integers)."
        )


def check_ids(name: str, ids: torch.Tensor, n: int) -> None:
    """Raises ConfigError unless ids are a vector of int64 and, on the CPU, from 0 to n - 1."""
    if not isinstance(ids, torch.Tensor) or ids.dtype != torch.int64 or ids.dim() != 1:
        good = isinstance(ids, torch.Tensor)
        what = f"{ids.dtype} {tuple(ids.shape)}" if good else type(ids).__name__
        raise ConfigError(f"{name} are {what}; allowed: a vector of int64 (.long()).")
    if len(ids) and ids.device.type == "cpu":
        low, high = map(int, ids.aminmax())
        if low < 0 or high >= n:
            raise ConfigError(
                f"{name} run from {low} to {high}; allowed: 0 to {n - 1}, the rows of the features."
            )
