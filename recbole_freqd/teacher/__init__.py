"""The teacher: found, trained or loaded, made to fit the student's data, reduced to its features.

``find`` decides; ``recipe`` trains one on the student's own split; ``stored`` reads one from a
checkpoint. A checkpoint of other data goes through ``home`` (its data, read again), ``alignment``
(whose row is whose), ``leakage`` (what it has seen of the student's test) and, to be evaluated,
``translated``. ``identity`` tells data apart.
"""

from recbole_freqd.config.identity import data_fingerprint, read_fingerprint
from recbole_freqd.teacher.base import Teacher
from recbole_freqd.teacher.find import find_teacher

__all__ = ["Teacher", "data_fingerprint", "find_teacher", "read_fingerprint"]
