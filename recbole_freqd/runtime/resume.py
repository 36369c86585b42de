"""Keeps the state of a training after every epoch, and resumes from it exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.identity import run_identity
from recbole_freqd.core.files import fingerprint
from recbole_freqd.core.rng import set_streams, streams
from recbole_freqd.features import registered_adapter
from recbole_freqd.runtime.parts import Fit, Part
from recbole_freqd.runtime.state_file import StateFile

_OUTCOME = ("cur_step", "best_valid_score", "best_valid_result", "train_loss_dict")


class Resume(Part):
    """Keeps the state of a run, and goes on from it with ``resume: true``.

    Before every epoch but the first, all that the rest of the run depends on is written to a file
    beside the checkpoint (``….last.pt``), whole or not at all: model, optimizers, early stopping,
    the random streams of Python, NumPy, torch and the data loaders, what the model keeps outside
    its ``state_dict`` (MultiVAE's annealing, DiffRec's loss history, NCL's clusters), and the state
    of all other parts. With ``resume: true`` a run of the same config, data and versions takes up
    the newest such file in ``checkpoint_dir`` that no living process is using, and ends, on the CPU
    and with as many threads, in the same bits as a run that was never interrupted. Of a finished
    run the results are kept, and taken.

    Of several processes the first one writes the checkpoint, and no state.

    RecBole's own ``resume_checkpoint`` goes on from the best epoch, with other random numbers.

    Attributes:
        file: The state's file, in a run that keeps one.
        to_restore: What was read of it and not put back yet.
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        self.file: Optional[StateFile] = None
        self.to_restore: Optional[dict[str, Any]] = None
        self._untouched: dict[str, tuple[Any, Any]] = {}
        self._generators: list[torch.Generator] = []

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Looks at what a model is like that nothing has trained."""
        yield
        self._untouched = self._attributes()

    @contextmanager
    def fitting(self, fit: Fit) -> Iterator[None]:
        """Opens the file; with ``resume: true`` continues from what it holds.

        Raises:
            CheckpointError: A state cannot be read or written.
        """
        trainer, self.file = self.trainer, None
        if not fit.saved or not trainer.config["single_spec"]:
            yield
            return
        loaders = [loader for loader in (fit.train_data, fit.valid_data) if loader is not None]
        self._generators = [loader.generator for loader in loaders]
        identity, resume = self._identity(fit), bool(trainer.config["resume"])
        opened = StateFile.opened(trainer.run_file, identity[:12], resume, trainer.device)
        with opened as (file, state):
            self.file = file
            if state:
                with file.in_use():
                    self._take_up(state)
            if state and state["finished"]:
                trainer.eval_collector.data_collect(fit.train_data)
                fit.result = trainer.best_valid_score, trainer.best_valid_result
            yield

    def _identity(self, fit: Fit) -> str:
        trainer = self.trainer
        return fingerprint(
            run_identity(trainer.config, fit.train_data._dataset, fit.valid_data),
            trainer.start_epoch,
            *_initial_weights(trainer.model),
            *(array for part in trainer.parts for array in part.depends_on()),
        )

    def begin_epoch(self, epoch: int) -> None:
        """Puts back what was kept before this epoch, or keeps it."""
        if self.to_restore is not None:
            with self.file.in_use():  # type: ignore[union-attr]
                self._restore(self.to_restore)
            self.to_restore.clear()  # it is as large as the model and its optimizers
            self.to_restore = None
        elif self.file is not None and epoch > 0:
            self.write(epoch)

    def end_fit(self, fit: Fit) -> None:
        """Keeps the outcome in place of the state."""
        if self.file is not None and not self.file.is_finished:
            self.file.write(self._progress(self.trainer.epoch, finished=True))

    # --- what is kept -------------------------------------------------------------------------

    def write(self, epoch: int) -> None:
        """Keeps all that the epochs from this one on depend on."""
        self.file.write({**self._progress(epoch), **self._state()})  # type: ignore[union-attr]

    def _progress(self, epoch: int, *, finished: bool = False) -> dict[str, Any]:
        """Gives the progress of a run; of a finished one nothing else is kept."""
        trainer = self.trainer
        best = trainer.best_valid_result
        return {
            "finished": finished,
            "epoch": epoch,
            "run_file": Path(trainer.run_file).name,
            "saved_model_file": self._name_beside(trainer.saved_model_file),
            "cur_step": trainer.cur_step,
            "best_valid_score": float(trainer.best_valid_score),
            "best_valid_result": None if best is None else _floats(best),
            "train_loss_dict": _floats(trainer.train_loss_dict),
            "parts": {
                type(part).__name__: part.state_dict(finished=finished) for part in trainer.parts
            },
            "where": self._environment(),
        }

    def _name_beside(self, path: str) -> str:
        """A path as seen from the state's folder, so that the folder may be moved."""
        same = Path(path).parent == Path(self.trainer.run_file).parent
        return Path(path).name if same else str(Path(path).resolve())

    def _environment(self) -> dict[str, Any]:
        """Lists what may differ when a run is resumed, though not to the last bit."""
        return {
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "device": torch.device(self.trainer.device).type,
            "threads": torch.get_num_threads(),
            "worker": self.trainer.config["worker"],
            "eval_batch_size": self.trainer.config["eval_batch_size"],
        }

    def _state(self) -> dict[str, Any]:
        """What RecBole and the model hold."""
        changed = {
            name: _as_loadable(now[0])
            for name, now in self._attributes().items()
            if name not in self._untouched or not _is_same(self._untouched[name], now)
        }
        return {
            "model": self.trainer.model.state_dict(),
            "attributes": changed,
            "optimizers": [optimizer.state_dict() for optimizer in self.trainer.optimizers],
            "streams": streams(self._generators),
        }

    def _take_up(self, state: dict[str, Any]) -> None:
        """Puts back how far the run was, and the weights; the rest follows in the first epoch.

        Between the two RecBole may draw random numbers, and NCL clusters its embeddings.
        """
        trainer = self.trainer
        for name in _OUTCOME:
            setattr(trainer, name, state[name])
        folder = Path(trainer.run_file).parent
        trainer.run_file = str(folder / state["run_file"])
        trainer.saved_model_file = str(folder / state["saved_model_file"])
        if state["finished"]:
            self._take_best()
            self._restore_parts(state)
            trainer.logger.info(
                "This run is finished; its best model is used: %s", trainer.saved_model_file
            )
            return
        trainer.start_epoch, self.to_restore = state["epoch"], state
        trainer.model.load_state_dict(state["model"])
        trainer.logger.info("Resumed at epoch %d: %s", state["epoch"], trainer.saved_model_file)
        now = self._environment()
        other = [f"{name} was {was}, is {now[name]}" for name, was in state["where"].items()
                 if was != now[name]]  # fmt: skip
        if other:
            trainer.logger.warning("Not resumed to the last bit: %s", "; ".join(other))

    def _take_best(self) -> None:
        """Gives the model the weights of the best epoch; RecBole leaves it with the last one's."""
        trainer, path = self.trainer, self.trainer.saved_model_file
        best = load_checkpoint(path, map_location=trainer.device, trust=True)
        trainer.model.load_state_dict(best["state_dict"])
        trainer.model.load_other_parameter(best.get("other_parameter"))
        for part in trainer.parts:
            part.load_best(path)

    def _attributes(self) -> dict[str, tuple[Any, Any]]:
        """Numbers, arrays and tensors that modules keep outside of ``state_dict``, with a mark.

        But for what is computed from the weights when it is asked for.
        """
        model = self.trainer.model
        adapter, found = registered_adapter(type(model)), {}
        skipped = {"training", *(adapter.caches if adapter else ())}
        for path, module in model.named_modules():
            buffers = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
            for name, value in {**vars(module), **buffers}.items():
                mark = None if name in skipped else _mark(value)
                if mark is not None:
                    found[f"{path}.{name}"] = value, mark
        return found

    def _restore(self, state: dict[str, Any]) -> None:
        for name, value in state["attributes"].items():
            path, _, attribute = name.rpartition(".")
            module = self.trainer.model.get_submodule(path)
            if isinstance(getattr(module, attribute, None), np.ndarray):
                value = value.cpu().numpy()
            setattr(module, attribute, value)
        for optimizer, stored in zip(self.trainer.optimizers, state["optimizers"]):
            optimizer.load_state_dict(stored)
        set_streams(state["streams"], self._generators)
        self._restore_parts(state)

    def _restore_parts(self, state: dict[str, Any]) -> None:
        for part in self.trainer.parts:
            part.load_state_dict(state["parts"][type(part).__name__])


def _floats(values: dict[Any, Any]) -> dict[Any, float]:
    return {name: float(value) for name, value in values.items()}


def _mark(value: Any) -> Any:
    """Marks a value, so that a change in place is seen; None for what is not kept."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        return value._version
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return fingerprint(value)
    return 0 if value is None or isinstance(value, (bool, int, float)) else None


def _is_same(before: tuple[Any, Any], now: tuple[Any, Any]) -> bool:
    if isinstance(now[0], (torch.Tensor, np.ndarray)):
        return now[0] is before[0] and now[1] == before[1]
    return type(now[0]) is type(before[0]) and now[0] == before[0]


def _as_loadable(value: Any) -> Any:
    """A value as ``torch.load`` reads it without pickle."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.detach() if isinstance(value, torch.Tensor) else value


def _initial_weights(model: torch.nn.Module) -> list[np.ndarray]:
    """The bytes of the weights that a training begins with."""
    return [
        value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        for value in model.state_dict().values()
        if isinstance(value, torch.Tensor) and value.layout == torch.strided
    ]
