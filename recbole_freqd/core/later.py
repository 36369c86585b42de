"""Features that are made when they are first read."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Callable, cast

import torch

from recbole_freqd.core.rows import Features


class LaterFeatures(Sequence[torch.Tensor]):
    """Features that are made when they are first read: only by what reads features.

    Args:
        make: Makes them, once.
    """

    def __init__(self, make: Callable[[], Features]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Features:
        return self._make()

    def __getitem__(self, place: Any) -> Any:
        return self._made[place]

    def __len__(self) -> int:
        return 2


def are_made(features: Features) -> bool:
    """Whether they are there; False for :class:`LaterFeatures` that nobody has read yet."""
    return not isinstance(features, LaterFeatures) or "_made" in vars(features)


def made_later(make: Callable[[], Features]) -> Features:
    """What unpacks and indexes as features do; ``make`` runs at the first such use."""
    return cast(Features, LaterFeatures(make))
