"""Finds a teacher's users and items among the student's, by token."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from recbole_freqd.core.errors import TeacherError
from recbole_freqd.core.rows import Features, empty_rows
from recbole_freqd.features.data import tokens

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alignment:
    """Where the student's users and items are among the teacher's.

    Attributes:
        rows: For users and for items (n,) int64, the teacher's id of each of the student's; 0 where
            the teacher does not know it, and for the padding.
        sizes: How many users and items the teacher has, padding included.
    """

    rows: tuple[np.ndarray, np.ndarray]
    sizes: tuple[int, int]

    @property
    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Masks (n_users,) and (n_items,) of what the teacher knows; the padding is not."""
        return self.rows[0] > 0, self.rows[1] > 0

    @property
    def is_complete(self) -> bool:
        """Whether the teacher knows all of the student's users and items."""
        return all(mask[1:].all() for mask in self.known)

    @property
    def is_in_order(self) -> bool:
        """Whether ids mean the same to both."""
        return all(
            size == len(rows) and np.array_equal(rows, np.arange(size))
            for rows, size in zip(self.rows, self.sizes)
        )

    def student_ids(self, side: int) -> np.ndarray:
        """(n,) int64, the student's id of each of the teacher's users (0) or items (1), or 0."""
        ids = np.zeros(self.sizes[side], dtype=np.int64)
        known = np.flatnonzero(self.rows[side])
        ids[self.rows[side][known]] = known
        return ids

    def remapped(self, features: Features, *, mapped: bool = False) -> Features:
        """A teacher's features as rows of the student's users and items; zeros where unknown.

        Args:
            features: In the teacher's order, (sizes[0], d) and (sizes[1], d'), of any precision.
            mapped: See :func:`recbole_freqd.core.rows.empty_rows`.
        """
        if self.is_in_order:
            return features
        user, item = (_selected(table, rows, mapped) for table, rows in zip(features, self.rows))
        return user, item


def _selected(table: torch.Tensor, rows: np.ndarray, mapped: bool) -> torch.Tensor:
    index = torch.from_numpy(rows).to(table.device)
    made = empty_rows(len(rows), table.shape[1], table.dtype, table.device, mapped=mapped)
    torch.index_select(table, 0, index, out=made)
    made[index == 0] = 0
    return made


def align(teacher: Any, student: Any) -> Alignment:
    """Finds the users and items of one RecBole dataset in another, by token."""
    return align_tokens(tokens(teacher), student)


def align_tokens(theirs: tuple[np.ndarray, np.ndarray], student: Any) -> Alignment:
    """The same of tokens by id, (m_users,) and (m_items,) str; 0 is the padding."""
    import pandas as pd

    ours = tokens(student)
    user, item = (  # get_indexer says -1 where there is none; id 0 is the padding, not a token
        np.concatenate([[0], pd.Index(there[1:]).get_indexer(pd.Index(here[1:])) + 1])
        for there, here in zip(theirs, ours)
    )
    rows = user.astype(np.int64), item.astype(np.int64)
    return Alignment(rows, (len(theirs[0]), len(theirs[1])))


def check_overlap(alignment: Alignment, least: float, path: str) -> None:
    """Logs how much of the student's data the teacher knows; refuses one that knows too little.

    Args:
        alignment: From :func:`align`.
        least: ``teacher.min_overlap``, in [0, 1].
        path: The teacher's checkpoint.

    Raises:
        TeacherError: It knows less than this share of the users or of the items, or none of both.
    """
    counts = [(int(mask.sum()), len(mask) - 1) for mask in alignment.known]
    shares = [known / all_of_them for known, all_of_them in counts]
    words = " and ".join(
        f"{known:,} of the student's {all_of_them:,} {side} ({share:.1%})"
        for (known, all_of_them), share, side in zip(counts, shares, ("users", "items"))
    )
    if max(shares) == 0 or min(shares) < least:
        raise TeacherError(
            f"Teacher {path} knows {words}, by their tokens; allowed: at least {least:.1%} of each "
            "(teacher.min_overlap), and never none at all. Train a teacher on this data (a recipe: "
            "teacher.model), or lower teacher.min_overlap."
        )
    if not alignment.is_complete:
        logger.warning(
            "Teacher %s knows %s. The distillation uses only these; the rest of the student learns "
            "from its own loss alone.",
            path,
            words,
        )
    elif not alignment.is_in_order:
        logger.info("Teacher %s knows %s, under other ids: re-mapped by token.", path, words)


class Translated(nn.Module):
    """Translates ids: asked in the student's ids, it answers from the teacher's model.

    Items it does not know score -inf: they are ranked last. Of users it does not know it can say
    nothing: see :meth:`recbole_freqd.teacher.Teacher.can_rank`. Everything else that RecBole asks
    of a model is the own model's.

    Args:
        own: The model, on its own data.
        alignment: The student's users and items among its own.
        config: The student's world, for the names of fields.
    """

    def __init__(self, own: nn.Module, alignment: Alignment, config: Any) -> None:
        super().__init__()
        self.own: Any = own
        self.USER_ID, self.ITEM_ID = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.n_users, self.n_items = (len(rows) for rows in alignment.rows)
        self.device = config["device"]
        self._rows = [torch.from_numpy(rows).to(self.device) for rows in alignment.rows]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "own":
                raise
            return getattr(self.own, name)

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """(b * n_items,), the scores of users (b,) for all of the student's items."""
        from recbole.data.interaction import Interaction

        users = self._rows[0][interaction[self.USER_ID]]
        scores = self.own.full_sort_predict(Interaction({self.own.USER_ID: users}))
        scores = scores.view(len(users), -1).to(self.device).index_select(1, self._rows[1])
        scores[:, self._rows[1] == 0] = -torch.inf
        return scores.view(-1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """(b,), what the own model's ``forward`` gives pairs, where that is a score."""
        rows = self._rows[0][users], self._rows[1][items]
        return self.own.forward(*rows).to(self.device).masked_fill(rows[1] == 0, -torch.inf)

    def predict(self, interaction: Any) -> torch.Tensor:
        """(b,), the scores of pairs of the student's users (b,) and items (b,)."""
        from recbole.data.interaction import Interaction

        users, items = (
            rows[interaction[field]]
            for rows, field in zip(self._rows, (self.USER_ID, self.ITEM_ID))
        )
        own = Interaction({self.own.USER_ID: users, self.own.ITEM_ID: items})
        scores = self.own.predict(own).view(-1).to(self.device)
        return scores.masked_fill(items == 0, -torch.inf)
