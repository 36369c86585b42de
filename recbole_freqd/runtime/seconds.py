"""Times a training: its epochs, and all until its best validation."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Optional

import numpy as np

from recbole_freqd.runtime.parts import Fit, Part

_put_back = 0.0
_choosing = 0.0


def student_clock() -> float:
    """Seconds that have passed without those of :func:`not_counted`; only differences mean much."""
    return perf_counter() - _put_back


@contextmanager
def not_counted() -> Iterator[None]:
    """Puts the clock back, at the end, to where it was: a teacher's training is not a student's."""
    global _put_back
    put_back, start = _put_back, perf_counter()
    try:
        yield
    finally:
        _put_back = put_back + perf_counter() - start


@contextmanager
def counted_as_choice() -> Iterator[None]:
    """Counts the seconds inside as those in which validation data chose what is taught."""
    global _choosing
    start = perf_counter()
    try:
        yield
    finally:
        _choosing += perf_counter() - start


class Seconds(Part):
    """Times epochs and the whole run; a resumed run goes on counting.

    Attributes:
        of_epochs: Seconds of the training part of each epoch, with what is prepared for it.
        begun: :func:`student_clock` when the run began; whoever reads the data first sets it.
        best_epoch: Epochs trained at the best validation, 0 being the start; None before one.
        to_best: Seconds from ``begun`` to the end of the best validation.
        all_in: Seconds from ``begun`` to the end of ``fit``.
        choosing: Of these, those of :func:`counted_as_choice`.
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        self.of_epochs: list[float] = []
        self.begun = student_clock()
        self.best_epoch: Optional[int] = None
        self.to_best: Optional[float] = None
        self.all_in: Optional[float] = None
        self.choosing = 0.0
        self._chosen = _choosing
        self._start, self._before, self._trained = 0.0, 0.0, 0

    def per_epoch(self) -> Optional[float]:
        """Median seconds of an epoch without its validation, or None before the first."""
        return float(np.median(self.of_epochs)) if self.of_epochs else None

    def begin_fit(self, fit: Fit) -> None:
        """Forgets the end of an earlier ``fit``."""
        self.all_in = None

    def begin_epoch(self, epoch: int) -> None:
        """Starts the clock of an epoch."""
        self._start = perf_counter()

    def end_epoch(self, epoch: int) -> None:
        """Stops it."""
        self.of_epochs.append(perf_counter() - self._start)
        self._trained = epoch + 1

    def end_validation(self, score: float) -> None:
        """Notes when the best score so far was there."""
        best = self.trainer.best_valid_score
        if score > best if self.trainer.valid_metric_bigger else score < best:
            self.best_epoch, self.to_best = self._trained, self._so_far()

    def end_fit(self, fit: Fit) -> None:
        """Notes how long it all took, but for a run that had been finished before."""
        self._add_choices()
        if self.all_in is None:
            self.all_in = self._so_far()

    def _add_choices(self) -> None:
        self.choosing += _choosing - self._chosen
        self._chosen = _choosing

    def _so_far(self) -> float:
        return self._before + student_clock() - self.begun

    def state_dict(self, *, finished: bool) -> dict[str, Any]:
        """All times; ``before`` is what has passed until now."""
        self._add_choices()
        return {
            "choosing": self.choosing,
            "of_epochs": self.of_epochs,
            "best_epoch": self.best_epoch,
            "to_best": self.to_best,
            "all_in": self._so_far() if finished else None,
            "before": self._so_far(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting from there."""
        self.of_epochs, self._before = list(state["of_epochs"]), state["before"]
        self.best_epoch, self.to_best = state["best_epoch"], state["to_best"]
        self.all_in = state["all_in"]
        self.choosing += state.get("choosing", 0.0)
