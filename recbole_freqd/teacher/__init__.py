"""The teacher: found, trained or loaded, made to fit the student's data, reduced to its features.

``find`` decides; ``recipe`` trains one on the student's own split, ``checkpoint`` takes one that is
trained, with its own data (``restore``), whose rows ``alignment`` matches and of which ``leakage``
knows what it has seen of the student's test; ``files/`` reads vectors and lists of other systems.
``teach`` makes of them what is taught: with ``choice/``, what validation data decides, ``team/``,
several as one, and ``filter``.
"""

from recbole_freqd.config.identity import data_fingerprint, read_fingerprint
from recbole_freqd.teacher.base import Teacher
from recbole_freqd.teacher.find import find_teacher

__all__ = ["Teacher", "data_fingerprint", "find_teacher", "read_fingerprint"]
