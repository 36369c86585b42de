"""Row-wise distances and the reduction of design and paper: means over distinct entities."""

import torch

from recbole_freqd.errors import ConfigError


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
    """
    if student.dtype in (torch.float16, torch.bfloat16):
        student, teacher = student.float(), teacher.float()
    if distance == "squared":
        return (student - teacher).square().sum(dim=1)
    if distance == "cosine":
        return 1.0 - (_unit_rows(student) * _unit_rows(teacher)).sum(dim=1)
    raise ConfigError(f"distance: got {distance!r}; allowed: cosine, squared.")


def _unit_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows of length 1; a zero row stays zero, with gradient zero (torch's own would be g/eps)."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    nonzero = norm > torch.finfo(x.dtype).tiny
    return torch.where(nonzero, x / torch.where(nonzero, norm, torch.ones_like(norm)), 0.0)


def mean_at(distances: torch.Tensor, ids: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """Mean distance over the distinct ids of ``of``; 0 where there are none.

    Args:
        distances: (n,), the distance of each entity of ``ids``.
        ids: (n,) int64, sorted and distinct.
        of: (b,) int64, any order, repeats allowed, all of them in ``ids``.
    """
    if len(of) == 0:
        return distances.sum() * 0.0
    return distances[torch.searchsorted(ids, torch.unique(of))].mean()
