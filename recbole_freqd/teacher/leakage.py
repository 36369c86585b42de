"""Checks which of the student's validation and test pairs a teacher has seen."""

import logging
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp

from recbole_freqd.config.identity import splitting
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import is_recipe
from recbole_freqd.core.errors import TeacherError
from recbole_freqd.features.data import pairs
from recbole_freqd.teacher.alignment import Alignment

logger = logging.getLogger(__name__)


def check_leakage(
    teacher: Any,
    alignment: Alignment,
    train_data: Any,
    valid_data: Optional[Any],
    *,
    allow: bool,
    path: str,
) -> None:
    """Refuses a teacher that was trained on pairs which the student is validated or tested on.

    Pairs the student is trained on are no secret and do not count, even where the data holds them
    twice and one of the two is tested.

    Args:
        teacher: The teacher, a :class:`recbole_freqd.teacher.restore.Restored`.
        alignment: Its users and items among the student's.
        train_data, valid_data: The student's loaders.
        allow: ``teacher.allow_leakage``: a warning instead of an error.
        path: The teacher's checkpoint.

    Raises:
        TeacherError: It has seen some, with the figures.
    """
    found = _leaks(teacher.train, alignment, train_data, valid_data)
    if not found:
        return
    figures = f"Teacher {path} was trained on {' and '.join(found)}"
    if allow:
        logger.warning("%s. teacher.allow_leakage: metrics are too good by that.", figures)
        return
    raise TeacherError(
        f"{figures}: it teaches what the student is judged by. "
        f"{_other_split(teacher.config, train_data._dataset.config)}Use a teacher of the same "
        "split (a recipe: teacher.model), or set teacher.allow_leakage: true if you know what "
        "you do."
    )


def check_lessons(stored: Any, *, allow: bool, path: str) -> None:
    """Refuses a teacher whose own teacher had seen validation or test pairs.

    Args:
        stored: The teacher's Config, from its checkpoint.
        allow, path: As of :func:`check_leakage`.

    Raises:
        TeacherError: It is.
    """
    own_teacher = stored[TEACHER] if stored["trainer"] else None
    if not isinstance(own_teacher, dict) or is_recipe(own_teacher):
        return
    if not own_teacher.get("allow_leakage"):  # of a recipe it has no effect
        return
    words = (
        f"Teacher {path} was itself taught with teacher.allow_leakage: true: what it has learnt "
        "may come from pairs that the student is judged by"
    )
    if not allow:
        raise TeacherError(f"{words}. Use another teacher, or set it here, too.")
    logger.warning("%s. teacher.allow_leakage: metrics are too good by that.", words)


def warn_of_lists(
    lists: sp.csr_array,
    train_data: Any,
    valid_data: Optional[Any],
    *,
    left_out: Optional[str],
    path: str,
) -> None:
    """Warns of lists without any of the student's held-out pairs: these are then taught as wrong.

    Args:
        lists: (n_users, n_items) sparse, an entry for each pair in a list.
        train_data, valid_data: The student's loaders.
        left_out: What the metadata of the file says of the pairs that are not in it; None: nothing.
        path: The file.
    """
    n_items = lists.shape[1]
    entries = lists.tocoo()
    listed_codes = entries.row.astype(np.int64) * n_items + entries.col
    held = _held_out(train_data, valid_data, n_items)
    codes = np.concatenate(
        [np.empty(0, np.int64), *(own for own in held.values() if own is not None)]
    )
    codes = codes[(np.diff(lists.indptr) > 0)[codes // n_items]]  # of users who have a list
    hit = int(np.isin(codes, listed_codes).sum())
    if left_out == "all" or (len(codes) and not hit):
        logger.warning(
            "Teacher %s: its lists contain %d of the %d validation and test pairs of the student's "
            "users%s. Lists that leave held-out pairs out teach that each of these is wrong: make "
            "them without the training pairs only (recommend --leave_out train).",
            path,
            hit,
            len(codes),
            "; they were made with --leave_out all" if left_out == "all" else "",
        )


def shared_training(teacher: Any, alignment: Alignment, train_data: Any) -> float:
    """The share of a student's training pairs, of users and items the teacher knows, that it has.

    Args:
        teacher, alignment, train_data: As of :func:`check_leakage`.

    Returns:
        In [0, 1].
    """
    n_items = len(alignment.rows[1])
    own = pairs(train_data._dataset)
    known = np.logical_and(*(alignment.known[side][own[:, side]] for side in (0, 1)))
    codes = own[known] @ np.array([n_items, 1])
    return (
        float(np.isin(codes, _seen(teacher.train, alignment, n_items)).mean())
        if len(codes)
        else 0.0
    )


def _leaks(
    teacher: Any, alignment: Alignment, train_data: Any, valid_data: Optional[Any]
) -> list[str]:
    """The figures in words, of each kind of pairs where there are any."""
    n_items = len(alignment.rows[1])
    foreign = _seen(teacher, alignment, n_items)
    foreign = foreign[~np.isin(foreign, _codes(train_data._dataset, n_items))]
    if len(foreign) == 0:
        return []  # it has seen nothing but what the student is trained on
    held, found = _held_out(train_data, valid_data, n_items), []
    for name, codes in held.items():
        seen = 0 if codes is None else int(np.isin(codes, foreign).sum())
        if codes is not None and seen:
            share = f"{seen / len(codes):.1%}"
            found.append(f"{seen:,} of the student's {len(codes):,} {name} pairs ({share})")
    if any(codes is None for codes in held.values()):
        none = np.empty(0, dtype=np.int64)
        known = np.concatenate([none, *(codes for codes in held.values() if codes is not None)])
        rest = int((~np.isin(foreign, known)).sum())
        if rest:
            unknown = " and ".join(name for name, codes in held.items() if codes is None)
            found.append(
                f"{rest:,} pairs that are not in the student's training data and may be among its "
                f"{unknown} pairs, which cannot be read from these loaders"
            )
    return found


def _held_out(
    train_data: Any, valid_data: Optional[Any], n_items: int
) -> dict[str, Optional[np.ndarray]]:
    """Codes of the student's validation and test pairs; None where they cannot be read.

    A trainer never sees the test loader. But the negative samplers of the other two know all
    splits, as RecBole makes them, so that no test pair is drawn as a negative.
    """
    held: dict[str, Optional[np.ndarray]] = {"validation": None, "test": None}
    if valid_data is not None:
        held["validation"] = _codes(valid_data._dataset, n_items)
    for loader in (valid_data, train_data):
        sampler: Any = getattr(loader, "_sampler", None)
        phases = list(getattr(sampler, "phases", ()))
        if "test" not in phases:
            continue
        if hasattr(sampler, "datasets"):  # one per phase
            for name, phase in (("validation", "valid"), ("test", "test")):
                if held[name] is None and phase in phases:
                    held[name] = _codes(sampler.datasets[phases.index(phase)], n_items)
        elif hasattr(sampler, "dataset") and held["validation"] is not None:  # RepeatableSampler's
            whole = _codes(sampler.dataset, n_items)
            train = _codes(train_data._dataset, n_items)
            others = np.concatenate([train, held["validation"]])
            # If nothing is left, it was made of less than the whole.
            held["test"] = whole[~np.isin(whole, others)] if len(whole) > len(others) else None
        if held["test"] is not None:
            break
    return held


def _codes(dataset: Any, n_items: int) -> np.ndarray:
    """(n,) int64, one number per interaction."""
    return pairs(dataset) @ np.array([n_items, 1])


def _seen(teacher: Any, alignment: Alignment, n_items: int) -> np.ndarray:
    """Codes of the teacher's training pairs among users and items of the student's."""
    theirs = pairs(teacher)
    users, items = (alignment.student_ids(side)[theirs[:, side]] for side in (0, 1))
    shared = (users > 0) & (items > 0)
    return users[shared] * n_items + items[shared]


def _other_split(there: Any, here: Any) -> str:
    """The keys of the split that differ, as a sentence; empty where none does."""
    differing = [key for key in ("seed", "benchmark_filename") if there[key] != here[key]]
    if splitting(there) != splitting(here):
        differing.append("eval_args")
    if not differing:
        return ""
    words = "; ".join(f"{key} {there[key]!r} there, {here[key]!r} here" for key in differing)
    return f"It was split otherwise: {words}. "
