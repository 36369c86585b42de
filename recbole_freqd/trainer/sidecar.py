"""Keeps our state beside a student's checkpoint, which stays plain RecBole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from recbole_freqd.checkpoint.loading import load_plain, sidecar_path
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import file_hash, write_atomically
from recbole_freqd.runtime.parts import Fit, Part
from recbole_freqd.trainer.fold import Distillation, on_cpu


class Sidecar(Part):
    """Keeps projectors, their optimizer's state and our random streams beside the checkpoint."""

    def __init__(self, trainer: Any, distillation: Distillation) -> None:
        super().__init__(trainer)
        self._of, self._resume_from = distillation, ""

    @contextmanager
    def saving(self, path: str) -> Iterator[None]:
        """Shows RecBole the student's part of the optimizer; then ours is saved."""
        full = self.trainer.optimizer
        self.trainer.optimizer = _StudentPart(full)
        try:
            yield
        finally:
            self.trainer.optimizer = full
        if self._of.distiller is not None:
            self.write(path)

    def write(self, path: str) -> None:
        """Writes what belongs to the checkpoint at ``path``."""
        state = {
            "checkpoint": file_hash(Path(path)),
            "methods": self._of.methods,
            "distiller": self._of.distiller.state_dict(),
            "streams": self._of.distiller.extra_state(),
            "optimizers": [_distiller_part(optimizer) for optimizer in self.trainer.optimizers],
            "data": self._of.data,
            "filtered": getattr(self._of.teacher, "filtered", None),
        }
        write_atomically(sidecar_path(path), lambda temporary: torch.save(state, temporary))

    def load_best(self, path: str) -> None:
        """Gives the projectors their values of the best epoch."""
        sidecar = sidecar_path(path)
        if Path(sidecar).is_file():
            stored = load_plain(sidecar, self.trainer.device)
            self._of.distiller.load_state_dict(stored["distiller"])

    @contextmanager
    def loading(self, path: str) -> Iterator[None]:
        """Sees to it that the projectors follow from the sidecar when ``fit`` has built them.

        Raises:
            CheckpointError: The trainer has been fitted already, or the sidecar is missing.
        """
        if self._of.distiller is not None:
            raise CheckpointError(
                f"resume_checkpoint({path!r}) comes after fit, when the projectors are "
                "built already. Make a new trainer, and call it before fit."
            )
        if not Path(sidecar_path(path)).is_file():
            raise CheckpointError(
                f"{sidecar_path(path)} is missing: the projectors of {path} are in "
                "it. Put it back beside the checkpoint, or train without resuming."
            )
        try:
            yield
        except ValueError as error:
            several = (
                "A model with several optimizers (RecVAE) is saved with one of them only; train it "
                "anew."
            )
            raise CheckpointError(
                f"RecBole cannot resume {self.trainer.config['model']} from {path}: {error}. "
                f"{several if len(self.trainer.optimizers) > 1 else 'Train it anew.'}"
            ) from error
        self._resume_from = sidecar_path(path)

    def begin_fit(self, fit: Fit) -> None:
        """Loads the sidecar, where that was asked for.

        Raises:
            CheckpointError: It is one of other losses or widths, or damaged.
        """
        path, self._resume_from = self._resume_from, ""
        if not path:
            return
        try:
            self._apply(load_plain(path, self.trainer.device), path)
        except (CheckpointError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:  # damaged, or of other widths: torch raises a dozen kinds
            raise CheckpointError(
                f"{path} cannot be used: {error}. Resume with the config it was made with, or "
                "train without resuming."
            ) from error

    def _apply(self, state: dict[str, Any], path: str) -> None:
        if state["methods"] != self._of.methods:
            raise CheckpointError(
                f"{path} holds the projectors of trainer {state['methods']}, the config names "
                f"{self._of.methods}. Resume with the same trainer."
            )
        self._of.distiller.load_state_dict(state["distiller"])
        self._of.distiller.load_extra_state(on_cpu(state["streams"]))
        for optimizer, stored in zip(self.trainer.optimizers, state["optimizers"]):
            own = optimizer.state_dict()
            own["state"].update(stored["state"])
            for group in own["param_groups"][1:]:  # RecBole has taken the checkpoint's, too
                group["lr"] = own["param_groups"][0]["lr"]
            optimizer.load_state_dict(own)


class _StudentPart:
    """An optimizer's state without the groups added for the distiller: what RecBole would save."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._state = optimizer.state_dict()

    def state_dict(self) -> dict[str, Any]:
        first = self._state["param_groups"][:1]
        return {"state": _state_of(first, self._state), "param_groups": first}


def _distiller_part(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The rest of :class:`_StudentPart`: state of the parameters in the added groups."""
    state = optimizer.state_dict()
    return {"state": _state_of(state["param_groups"][1:], state)}


def _state_of(groups: list[dict[str, Any]], state: dict[str, Any]) -> dict[int, Any]:
    """What an optimizer's state holds of the parameters of some of its groups."""
    own = {index for group in groups for index in group["params"]}
    return {index: value for index, value in state["state"].items() if index in own}
