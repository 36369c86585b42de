"""Distillation losses, one module per family; ``LOSSES`` finds them by name."""

from recbole_freqd.core.rows import as_rows
from recbole_freqd.core.schema import own_method
from recbole_freqd.losses.base import DistillationLoss
from recbole_freqd.losses.cd import CDLoss
from recbole_freqd.losses.dcd import DCDLoss
from recbole_freqd.losses.de import DELoss
from recbole_freqd.losses.fd import FDLoss
from recbole_freqd.losses.fitnet import FitNetLoss, VkDLoss
from recbole_freqd.losses.freqd import FreqDLoss
from recbole_freqd.losses.freqrank import FreqRankLoss
from recbole_freqd.losses.hetcomp import HetCompLoss
from recbole_freqd.losses.kd import KDLoss
from recbole_freqd.losses.rcekd import RCEKDLoss
from recbole_freqd.losses.rd import RDLoss
from recbole_freqd.losses.registration import LOSSES
from recbole_freqd.losses.rrd import RRDLoss
from recbole_freqd.losses.topology import FTDLoss, HTDLoss
from recbole_freqd.losses.unkd import UnKDLoss

__all__ = [
    "LOSSES",
    "CDLoss",
    "DCDLoss",
    "DELoss",
    "DistillationLoss",
    "FDLoss",
    "FTDLoss",
    "FitNetLoss",
    "FreqDLoss",
    "FreqRankLoss",
    "HTDLoss",
    "HetCompLoss",
    "KDLoss",
    "RCEKDLoss",
    "RDLoss",
    "RRDLoss",
    "UnKDLoss",
    "VkDLoss",
    "as_rows",
    "own_method",
]
