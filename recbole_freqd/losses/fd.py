"""FD: FreqD with H = I."""

from typing_extensions import Unpack

from recbole_freqd.filters import PolynomialFilter
from recbole_freqd.losses.base import LossData
from recbole_freqd.losses.freqd import FDOptions, FreqDLoss
from recbole_freqd.losses.registration import LOSSES


@LOSSES.register("FD")
class FDLoss(FreqDLoss):
    """Plain feature distillation: :class:`FreqDLoss` with H = I, so without a graph.

    The "regular feature distillation" of the paper: every knowledge weighs the same (Theorem 1).
    Its options are FreqD's, without those of the graph and filter.

    Source: Zhu & Zhang, KDD 2025 (arXiv 2411.10676), §3; the idea is from FitNets (ICLR 2015).
    Deviations from the authors' public code: as for FreqD, without those of the graph. So by
        default the projectors have no weight decay either.
    """

    method = "FD"
    prefix = "fd"

    def __init__(self, *data: Unpack[LossData], **options: Unpack[FDOptions]) -> None:
        super().__init__(*data, **options)

    def _make_filter(self) -> PolynomialFilter:
        return PolynomialFilter([1.0])
