"""Parts: what a trainer does beside RecBole's own steps, each for one concern, in order."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np
import torch

if TYPE_CHECKING:
    from recbole_freqd.runtime.trainer import PartsTrainer


@dataclass
class Fit:
    """One call of ``fit``.

    Attributes:
        train_data, valid_data: RecBole's loaders.
        verbose, saved: As RecBole's.
        result: Best validation score and metrics, where nothing is left to train.
    """

    train_data: Any
    valid_data: Any = None
    verbose: bool = True
    saved: bool = True
    result: Optional[tuple[float, Any]] = None


class Part:
    """One concern of a training; a subclass overrides the moments that it cares about.

    :class:`recbole_freqd.runtime.trainer.PartsTrainer` calls all parts at every moment, in the
    order of its list. Of context managers the first part's is the outermost.

    Args:
        trainer: The trainer; RecBole's constructor has not run yet, but ``config`` is there.
    """

    def __init__(self, trainer: "PartsTrainer") -> None:
        self.trainer: Any = trainer  # has RecBole's attributes, too, which no type checker knows

    # --- once -----------------------------------------------------------------------------------

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around RecBole's constructor."""
        yield

    # --- fit ------------------------------------------------------------------------------------

    def begin_fit(self, fit: Fit) -> None:
        """The data is seen; nothing of RecBole's ``fit`` has run."""

    def depends_on(self) -> tuple[np.ndarray, ...]:
        """Arrays that the run depends on beside its config and data: its identity holds them."""
        return ()

    @contextmanager
    def fitting(self, fit: Fit) -> Iterator[None]:
        """Around RecBole's ``fit``, when all parts have begun; also where training fails."""
        yield

    def fold_loss(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """What the model's ``calculate_loss`` is while ``fit`` runs; ``loss`` itself: as it was."""
        return loss

    def end_fit(self, fit: Fit) -> None:
        """``fit`` has come to its end without an error."""

    # --- an epoch, a step, a validation ---------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Before the first step of an epoch."""

    def check(self, loss: torch.Tensor) -> None:
        """The loss of a step is known, its gradient is not."""

    def explain(self, error: RuntimeError) -> None:
        """An epoch ended with this error: a part that knows more raises one that says it."""

    def end_epoch(self, epoch: int) -> None:
        """After the last step of an epoch; not validated and not saved yet."""

    def begin_evaluation(self, loader: Any) -> None:
        """Before the users of a loader are ranked."""

    def end_validation(self, score: float) -> None:
        """A validation is done; RecBole has not compared its score with the best one yet."""

    # --- files ----------------------------------------------------------------------------------

    @contextmanager
    def saving(self, path: str) -> Iterator[None]:
        """Around the writing of RecBole's checkpoint, in the process that writes it."""
        yield

    @contextmanager
    def loading(self, path: str) -> Iterator[None]:
        """Around RecBole's ``resume_checkpoint``."""
        yield

    def load_best(self, path: str) -> None:
        """The model has the weights of a checkpoint, the best of a finished run."""

    def state_dict(self, *, finished: bool) -> dict[str, Any]:
        """What ``torch.load`` reads without pickle: all that epochs to come depend on.

        Args:
            finished: There are none to come: only what tells how the run went.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts :meth:`state_dict` back: before an epoch, or of a finished run."""
