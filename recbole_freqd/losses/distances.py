"""Row-wise distances, and their mean over the distinct entities of a batch."""

from typing import Callable, Optional

import torch
from torch.nn import functional as F

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rows import single_precision


def row_distance(student: torch.Tensor, teacher: torch.Tensor, distance: str) -> torch.Tensor:
    """Distance of each student row to its teacher row.

    Args:
        student, teacher: (n, d).
        distance: ``"cosine"``: 1 - cos, in [0, 2], where a zero row has cos 0 (and no gradient);
            ``"squared"``: the squared difference summed over the dimensions.

    Returns:
        (n,), at least float32.

    Raises:
        ConfigError: Another name.

    Example:
        >>> one, other = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, -3.0]])
        >>> [row_distance(one, other, name).item() for name in ("squared", "cosine")]
        [50.0, 1.0]
    """
    if student.dtype in (torch.float16, torch.bfloat16):
        student = student.float()
    teacher = teacher.to(student.dtype)
    if distance == "squared":
        return (student - teacher).square().sum(dim=1)
    if distance == "cosine":
        return 1.0 - (unit_rows(student) * unit_rows(teacher)).sum(dim=1)
    raise ConfigError(f"distance: got {distance!r}; allowed: cosine, squared.")


def projected_distance(
    rows: torch.Tensor,
    weight: torch.Tensor,
    teacher: torch.Tensor,
    teacher_norm: torch.Tensor,
    distance: str,
) -> torch.Tensor:
    """``row_distance(rows @ weight, teacher)`` without making the wide product.

    ‖x W‖² = x (W Wᵀ) xᵀ and (x W)·t = x·(W t): one product with the teacher's rows instead of two,
    and nothing else as wide as they are. Use it for d well below the teacher's width, where W Wᵀ is
    regular. Single precision or more, autocast or not.

    Args:
        rows: (b, d). weight: (d, teacher_dim). teacher: (b, teacher_dim), any floating dtype.
        teacher_norm: (b,), the lengths of the teacher's rows.
        distance: As for :func:`row_distance`.

    Returns:
        (b,).
    """
    with single_precision(rows.device):
        products = F.linear(teacher.to(rows.dtype), weight)
        dots = (rows * products).sum(dim=1)
        squares = ((rows @ (weight @ weight.T)) * rows).sum(dim=1)
        if distance == "squared":
            return squares - 2.0 * dots + teacher_norm.square()
        # Not "> tiny": NaN is not a zero row, and the loss has to show it.
        nonzero = ~((squares <= torch.finfo(rows.dtype).tiny) | (teacher_norm <= 0))
        lengths = torch.where(nonzero, squares, 1.0).sqrt() * torch.where(
            nonzero, teacher_norm, 1.0
        )
        return 1.0 - torch.where(nonzero, dots / lengths, 0.0)


def unit_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows of length 1; a zero row stays zero, with gradient zero (torch's own would be g/eps).

    Rows of NaN, and rows so long that their squares overflow, become NaN. So the training fails,
    instead of a row silently teaching nothing.

    Example:
        >>> unit_rows(torch.tensor([[0.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    norm = torch.where(torch.isinf(norm), torch.nan, norm)
    nonzero = ~(norm <= torch.finfo(x.dtype).tiny)
    return torch.where(nonzero, x / torch.where(nonzero, norm, torch.ones_like(norm)), 0.0)


def mean_or_zero(distances: torch.Tensor) -> torch.Tensor:
    """The mean of distances (n,), one per distinct entity; without any, 0 with gradient 0."""
    return distances.mean() if len(distances) else distances.sum()


def mean_over_batch(
    distances: Callable[[str, torch.Tensor], torch.Tensor],
    user_ids: torch.Tensor,
    positive_item_ids: torch.Tensor,
    negative_item_ids: Optional[torch.Tensor],
    some: Callable[[torch.Tensor], torch.Tensor] = lambda ids: ids,
) -> torch.Tensor:
    """d̄(users) + ½ [d̄(positives) + d̄(negatives)], d̄ the mean over distinct ids, 0 without any.

    Args:
        distances: From a side and ids (b,) to one distance per id, (b,).
        user_ids, positive_item_ids: (b,) int64, repeats allowed.
        negative_item_ids: (b',) int64; None: the positives are *the* items, with weight 1.
        some: From the distinct ids of a kind to the ids in the mean.

    Returns:
        A scalar.
    """
    kinds = [some(torch.unique(positive_item_ids))]
    if negative_item_ids is not None:
        kinds.append(some(torch.unique(negative_item_ids)))
    items = distances("item", torch.cat(kinds))
    means = [mean_or_zero(part) for part in items.split([len(kind) for kind in kinds])]
    return mean_or_zero(distances("user", some(torch.unique(user_ids)))) + sum(means) / len(means)


def refuse_one_dimension(width: int, side: str, key: str, way_out: str) -> None:
    """Raises ConfigError if the teacher's features of a side are one number each.

    Args:
        width: Of the teacher's features.
        side: ``"user"`` or ``"item"``.
        key: The setting that asks for cosines, for the message: ``"freqd_distance: got cosine"``.
        way_out: The allowed settings instead.
    """
    if width == 1:
        raise ConfigError(
            f"{key}, but the teacher's {side} features have one dimension. There a cosine is 1 or "
            "-1 and teaches nothing (Pop and Random have no more). "
            f"Allowed: {way_out}another teacher."
        )
