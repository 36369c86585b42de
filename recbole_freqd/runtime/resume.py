"""Training that survives its process: the state after every epoch, and going on from it exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from glob import escape
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Optional

import numpy as np
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.identity import run_identity
from recbole_freqd.core.files import fingerprint, new_checkpoint_path, write_atomically
from recbole_freqd.core.rng import set_streams, streams
from recbole_freqd.features import registered_adapter
from recbole_freqd.runtime.distributed import DistributedTrainer
from recbole_freqd.runtime.processes import as_in_one_process
from recbole_freqd.runtime.state_file import StateFile


class ResumableTrainer(DistributedTrainer):
    """A mixin over a RecBole trainer that keeps its state, and goes on from it with ``resume``.

    Before every epoch but the first, all that the rest of the run depends on is written to a file
    beside the checkpoint (``….last.pt``), whole or not at all: model, optimizers, early stopping,
    the random streams of Python, NumPy, torch and the data loaders, and what the model keeps
    outside its ``state_dict`` (MultiVAE's annealing, DiffRec's loss history, NCL's clusters). With
    ``resume: true`` a run of the same config, data and versions takes up the newest such file in
    ``checkpoint_dir`` that no living process is using, and ends, on the CPU and with as many
    threads, in the same bits as a run that was never interrupted. Of a finished run the results
    are kept, and taken.

    Of several processes the first one writes the checkpoint, and no state.

    RecBole's own ``resume_checkpoint`` goes on from the best epoch, with other random numbers.

    Attributes:
        epoch_seconds: How long the training part of each epoch took, resumed ones included.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        self._optimizers: list[torch.optim.Optimizer] = []
        self.epoch_seconds: list[float] = []
        super().__init__(config, model)  # type: ignore[call-arg]
        # RecBole's own name goes by the second: two runs would share it.
        self.saved_model_file = self.processes.agreed(
            lambda: new_checkpoint_path(self.checkpoint_dir, self._stem(config))
        )
        self._run_file = self.saved_model_file  # RaCT saves under several names made from it
        self._untouched = self._attributes()
        self._file: Optional[StateFile] = None
        self._to_restore: Optional[dict[str, Any]] = None
        self._generators: list[torch.Generator] = []

    def _stem(self, config: Any) -> str:
        return str(config["model"])

    def _begin_epoch(self, epoch: int) -> None:
        """What is drawn per epoch is drawn here, when all streams are where they were."""

    def _taught(self) -> tuple[np.ndarray, ...]:
        """Arrays that a run depends on beside its config and data."""
        return ()

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        """As RecBole's; remembers them all, since a host may have several (RecVAE takes turns)."""
        self._optimizers.append(super()._build_optimizer(**kwargs))  # type: ignore[misc]
        return self._optimizers[-1]

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As RecBole's ``fit``; with ``resume: true`` it goes on where such a run was cut off.

        Raises:
            CheckpointError: A state cannot be read or written.
        """
        self._file = None
        if not saved or not self.config["single_spec"]:
            return super().fit(train_data, valid_data, verbose, saved, *args, **kwargs)  # type: ignore[misc]
        loaders = [loader for loader in (train_data, valid_data) if loader is not None]
        self._generators = [loader.generator for loader in loaders]
        identity = fingerprint(
            run_identity(self.config, train_data._dataset, valid_data),
            self.start_epoch,
            *_start(self.model),
            *self._taught(),
        )
        resume = bool(self.config["resume"])
        with StateFile.opened(self._run_file, identity[:12], resume, self.device) as (file, state):
            self._file = file
            if state:
                with file.in_use():
                    self._take_up(state)
            if state and state["finished"]:
                self.eval_collector.data_collect(train_data)
                return self.best_valid_score, self.best_valid_result
            result = super().fit(train_data, valid_data, verbose, saved, *args, **kwargs)  # type: ignore[misc]
            file.write(self._progress(finished=True))
        return result

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        if self._to_restore is not None:
            with self._file.in_use():
                self._restore(self._to_restore)
            self._to_restore.clear()  # it is as large as the model and its optimizers
            self._to_restore = None
        elif self._file is not None and epoch_idx > 0:
            self._file.write({**self._progress(epoch_idx), **self._state()})
        start = perf_counter()
        self._begin_epoch(epoch_idx)
        result = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)  # type: ignore[misc]
        self.epoch_seconds.append(perf_counter() - start)
        return result

    def forget(self) -> None:
        """Removes all that the run has left, when its outcome is kept elsewhere."""
        run = Path(self._run_file)
        for pattern in (".*", "-*.pth"):  # RaCT's of every stage
            for path in run.parent.glob(f"{escape(run.stem)}{pattern}"):
                path.unlink(missing_ok=True)

    def seconds_per_epoch(self) -> Optional[float]:
        """Median seconds of an epoch without its validation, or None before the first."""
        return float(np.median(self.epoch_seconds)) if self.epoch_seconds else None

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """As RecBole's, but whole or not at all: it writes over the best there was."""
        path = kwargs.get("saved_model_file", self.saved_model_file)
        self._save(path, lambda: self._write_checkpoint(path, epoch))
        if verbose:
            self.logger.info("Saving current: %s", path)

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """As RecBole's ``PretrainTrainer`` (RaCT), but under the name of this run, and whole."""
        path = f"{Path(self._run_file).with_suffix('')}-{epoch + 1}.pth"
        self._save(path, lambda: self._write_pretrained(path, epoch))
        self.saved_model_file = path
        self.logger.info("It is kept as %s", path)

    def _save(self, path: str, write: Callable[[], None]) -> None:
        """The first process writes; none goes on before the file is there, on every machine."""
        self.processes.together(write, here=self.processes.is_first)
        self.processes.hand_over([Path(path)])

    def _write_checkpoint(self, path: str, epoch: int) -> None:
        save = super()._save_checkpoint  # type: ignore[misc]
        with self._config_of_one_process():
            write_atomically(path, lambda temporary: save(epoch, False, saved_model_file=temporary))

    def _write_pretrained(self, path: str, epoch: int) -> None:
        save = super().save_pretrained_model  # type: ignore[misc]
        with self._config_of_one_process():
            write_atomically(path, lambda temporary: save(epoch, temporary))

    @contextmanager
    def _config_of_one_process(self) -> Iterator[None]:
        """While open, RecBole sees the Config that it can build the model from again, alone."""
        config = self.config
        self.config = as_in_one_process(config)
        try:
            yield
        finally:
            self.config = config

    # --- what is kept -------------------------------------------------------------------------

    def _progress(self, epoch: int = 0, *, finished: bool = False) -> dict[str, Any]:
        """How far the run is; all that is kept of a finished one."""
        best = self.best_valid_result
        return {
            "finished": finished,
            "epoch": epoch,
            "run_file": Path(self._run_file).name,
            "saved_model_file": self._beside(self.saved_model_file),
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": None if best is None else _floats(best),
            "train_loss_dict": _floats(self.train_loss_dict),
            "epoch_seconds": self.epoch_seconds,
            "where": self._where(),
        }

    def _beside(self, path: str) -> str:
        """A path as seen from the state's folder, so that the folder may be moved."""
        same = Path(path).parent == Path(self._run_file).parent
        return Path(path).name if same else str(Path(path).resolve())

    def _where(self) -> dict[str, Any]:
        """What a run may be resumed with otherwise, but then not to the last bit."""
        return {
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "device": torch.device(self.device).type,
            "threads": torch.get_num_threads(),
            "worker": self.config["worker"],
            "eval_batch_size": self.config["eval_batch_size"],
        }

    def _state(self) -> dict[str, Any]:
        """All that the epochs to come depend on."""
        changed = {
            name: _plain(now[0])
            for name, now in self._attributes().items()
            if name not in self._untouched or not _is_same(self._untouched[name], now)
        }
        return {
            "model": self.model.state_dict(),
            "attributes": changed,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "streams": streams(self._generators),
        }

    def _take_up(self, state: dict[str, Any]) -> None:
        """Puts back how far the run was, and the weights; the rest follows in the first epoch.

        Between the two RecBole may draw random numbers, and NCL clusters its embeddings.
        """
        for name in ("cur_step", "best_valid_score", "best_valid_result", "train_loss_dict"):
            setattr(self, name, state[name])
        self.epoch_seconds, folder = list(state["epoch_seconds"]), Path(self._run_file).parent
        self._run_file = str(folder / state["run_file"])
        self.saved_model_file = str(folder / state["saved_model_file"])
        if state["finished"]:
            self._take_best()
            self.logger.info("Finished already, its best model is taken: %s", self.saved_model_file)
            return
        self.start_epoch, self._to_restore = state["epoch"], state
        self.model.load_state_dict(state["model"])
        self.logger.info("Resumed at epoch %d: %s", state["epoch"], self.saved_model_file)
        now = self._where()
        other = [f"{name} was {was}, is {now[name]}" for name, was in state["where"].items()
                 if was != now[name]]  # fmt: skip
        if other:
            self.logger.warning("Not resumed to the last bit: %s", "; ".join(other))

    def _take_best(self) -> None:
        """Gives the model the weights of the best epoch; RecBole leaves it with the last one's."""
        best = load_checkpoint(self.saved_model_file, map_location=self.device, trust=True)
        self.model.load_state_dict(best["state_dict"])
        self.model.load_other_parameter(best.get("other_parameter"))

    def _attributes(self) -> dict[str, tuple[Any, Any]]:
        """Numbers, arrays and tensors that modules keep outside of ``state_dict``, with a mark.

        But for what is computed from the weights when it is asked for.
        """
        adapter, found = registered_adapter(type(self.model)), {}
        skipped = {"training", *(adapter.caches if adapter else ())}
        for path, module in self.model.named_modules():
            buffers = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
            for name, value in {**vars(module), **buffers}.items():
                mark = None if name in skipped else _mark(value)
                if mark is not None:
                    found[f"{path}.{name}"] = value, mark
        return found

    def _restore(self, state: dict[str, Any]) -> None:
        for name, value in state["attributes"].items():
            path, _, attribute = name.rpartition(".")
            module = self.model.get_submodule(path)
            if isinstance(getattr(module, attribute, None), np.ndarray):
                value = value.cpu().numpy()
            setattr(module, attribute, value)
        for optimizer, stored in zip(self._optimizers, state["optimizers"]):
            optimizer.load_state_dict(stored)
        set_streams(state["streams"], self._generators)


@cache
def over(mixin: type, found: type) -> type:
    """``mixin`` over a RecBole trainer class (or over the host of a dispatching one)."""
    host = vars(found).get("fit_host", found)  # of a class that inherits from one: itself
    return type(f"{mixin.__name__}Over{host.__name__}", (mixin, host), {"fit_host": host})


def _floats(values: dict[Any, Any]) -> dict[Any, float]:
    return {name: float(value) for name, value in values.items()}


def _mark(value: Any) -> Any:
    """What is another one once a value was changed in place, or None for what is not kept."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        return value._version
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return fingerprint(value)
    return 0 if value is None or isinstance(value, (bool, int, float)) else None


def _is_same(before: tuple[Any, Any], now: tuple[Any, Any]) -> bool:
    if isinstance(now[0], (torch.Tensor, np.ndarray)):
        return now[0] is before[0] and now[1] == before[1]
    return type(now[0]) is type(before[0]) and now[0] == before[0]


def _plain(value: Any) -> Any:
    """A value as ``torch.load`` reads it without pickle."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.detach() if isinstance(value, torch.Tensor) else value


def _start(model: torch.nn.Module) -> list[np.ndarray]:
    """The bytes of the weights that a training begins with."""
    return [
        value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        for value in model.state_dict().values()
        if isinstance(value, torch.Tensor) and value.layout == torch.strided
    ]
