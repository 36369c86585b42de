"""Vectors in int8 with a scale for each row: a quarter of the size."""

from dataclasses import dataclass

import torch

from recbole_freqd.core.rankers import FeatureRanker

_LARGEST = 127


@dataclass(frozen=True)
class Int8Rows:
    """Rows of whole numbers and the scale of each.

    Attributes:
        values: (n, d) int8, from -127 to 127.
        scales: (n,) float32; a row stands for ``values * scale``. 0 for a row of zeros.

    Example:
        >>> rows = Int8Rows.of(torch.tensor([[1.27, -0.01], [0.0, 0.0]]))
        >>> rows.values.tolist(), [round(scale, 4) for scale in rows.scales.tolist()]
        ([[127, -1], [0, 0]], [0.01, 0.0])
    """

    values: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor) -> "Int8Rows":
        """Rounds rows (n, d) of any floating dtype to the nearest multiple of their scale."""
        rows = rows.float()
        scales = rows.abs().amax(dim=1) / _LARGEST
        divisor = torch.where(scales > 0, scales, 1.0)
        values = (rows / divisor[:, None]).round().clamp(-_LARGEST, _LARGEST)
        return cls(values.to(torch.int8), scales)

    def restored(self) -> torch.Tensor:
        """(n, d) float32, what the rows stand for."""
        return self.values.float() * self.scales[:, None]

    @property
    def nbytes(self) -> int:
        """Bytes that the rows and their scales take."""
        return self.values.numel() + 4 * self.scales.numel()


def int8_ranker(
    user_emb: torch.Tensor, item_emb: torch.Tensor, exact_columns: int = 0
) -> FeatureRanker:
    """Makes the ranker of features that are stored in int8.

    Args:
        user_emb: (n_users, d). item_emb: (n_items, d).
        exact_columns: The last columns of both, biases and the ones beside them, stay in float32: a
            bias in the scale of a vector would lose most of its digits.
    """
    return FeatureRanker(
        *(
            torch.cat([Int8Rows.of(rows[:, :cut]).restored(), rows[:, cut:].float()], dim=1)
            for rows in (user_emb, item_emb)
            for cut in (rows.shape[1] - exact_columns,)
        )
    )
