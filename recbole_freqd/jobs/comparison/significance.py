"""Tests whether two methods differ by more than chance: users as pairs, many rivals at once."""

from collections.abc import Sequence
from typing import Optional

import numpy as np
from scipy import stats

PerUser = tuple[np.ndarray, np.ndarray]
"""Names of users, sorted, (n,) str; and the metric of each, (n,) float."""


def user_differences(method: Sequence[PerUser], reference: Sequence[PerUser]) -> np.ndarray:
    """The difference of two methods for every user, averaged over the seeds that rank for them.

    Args:
        method, reference: For each seed, in the same order of seeds.

    Returns:
        (n,) float64, method − reference, for all users that both rank for in some seed, sorted by
        name.

    Example:
        >>> users = np.array(["a", "b"])
        >>> user_differences(
        ...     [(users, np.array([1.0, 0.5])), (users[:1], np.array([0.5]))],
        ...     [(users, np.array([0.0, 0.5])), (users[:1], np.array([0.5]))],
        ... ).tolist()
        [0.5, 0.0]
    """
    names, differences = [], []
    for (ours, our_values), (theirs, their_values) in zip(method, reference):
        shared, here, there = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
        names.append(shared)
        differences.append(our_values[here].astype(np.float64) - their_values[there])
    users, place = np.unique(np.concatenate(names), return_inverse=True)
    sums = np.bincount(place, weights=np.concatenate(differences), minlength=len(users))
    return sums / np.bincount(place, minlength=len(users))


def paired_test(differences: np.ndarray, level: float = 0.95) -> dict[str, Optional[float]]:
    """Student's paired t-test, two-sided, and its confidence interval.

    The table ranks methods by their mean, so this tests the mean. Wilcoxon's signed-rank test asks
    about the median of symmetric differences, and leaves out zeros. Here many differences are zero,
    so that it can contradict the table. With hundreds of users the mean is as good as normal.
    (Smucker et al., CIKM 2007, and Urbano et al., SIGIR 2019, conclude the same for means over
    queries.) The sample are users. Seeds are averaged before, so the test says nothing about how
    much other seeds would differ.

    Args:
        differences: (n,), one per user.
        level: Of the interval.

    Returns:
        ``difference`` (the mean), ``low``, ``high``, ``p`` and ``users``; no interval and no p
        below two users. If no user differs, p is 1.
    """
    n, mean = len(differences), float(np.mean(differences)) if len(differences) else None
    if n < 2 or np.ptp(differences) == 0:  # without a spread SciPy has no statistic
        p, low, high = (None, None, None) if n < 2 else (float(mean == 0), mean, mean)
        return {"difference": mean, "low": low, "high": high, "p": p, "users": n}
    test = stats.ttest_1samp(differences, 0.0)
    low, high = map(float, test.confidence_interval(level))
    return {"difference": mean, "low": low, "high": high, "p": float(test.pvalue), "users": n}


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's correction: keeps the chance small that any of several equal rivals looks different.

    The i-th smallest of m (from 0) is multiplied by m − i, and is never below the one before it.

    Args:
        p_values: By rival.

    Returns:
        The corrected ones, at most 1, by rival in the same order.

    Source:
        Holm, Scandinavian Journal of Statistics 6, 1979.

    Example:
        >>> holm({"FD": 0.03, "RRD": 0.01, "DE": 0.02})
        {'FD': 0.04, 'RRD': 0.03, 'DE': 0.04}
    """
    corrected, least = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = least
    return {name: corrected[name] for name in p_values}
