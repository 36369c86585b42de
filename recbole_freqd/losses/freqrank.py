"""FreqRank: a list-wise loss on what is taught, filtered by graph frequency, from a warm start."""

from recbole_freqd.losses.rcekd import RCEKDLoss
from recbole_freqd.losses.registration import LOSSES


@LOSSES.register("FreqRank")
class FreqRankLoss(RCEKDLoss):
    """The loss of RCE-KD, on the scores that are taught once they are filtered.

    RCE-KD's are the loss and everything in it, see :class:`recbole_freqd.losses.rcekd.RCEKDLoss`:
    its lists, its sample, its two cross-entropies and their weights. This class computes nothing of
    its own. Ours is what stands around it, in two keys that this trainer sets where the user says
    nothing (``properties/trainer/FreqRank.yaml``): ``teacher_filter: auto``, the scores Y become
    Y Hᵀ or H Y with h(λ) = 1 - αλ on a graph of shrunk cosines, side and α chosen on validation
    with α = 0 among them; and ``warm_start: teacher``, the student begins as the best
    approximation of the same scores by features of its width. Both act before the training, on
    what a loss is given. And two defaults are cheaper than the paper's: a user's lists are kept for
    ``refresh`` epochs, 3, and a step computes ``step_users`` of its users, 1,024. With
    ``teacher_filter: none``, ``warm_start: none``, ``refresh: 1`` and ``step_users: null`` this is
    RCE-KD.

    Args, options and errors are those of RCE-KD, with a prefix of its own. With ``beta`` 0 the
    student trains alone from its warm start: the row ``student_warm`` of a table.

    Source: the loss: Zhu & Zhang, arXiv 2509.20989, with the deviations listed there. The filter:
        h of FreqD (arXiv 2411.10676), there inside the loss. The start: truncated SVD.

    Example:
        .. code:: yaml

            trainer: FreqRank
            freqrank_beta: 100.0
            teacher: {model: BPR, embedding_size: 64}
    """

    method = "FreqRank"
    prefix = "freqrank"
    scales_teacher = True
