"""A ranker in the place of a model: what RecBole evaluates, and what its size is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from recbole_freqd.core.rankers import Ranker


class RankedModel(nn.Module):
    """A ranker that is asked as RecBole asks a model, in the student's ids.

    Args:
        ranker: Its scores.
        config: The student's world, for the names of fields and the device.
        tensors: What has to be kept to rank: its size is the model's.
    """

    def __init__(self, ranker: Ranker, config: Any, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.ranker = ranker
        self.USER_ID, self.ITEM_ID = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.n_users, self.n_items = ranker.shape
        self.device = config["device"]
        for number, tensor in enumerate(tensors):
            self.register_buffer(f"kept_{number}", tensor)
        self.dummy_param = nn.Parameter(torch.zeros(0, device=self.device))  # for an optimizer

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """(b * n_items,), the scores of users (b,) for all items."""
        return self.ranker.block(interaction[self.USER_ID]).view(-1)

    def predict(self, interaction: Any) -> torch.Tensor:
        """(b,), the scores of pairs of users (b,) and items (b,)."""
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        return self.ranker.at(users, items[:, None])[:, 0]
