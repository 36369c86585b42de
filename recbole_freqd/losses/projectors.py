"""Maps from the student's features to the teacher's. Only training uses them, never serving."""

import math
from collections.abc import Iterator
from typing import Any, Callable, Optional, Union

import psutil
import torch
from torch import nn

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import WeightedSums


class LinearProjector(nn.Module):
    """x ↦ x W + b, no dropout.

    Args:
        student_dim: Width of the student's rows.
        teacher_dim: Width of the teacher's rows.
        stream: Draws the initial weights: U(±1/√student_dim), torch's own for Linear.

    Example:
        >>> LinearProjector(2, 5, RandomStream(0))(torch.ones(3, 2)).shape
        torch.Size([3, 5])
    """

    def __init__(self, student_dim: int, teacher_dim: int, stream: RandomStream) -> None:
        super().__init__()
        self.weight = uniform_parameter(stream, (student_dim, teacher_dim), student_dim)
        self.bias = uniform_parameter(stream, (teacher_dim,), student_dim)

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
    """The mean of several MLPs dropout–Linear–ReLU–dropout–Linear, each with its own masks.

    Args:
        student_dim: Width of the student's rows.
        teacher_dim: Width of the teacher's rows.
        stream: Draws initial weights and dropout masks.
        experts: Number of MLPs, at least 1.
        hidden: Hidden width of each; None is ``teacher_dim``.
        dropout: In [0, 1), active in train mode.

    Example:
        >>> MLPProjector(2, 5, RandomStream(0), experts=3)(torch.ones(3, 2)).shape
        torch.Size([3, 5])
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
        self.weight_in = uniform_parameter(stream, (experts, student_dim, hidden), student_dim)
        self.bias_in = uniform_parameter(stream, (experts, 1, hidden), student_dim)
        self.weight_out = uniform_parameter(stream, (experts, hidden, teacher_dim), hidden)
        self.bias_out = uniform_parameter(stream, (experts, teacher_dim), hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, student_dim) -> (n, teacher_dim)."""
        return self._through(x, lambda hidden: hidden, torch.ones_like(x[:, 0]))

    def of_filtered(self, x: torch.Tensor, sums: WeightedSums) -> torch.Tensor:
        """H P(x), where the rows of H at a batch are sums over the rows x (n, student_dim).

        H commutes with the last layer. So that layer sees only the batch, not its neighbours.

        Returns:
            (b, teacher_dim), the dtype of the weights of the sums.
        """
        totals = sums.totals()
        return self._through(x, lambda hidden: sums.of(hidden.to(totals.dtype)), totals)

    def is_narrow(self) -> bool:
        """Whether all hidden layers together are narrower than the teacher."""
        experts, hidden, teacher_dim = self.weight_out.shape
        return experts * hidden + 1 < teacher_dim

    def before_last(
        self, x: torch.Tensor, sums: Optional[WeightedSums] = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows (b, m) and a weight (m, teacher_dim); their product is P(x) or, with sums, H P(x).

        m is the width of all hidden layers together, plus one for the biases.
        """
        totals = torch.ones_like(x[:, 0]) if sums is None else sums.totals()
        layers = [part if sums is None else sums.of(part) for part in self._hidden_layers(x)]
        last = self.weight_out.flatten(0, 1) / (self._kept() * len(self.weight_out))
        rows = torch.cat([*layers, totals[:, None]], dim=1)
        return rows, torch.cat([last, self.bias_out.mean(0)[None]])

    def _through(
        self,
        x: torch.Tensor,
        mixed: Callable[[torch.Tensor], torch.Tensor],
        totals: torch.Tensor,
    ) -> torch.Tensor:
        """Runs the experts one after the other, so that memory holds one hidden layer at a time."""
        outer, share = totals[:, None] * self.bias_out.mean(0), self._kept() * len(self.weight_out)
        for hidden, last in zip(self._hidden_layers(x), self.weight_out):
            outer = outer.addmm_(mixed(hidden), last, alpha=1.0 / share)
        return outer

    def _hidden_layers(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Each expert's (n, hidden), not yet divided by the share that dropout keeps."""
        kept = self._kept()
        # A bias is one more row of the weight: adding it apart would pass over all of memory.
        first_layers = torch.cat([self.weight_in, self.bias_in], dim=1)
        always = x.new_full((len(x), 1), kept)
        for first in first_layers:
            inner = torch.cat([self._drop(x), always], dim=1)
            hidden = inner @ (first / kept)
            yield _ReluDropped.apply(hidden, self._mask(hidden))

    def _kept(self) -> float:
        return 1.0 - self.dropout if self.training else 1.0

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` with zeros at dropped places; the rest is not scaled yet."""
        mask = self._mask(x)
        return x if mask is None else x * mask

    def _mask(self, x: torch.Tensor) -> Optional[torch.Tensor]:
        """Ones at kept places, in the dtype of ``x`` (a product with them is the fastest)."""
        if not self.training or self.dropout == 0.0:
            return None
        return self.stream.bernoulli(tuple(x.shape), 1.0 - self.dropout, x, x.dtype)


class _ReluDropped(torch.autograd.Function):
    """ReLU, then zeros where the mask has them, in the memory of the input.

    The gradient is zero wherever the result is, so the backward pass needs no mask.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        ctx.mark_dirty(x)
        x.relu_()
        if mask is not None:
            x.mul_(mask)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.ops.aten.threshold_backward(gradient, ctx.saved_tensors[0], 0.0), None


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


def uniform_parameter(stream: RandomStream, shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    """A parameter of ``shape`` from U(±1/√fan_in), as torch starts a Linear.

    Raises:
        MemoryError: The machine has less memory. (Torch itself raises a plain RuntimeError, or a
            TypeError.)
    """
    size = math.prod(shape) * torch.finfo(torch.get_default_dtype()).bits // 8
    if size > psutil.virtual_memory().total:
        raise MemoryError(f"weights {shape} take {size / 2**30:.3g} GiB")
    return nn.Parameter(stream.uniform_(torch.empty(shape), fan_in**-0.5))
