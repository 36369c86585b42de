"""Features of users and items, handed out by rows: what losses read, whatever they come from."""

from dataclasses import dataclass
from typing import Callable, Union

import torch

Features = tuple[torch.Tensor, torch.Tensor]
"""User features (n_users, d) and item features (n_items, d'), row 0 being RecBole's padding."""


@dataclass(frozen=True)
class FeatureRows:
    """Features that are computed only for the entities asked for.

    Attributes:
        user: From user ids (b,) int64 to their features (b, d), differentiable.
        item: From item ids (b,) int64 to their features (b, d'), differentiable.
    """

    user: Callable[[torch.Tensor], torch.Tensor]
    item: Callable[[torch.Tensor], torch.Tensor]

    @classmethod
    def of_tables(cls, user_emb: torch.Tensor, item_emb: torch.Tensor) -> "FeatureRows":
        """The rows of two tables, (n_users, d) and (n_items, d')."""
        return cls(
            lambda ids: user_emb.index_select(0, ids), lambda ids: item_emb.index_select(0, ids)
        )

    def of(self, side: str, ids: torch.Tensor) -> torch.Tensor:
        """The features (b, d) of ids (b,) of a side, ``"user"`` or ``"item"``."""
        return (self.user if side == "user" else self.item)(ids)


def as_rows(features: Union[FeatureRows, Features]) -> FeatureRows:
    """Tables become :class:`FeatureRows`; what is that already stays."""
    return features if isinstance(features, FeatureRows) else FeatureRows.of_tables(*features)
