"""Watches what a student has learnt of its teacher, by band of frequencies, for the log."""

from typing import Optional

import numpy as np
import torch
from torch import nn

from recbole_freqd.graph.adjacency import EntityGraph
from recbole_freqd.graph.spectrum import GraphSpectrum, relative_to, with_lengths_of


class BandWatch:
    """Band losses of one side relative to the teacher's energy, for weights that change.

    By the scalable form: no eigenvectors, 8 products with Â per band and 32 columns of the teacher.
    The teacher's energies are computed once.

    Args:
        graph: Of the side.
        teacher: (n, d), its features; rows of zeros (entities it does not know) are left out.
        distance: That of the loss. Cosine teaches no lengths of rows, so there the projected rows
            are given the teacher's.
        bands: Number of bands.
    """

    def __init__(
        self, graph: EntityGraph, teacher: torch.Tensor, distance: str, bands: int
    ) -> None:
        self.spectrum = GraphSpectrum(graph, bands, exact=False)
        self.teacher, self.distance = teacher, distance
        self._energy: Optional[np.ndarray] = None

    def relative(self, projector: nn.Module, student: torch.Tensor) -> np.ndarray:
        """(bands,), E_b(P(S) - T) / E_b(T); NaN where the teacher has no energy.

        Args:
            projector: P; used in eval mode and left as it was.
            student: (n, d_s), its features.
        """
        if self._energy is None:
            self._energy = self.spectrum.energies(self.teacher)
        error = projected_rows(projector, student, self.teacher, self.distance)
        error -= self.teacher
        error *= self.teacher.any(dim=1, keepdim=True)
        return relative_to(self.spectrum.energies(error), self._energy)


@torch.no_grad()
def projected_rows(
    projector: nn.Module, student: torch.Tensor, teacher: torch.Tensor, distance: str
) -> torch.Tensor:
    """P(S) for all rows (n, d'), in eval mode, as the distance of the loss sees them."""
    training, weight = projector.training, next(projector.parameters())
    projector.eval()
    try:
        rows = torch.cat([projector(part.to(weight)) for part in student.split(8192)])
    finally:
        projector.train(training)
    return with_lengths_of(rows, teacher) if distance == "cosine" else rows
