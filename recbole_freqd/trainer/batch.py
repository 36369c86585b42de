"""The entities of a training batch, whatever RecBole puts into it."""

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch

from recbole_freqd.core.rng import RandomStream
from recbole_freqd.features.data import Known


@dataclass(frozen=True)
class Batch:
    """The entities of a training batch, without RecBole's padding id 0.

    Attributes:
        user_ids, positive_item_ids: (b,) int64, repeats allowed.
        negative_item_ids: (b',) int64, or None where the batch carries no item ids at all.
    """

    user_ids: torch.Tensor
    positive_item_ids: torch.Tensor
    negative_item_ids: Optional[torch.Tensor]


class BatchReader:
    """Reads a RecBole batch of any input type.

    Pairwise batches have negatives in a field of their own; pointwise ones a label (> 0 positive,
    0 negative); user batches (autoencoders, diffusion, ENMF) have no items: then as many are drawn,
    uniformly among the ids from 1, as the batch has rows.

    Args:
        config: The student's Config, for the field names.
        n_items: Number of items, padding included.
        stream: Where items are drawn from.
        known: The entities that are read; the others are left out. None: all.
    """

    def __init__(
        self, config: Any, n_items: int, stream: RandomStream, known: Optional[Known] = None
    ) -> None:
        self.user, self.item = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.negative, self.label = config["NEG_PREFIX"] + self.item, config["LABEL_FIELD"]
        self.stream = stream
        masks = known or (None, np.arange(n_items) > 0)
        self._items = torch.from_numpy(np.flatnonzero(masks[1]))
        self._known = None if known is None else tuple(map(torch.from_numpy, known))

    def read(self, interaction: Any) -> Batch:
        """The batch's entities, on the device of the interaction."""
        batch = self._read(interaction)
        if self._known is None:
            return batch
        self._known = tuple(mask.to(batch.user_ids.device) for mask in self._known)
        users, items = self._known
        positives, negatives = batch.positive_item_ids, batch.negative_item_ids
        return Batch(
            batch.user_ids[users[batch.user_ids]],
            positives[items[positives]],
            None if negatives is None else negatives[items[negatives]],
        )

    def _read(self, interaction: Any) -> Batch:
        fields = interaction.columns
        users = interaction[self.user].flatten()
        if self.item not in fields:
            return Batch(users[users > 0], self._drawn(len(users), users.device), None)
        items = interaction[self.item].flatten()
        if self.negative in fields:
            positives, negatives = items, interaction[self.negative].flatten()
        elif self.label in fields:
            liked = interaction[self.label].flatten() > 0
            positives, negatives = items[liked], items[~liked]
        else:
            positives, negatives = items, items[:0]
        return Batch(users[users > 0], positives[positives > 0], negatives[negatives > 0])

    def _drawn(self, count: int, device: torch.device) -> torch.Tensor:
        """(count,), items drawn uniformly; none where none is known."""
        if len(self._items) == 0:
            return self._items.to(device)
        self._items = self._items.to(device)
        generator = self.stream.on(device)
        place = torch.randint(len(self._items), (count,), generator=generator, device=device)
        return self._items[place]
