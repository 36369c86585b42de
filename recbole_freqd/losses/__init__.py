"""Distillation losses, one module a family; ``LOSSES`` finds them by name."""

from recbole_freqd.losses.base import LOSSES, DistillationLoss
from recbole_freqd.losses.freqd import FDLoss, FreqDLoss

__all__ = ["LOSSES", "DistillationLoss", "FDLoss", "FreqDLoss"]
