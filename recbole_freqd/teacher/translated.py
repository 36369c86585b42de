"""A teacher of other data that scores the student's users and items, to be evaluated on them."""

from typing import Any

import torch
from torch import nn

from recbole_freqd.teacher.alignment import Alignment


class Translated(nn.Module):
    """A model that is asked in the student's ids and answers from its own.

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
        self.own = own
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
