"""FreqRank: a list-wise loss on a teacher filtered by graph frequency, from a warm start."""

from recbole_freqd.losses.rcekd import RCEKDLoss
from recbole_freqd.losses.registration import LOSSES


@LOSSES.register("FreqRank")
class FreqRankLoss(RCEKDLoss):
    """The loss of RCE-KD, on the teacher's filtered scores.

    The whole loss comes from RCE-KD, see :class:`recbole_freqd.losses.rcekd.RCEKDLoss`: its lists,
    its sample, its two cross-entropies and their weights. This class computes nothing itself. Our
    part stands around it, in defaults of two keys (``properties/trainer/FreqRank.yaml``).
    ``teacher_filter: auto`` turns the scores Y into Y Hᵀ or H Y, with h(λ) = 1 - αλ on a graph of
    shrunk cosines. It chooses side and α on validation, α = 0 among them. ``warm_start: lists``
    begins the student as the best approximation of the same scores by features of its width, and
    then fits it to the heads of their lists by least squares. Both act before the training, on the
    inputs of the loss. Two more defaults are cheaper than the
    paper's: a user keeps its lists for ``refresh`` = 3 epochs, and a step computes at most
    ``step_users`` = 1,024 of its users. With ``teacher_filter: none``, ``warm_start: none``,
    ``refresh: 1`` and ``step_users: null`` this is RCE-KD.

    Args, options and errors are those of RCE-KD, with the prefix ``freqrank``. With ``beta`` 0 the
    student trains alone from its warm start: the row ``student_warm`` of a table.

    Source: the loss: Zhu & Zhang, arXiv 2509.20989, with the deviations listed there. The filter:
        h of FreqD (arXiv 2411.10676), there inside the loss. The start: truncated SVD, then
        weighted alternating least squares (:func:`recbole_freqd.features.list_fit.fit_lists`).

    Example:
        .. code:: yaml

            trainer: FreqRank
            freqrank_beta: 100.0
            teacher: {model: BPR, embedding_size: 64}
    """

    method = "FreqRank"
    prefix = "freqrank"
    scales_teacher = True
