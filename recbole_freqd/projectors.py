"""Maps from the student's feature space to the teacher's. Used in training only, never served."""

from typing import Optional, Union

import torch
from torch import nn

from recbole_freqd.errors import ConfigError
from recbole_freqd.rng import RandomStream


class LinearProjector(nn.Module):
    """x ↦ x W + b, no dropout.

    Args:
        student_dim: Width of the student's rows.
        teacher_dim: Width of the teacher's rows.
        stream: Where the initial weights come from: U(±1/√student_dim), torch's own for Linear.
    """

    def __init__(self, student_dim: int, teacher_dim: int, stream: RandomStream) -> None:
        super().__init__()
        self.weight = _uniform(stream, (student_dim, teacher_dim), student_dim)
        self.bias = _uniform(stream, (teacher_dim,), student_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, student_dim) -> (n, teacher_dim)."""
        return x @ self.weight + self.bias

    def of_filtered(self, filtered: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
        """H (x W + 1 bᵀ) = (H x) W + (H 1) bᵀ, from H x (n, student_dim) and H 1 (n,)."""
        return filtered @ self.weight + totals[:, None] * self.bias

    def stacked(self) -> torch.Tensor:
        """(student_dim + 1, teacher_dim): W and, for the column H 1, b."""
        return torch.cat([self.weight, self.bias[None]])


class MLPProjector(nn.Module):
    """The mean of several MLPs dropout–Linear–ReLU–dropout–Linear, each with masks of its own.

    Args:
        student_dim: Width of the student's rows.
        teacher_dim: Width of the teacher's rows.
        stream: Where initial weights and dropout masks come from.
        experts: Number of MLPs, at least 1.
        hidden: Hidden width of each; None is ``teacher_dim``.
        dropout: In [0, 1), active in train mode.
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        stream: RandomStream,
        experts: int = 1,
        hidden: Optional[int] = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = hidden or teacher_dim
        self.stream, self.dropout = stream, dropout
        self.weight_in = _uniform(stream, (experts, student_dim, hidden), student_dim)
        self.bias_in = _uniform(stream, (experts, 1, hidden), student_dim)
        self.weight_out = _uniform(stream, (experts, hidden, teacher_dim), hidden)
        self.bias_out = _uniform(stream, (experts, teacher_dim), hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, student_dim) -> (n, teacher_dim)."""
        experts, hidden, teacher_dim = self.weight_out.shape
        inner = self._drop(x.expand(experts, *x.shape))
        inner = torch.relu(torch.baddbmm(self.bias_in, inner, self.weight_in))
        # Summing over experts inside one product never builds an (experts, n, teacher_dim) tensor.
        joined = self._drop(inner).permute(1, 0, 2).reshape(len(x), experts * hidden)
        outer = joined @ self.weight_out.reshape(experts * hidden, teacher_dim)
        return outer / experts + self.bias_out.mean(0)

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.dropout == 0.0:
            return x
        keep = 1.0 - self.dropout
        return x * self.stream.keep(tuple(x.shape), keep, like=x) / keep


def make_projector(
    kind: str,
    student_dim: int,
    teacher_dim: int,
    stream: RandomStream,
    *,
    experts: int,
    hidden: Optional[int],
    dropout: float,
) -> Union[LinearProjector, MLPProjector]:
    """The projector of a config: ``"mlp"`` or ``"linear"`` (which has no experts or dropout)."""
    if kind == "linear":
        return LinearProjector(student_dim, teacher_dim, stream)
    if kind == "mlp":
        return MLPProjector(student_dim, teacher_dim, stream, experts, hidden, dropout)
    raise ConfigError(f"projector: got {kind!r}; allowed: mlp, linear.")


def _uniform(stream: RandomStream, shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    return nn.Parameter(stream.uniform_(torch.empty(shape), fan_in**-0.5))
