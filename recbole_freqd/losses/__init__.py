"""Distillation losses, one module a family; ``LOSSES`` finds them by name."""

from recbole_freqd.losses.base import LOSSES, DistillationLoss
from recbole_freqd.losses.freqd import FDLoss, FreqDLoss
from recbole_freqd.losses.hetcomp import HetCompLoss
from recbole_freqd.losses.ranking import DCDLoss, RRDLoss
from recbole_freqd.losses.rcekd import RCEKDLoss

__all__ = [
    "LOSSES",
    "DCDLoss",
    "DistillationLoss",
    "FDLoss",
    "FreqDLoss",
    "HetCompLoss",
    "RCEKDLoss",
    "RRDLoss",
]
