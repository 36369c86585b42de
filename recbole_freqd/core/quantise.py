"""Vectors in int8, with a scale for each row: a quarter of the size, ranked as they are stored."""

from dataclasses import dataclass

import torch

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
