"""Teachers of our own that need no training; RecBole's TraditionalTrainer runs them.

``recbole_freqd.config.models.OWN_MODELS`` names them, so that a config may: ``-m GFCF``, or
``teacher: {model: ShrunkKNN}``.
"""

from recbole_freqd.teacher.models.gfcf import GFCF
from recbole_freqd.teacher.models.shrunk_knn import ShrunkKNN

__all__ = ["GFCF", "ShrunkKNN"]
