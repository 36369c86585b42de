"""A distilled student's checkpoint stays plain RecBole; what is ours lies in a file beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import torch

from recbole_freqd.checkpoint.loading import load_plain, sidecar_path
from recbole_freqd.config.identity import data_fingerprint, same_data
from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.files import file_hash, write_atomically
from recbole_freqd.runtime.resume import ResumableTrainer
from recbole_freqd.trainer.distiller import Distiller


class SidecarTrainer(ResumableTrainer):
    """A mixin that keeps projectors, their optimizer's state and our random streams.

    Attributes:
        distiller: What is trained beside the student, from ``fit`` on.
        methods: Names of its losses.
    """

    methods: list[str]

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.distiller: Optional[Distiller] = None
        self._resume_from: Optional[str] = None
        self._data: dict[str, str] = {}

    def _refuse_other_data(self, dataset: Any) -> None:
        """Raises ConfigError where a second ``fit`` brings other data than the first."""
        if not same_data(self._data, data_fingerprint(dataset)):
            raise ConfigError(
                "fit was called again with other data than before, and teacher, graphs and "
                "projectors are of that. Make a new trainer."
            )

    def _distiller_is_there(self, dataset: Any) -> None:
        """Once it is built: what it is saved with, and loaded from where that was asked for."""
        self._data = data_fingerprint(dataset)
        if self._resume_from is not None:
            self._load_sidecar(self._resume_from)

    def _write_checkpoint(self, path: str, epoch: int) -> None:
        with self._saving_beside(path):
            super()._write_checkpoint(path, epoch)

    def _write_pretrained(self, path: str, epoch: int) -> None:
        with self._saving_beside(path):
            super()._write_pretrained(path, epoch)

    @contextmanager
    def _saving_beside(self, path: str) -> Iterator[None]:
        """While open, RecBole sees the student's part of the optimizer; then our part is saved."""
        full = self.optimizer
        self.optimizer = _StudentPart(full)
        try:
            yield
        finally:
            self.optimizer = full
        if self.distiller is not None:
            of = file_hash(Path(path))
            write_atomically(
                sidecar_path(path), lambda temporary: self._write_sidecar(temporary, of)
            )

    def _state(self) -> dict[str, Any]:
        distilling = {"own": self.distiller.state_dict(), "streams": self.distiller.extra_state()}
        return {**super()._state(), "distiller": distilling}

    def _take_best(self) -> None:
        super()._take_best()
        sidecar = sidecar_path(self.saved_model_file)
        if Path(sidecar).is_file():
            self.distiller.load_state_dict(load_plain(sidecar, self.device)["distiller"])

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self.distiller.load_state_dict(state["distiller"]["own"])
        self.distiller.load_extra_state(_on_cpu(state["distiller"]["streams"]))

    def _write_sidecar(self, path: str, checkpoint: str) -> None:
        state = {
            "checkpoint": checkpoint,
            "methods": self.methods,
            "distiller": self.distiller.state_dict(),
            "streams": self.distiller.extra_state(),
            "optimizers": [_distiller_part(optimizer) for optimizer in self._optimizers],
            "data": self._data,
        }
        torch.save(state, path)

    def resume_checkpoint(self, resume_file: Any) -> None:
        """As RecBole's; the projectors follow from the sidecar when ``fit`` has built them.

        Raises:
            CheckpointError: The trainer has been fitted already; the sidecar is missing; from
                ``fit``: it is one of other losses or widths, or damaged.
        """
        if self.distiller is not None:
            raise CheckpointError(
                f"resume_checkpoint({str(resume_file)!r}) comes after fit, when the projectors are "
                "built already. Make a new trainer, and call it before fit."
            )
        if not Path(sidecar_path(resume_file)).is_file():
            raise CheckpointError(
                f"{sidecar_path(resume_file)} is missing: the projectors of {resume_file} are in "
                "it. Put it back beside the checkpoint, or train without resuming."
            )
        try:
            super().resume_checkpoint(resume_file)  # type: ignore[misc]
        except ValueError as error:
            several = (
                "A model with several optimizers (RecVAE) is saved with one of them only; train it "
                "anew."
            )
            raise CheckpointError(
                f"RecBole cannot resume {self.config['model']} from {resume_file}: {error}. "
                f"{several if len(self._optimizers) > 1 else 'Train it anew.'}"
            ) from error
        self._resume_from = sidecar_path(resume_file)

    def _load_sidecar(self, path: str) -> None:
        try:
            self._apply_sidecar(load_plain(path, self.device), path)
        except (CheckpointError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:  # damaged, or of other widths: torch raises a dozen kinds
            raise CheckpointError(
                f"{path} cannot be used: {error}. Resume with the config it was made with, or "
                "train without resuming."
            ) from error

    def _apply_sidecar(self, state: dict[str, Any], path: str) -> None:
        if state["methods"] != self.methods:
            raise CheckpointError(
                f"{path} holds the projectors of trainer {state['methods']}, the config names "
                f"{self.methods}. Resume with the same trainer."
            )
        self.distiller.load_state_dict(state["distiller"])
        self.distiller.load_extra_state(_on_cpu(state["streams"]))
        for optimizer, stored in zip(self._optimizers, state["optimizers"]):
            own = optimizer.state_dict()
            own["state"].update(stored["state"])
            for group in own["param_groups"][1:]:  # RecBole has taken the checkpoint's, too
                group["lr"] = own["param_groups"][0]["lr"]
            optimizer.load_state_dict(own)


def _on_cpu(streams: dict[str, Any]) -> dict[str, Any]:
    """Generator states live on the CPU, whatever device they are states of."""
    return {
        name: {device: value.cpu() for device, value in states.items()}
        for name, states in streams.items()
    }


class _StudentPart:
    """An optimizer's state without the groups added for the distiller: what RecBole would save."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._state = optimizer.state_dict()

    def state_dict(self) -> dict[str, Any]:
        first = self._state["param_groups"][:1]
        return {"state": _state_of(first, self._state), "param_groups": first}


def _distiller_part(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The rest of :class:`_StudentPart`: state of the parameters in the added groups."""
    whole = optimizer.state_dict()
    return {"state": _state_of(whole["param_groups"][1:], whole)}


def _state_of(groups: list[dict[str, Any]], whole: dict[str, Any]) -> dict[int, Any]:
    """What an optimizer's state holds of the parameters of some of its groups."""
    own = {index for group in groups for index in group["params"]}
    return {index: value for index, value in whole["state"].items() if index in own}
