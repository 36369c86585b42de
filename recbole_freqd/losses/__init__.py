"""Distillation losses, one module a family; ``LOSSES`` finds them by name."""

from recbole_freqd.losses.base import LOSSES, DistillationLoss
from recbole_freqd.losses.cd import CDLoss
from recbole_freqd.losses.freqd import FDLoss, FreqDLoss
from recbole_freqd.losses.kd import KDLoss
from recbole_freqd.losses.rd import RDLoss
from recbole_freqd.losses.unkd import UnKDLoss

__all__ = [
    "LOSSES",
    "CDLoss",
    "DistillationLoss",
    "FDLoss",
    "FreqDLoss",
    "KDLoss",
    "RDLoss",
    "UnKDLoss",
]
