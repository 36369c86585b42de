"""An epoch's filter, and the teacher's features through it."""

from dataclasses import dataclass, replace
from typing import Optional, Union

import torch

from recbole_freqd.filters import GraphFilter


@dataclass(frozen=True)
class FilteredTeacher:
    """A filter, and the teacher's features through it.

    Attributes:
        key: Its mask: an epoch, ``"whole"`` (no mask) or ``"step"`` (each step draws the mask).
        filter: H.
        teacher_emb: H T, (n, d), or None if each step draws the mask.
        teacher_norm: (n,), the lengths of its rows.
    """

    key: Union[int, str]
    filter: GraphFilter
    teacher_emb: Optional[torch.Tensor] = None
    teacher_norm: Optional[torch.Tensor] = None

    @property
    def memory(self) -> Optional[torch.Tensor]:
        """Memory for the next H T: the current H T, unless it is T itself."""
        return None if self.filter.is_identity else self.teacher_emb

    def with_teacher(
        self, teacher: torch.Tensor, memory: Optional[torch.Tensor]
    ) -> "FilteredTeacher":
        """Adds H T, made in ``memory`` if given."""
        made = self.filter.apply(teacher, None if self.filter.is_identity else memory)
        norm = torch.linalg.vector_norm(made, dim=1, dtype=self.filter.weights.dtype)
        return replace(self, teacher_emb=made, teacher_norm=norm)
