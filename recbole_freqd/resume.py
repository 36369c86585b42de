"""Training that survives its process: the state after every epoch, and going on from it exactly."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, Optional

import numpy as np
import torch
from filelock import FileLock, Timeout

from recbole_freqd.checkpoint import (
    fingerprint,
    load_plain,
    new_checkpoint_path,
    write_atomically,
)
from recbole_freqd.features import registered_adapter
from recbole_freqd.finite import FiniteTrainer
from recbole_freqd.identity import run_identity

logger = logging.getLogger(__name__)


class ResumableTrainer(FiniteTrainer):
    """A mixin over a RecBole trainer that keeps its state, and goes on from it with ``resume``.

    Before every epoch but the first, all that the rest of the run depends on is written to a file
    beside the checkpoint (``….last.pt``), whole or not at all: model, optimizers, early stopping,
    the random streams of Python, NumPy, torch and the data loaders, and what the model keeps
    outside its ``state_dict`` (MultiVAE's annealing, DiffRec's loss history, NCL's clusters). With
    ``resume: true`` a run of the same config, data and versions takes up the newest such file in
    ``checkpoint_dir`` that no living process is using, and ends, on the CPU and with as many
    threads, in the same bits as a run that was never interrupted. Of a finished run the results
    are kept, and taken.

    RecBole's own ``resume_checkpoint`` goes on from the best epoch, with other random numbers.

    Attributes:
        epoch_seconds: How long the training part of each epoch took, resumed ones included.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        self._optimizers: list[torch.optim.Optimizer] = []
        self.epoch_seconds: list[float] = []
        super().__init__(config, model)  # type: ignore[call-arg]
        # RecBole's own name goes by the second: two runs would share it.
        self.saved_model_file = new_checkpoint_path(self.checkpoint_dir, self._stem(config))
        self._run_file = self.saved_model_file  # RaCT saves under several names made from it
        self._untouched = self._attributes()
        self._file: Optional[_StateFile] = None
        self._to_restore: Optional[dict[str, Any]] = None
        self._generators: list[torch.Generator] = []

    def _stem(self, config: Any) -> str:
        return str(config["model"])

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
        if not saved:
            return super().fit(train_data, valid_data, verbose, saved, *args, **kwargs)  # type: ignore[misc]
        loaders = [loader for loader in (train_data, valid_data) if loader is not None]
        self._generators = [loader.generator for loader in loaders]
        identity = fingerprint(
            run_identity(self.config, train_data._dataset, valid_data), *self._taught()
        )
        with _StateFile.opened(self._run_file, identity[:12], self.config["resume"]) as file:
            self._file, state = file, file.read(self.device)
            if state is not None:
                self._take_up(state)
            if state is not None and state["finished"]:
                self.eval_collector.data_collect(train_data)
                return self.best_valid_score, self.best_valid_result
            result = super().fit(train_data, valid_data, verbose, saved, *args, **kwargs)  # type: ignore[misc]
            file.write(self._progress(finished=True))
        return result

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        if self._to_restore is not None:
            self._restore(self._to_restore)
            self._to_restore = None
        elif self._file is not None and epoch_idx > 0:
            self._file.write({**self._progress(epoch_idx), **self._state()})
        start = perf_counter()
        result = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)  # type: ignore[misc]
        self.epoch_seconds.append(perf_counter() - start)
        return result

    def forget(self) -> None:
        """Removes what the run has left, when its outcome is kept elsewhere."""
        for path in (self.saved_model_file, self._file and self._file.path):
            if path is not None:
                Path(path).unlink(missing_ok=True)

    def seconds_per_epoch(self) -> Optional[float]:
        """Median seconds of the training part of an epoch, or None before the first."""
        return float(np.median(self.epoch_seconds)) if self.epoch_seconds else None

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """As RecBole's, but whole or not at all: it writes over the best there was."""
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        save = super()._save_checkpoint  # type: ignore[misc]
        write_atomically(
            path, lambda temporary: save(epoch, False, saved_model_file=temporary, **kwargs)
        )
        if verbose:
            self.logger.info("Saving current: %s", path)

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """As RecBole's ``PretrainTrainer`` (RaCT), but under the name of this run, and whole."""
        path = f"{Path(self._run_file).with_suffix('')}-{epoch + 1}.pth"
        save = super().save_pretrained_model  # type: ignore[misc]
        write_atomically(path, lambda temporary: save(epoch, temporary))
        self.saved_model_file = path
        self.logger.info("It is kept as %s", path)

    # --- what is kept -------------------------------------------------------------------------

    def _progress(self, epoch: int = 0, *, finished: bool = False) -> dict[str, Any]:
        """How far the run is; all that is kept of a finished one."""
        best = self.best_valid_result
        return {
            "finished": finished,
            "epoch": epoch,
            "run_file": Path(self._run_file).name,
            "saved_model_file": Path(self.saved_model_file).name,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": None if best is None else _floats(best),
            "train_loss_dict": _floats(self.train_loss_dict),
            "epoch_seconds": self.epoch_seconds,
        }

    def _state(self) -> dict[str, Any]:
        """All that the epochs to come depend on."""
        now = self._attributes()
        changed = {
            name: value
            for name, (value, version) in now.items()
            if not _is_same(self._untouched.get(name), (value, version))
        }
        return {
            "model": self.model.state_dict(),
            "attributes": changed,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "streams": _streams(self._generators),
        }

    def _take_up(self, state: dict[str, Any]) -> None:
        """Puts back how far the run was, and the weights; the rest follows in the first epoch.

        Between the two RecBole may draw random numbers, and NCL clusters its embeddings.
        """
        for name in ("cur_step", "best_valid_score", "best_valid_result", "train_loss_dict"):
            setattr(self, name, state[name])
        self.start_epoch, self.epoch_seconds = state["epoch"], list(state["epoch_seconds"])
        for name in ("run_file", "saved_model_file"):
            path = str(Path(self._run_file).with_name(state[name]))
            setattr(self, name if name == "saved_model_file" else "_run_file", path)
        if state["finished"]:
            self.logger.info("Finished already, nothing to resume: %s", self.saved_model_file)
            return
        self.model.load_state_dict(state["model"])
        self._to_restore = state
        self.logger.info("Resumed at epoch %d: %s", state["epoch"], self.saved_model_file)

    def _attributes(self) -> dict[str, tuple[Any, int]]:
        """Numbers and tensors that the modules keep outside of ``state_dict``, and their versions.

        But for what is computed from the weights when it is asked for.
        """
        adapter, found = registered_adapter(type(self.model)), {}
        skipped = {"training", *(adapter.caches if adapter else ())}
        for path, module in self.model.named_modules():
            buffers = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
            for name, value in {**vars(module), **buffers}.items():
                if name in skipped:
                    continue
                if value is None or isinstance(value, (bool, int, float)):
                    found[f"{path}.{name}"] = value, 0
                elif isinstance(value, torch.Tensor) and value.layout == torch.strided:
                    found[f"{path}.{name}"] = value, value._version
        return found

    def _restore(self, state: dict[str, Any]) -> None:
        for name, value in state["attributes"].items():
            module, _, attribute = name.rpartition(".")
            setattr(self.model.get_submodule(module), attribute, value)
        for optimizer, stored in zip(self._optimizers, state["optimizers"]):
            optimizer.load_state_dict(stored)
        _set_streams(state["streams"], self._generators)


class _StateFile:
    """The file with the state of one run, locked while a process uses it.

    Its name is that of the checkpoint, then a hash of the run's config, data and versions.

    Args:
        path: ``….last.pt``.
        lock: Held.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path, self._lock, self.finished = path, lock, False

    @classmethod
    @contextmanager
    def opened(cls, checkpoint: str, identity: str, resume: Any) -> Iterator["_StateFile"]:
        """The newest interrupted run of that identity if it is to be resumed, else a new one."""
        folder, own = Path(checkpoint).parent, Path(checkpoint).with_suffix(f".{identity}.last.pt")
        found = sorted(
            folder.glob(f"*.{identity}.last.pt"),
            key=lambda file: file.stat().st_mtime,
            reverse=True,
        )
        for path in [*(found if resume else []), own]:
            lock = FileLock(f"{path}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.info("%s is in use by another process, so it is not resumed.", path)
                continue
            break
        if found and not resume:
            logger.info(
                "There is an earlier run of the same config: %s. resume: true (--resume) takes it "
                "up instead of starting anew.",
                found[0],
            )
        elif resume and path == own:
            logger.info("Nothing to resume in %s: this run starts anew.", folder)
        file = cls(path, lock)
        try:
            yield file
        finally:
            lock.release()
            if file.finished:  # else another process may be waiting for this very file
                Path(lock.lock_file).unlink(missing_ok=True)

    def read(self, device: Any) -> Optional[dict[str, Any]]:
        """The state, or None where there is none yet, or its checkpoint is gone.

        Raises:
            CheckpointError: It is damaged.
        """
        if not self.path.is_file():
            return None
        state = load_plain(self.path, map_location=device)
        self.finished = state["finished"]
        missing = not self.path.with_name(state["saved_model_file"]).is_file()
        if missing and (state["finished"] or np.isfinite(state["best_valid_score"])):
            logger.warning("The best model of %s is gone: this run starts anew.", self.path)
            return None
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Puts a newer state in the place of the one of before."""
        write_atomically(self.path, lambda temporary: torch.save(state, temporary))
        self.finished = state["finished"]


def _age(file: Path) -> float:
    """Smaller for newer files."""
    return -file.stat().st_mtime


@cache
def over(mixin: type, found: type) -> type:
    """``mixin`` over a RecBole trainer class (or over the host of a dispatching one)."""
    host = getattr(found, "fit_host", found)
    return type(f"{mixin.__name__}Over{host.__name__}", (mixin, host), {"fit_host": host})


def _floats(values: dict[Any, Any]) -> dict[Any, float]:
    return {name: float(value) for name, value in values.items()}


def _is_same(before: Optional[tuple[Any, int]], now: tuple[Any, int]) -> bool:
    if before is None:
        return False
    if isinstance(now[0], torch.Tensor):
        return now[0] is before[0] and now[1] == before[1]
    return type(now[0]) is type(before[0]) and now[0] == before[0]


def _streams(generators: list[torch.Generator]) -> dict[str, Any]:
    """States of all random streams that RecBole draws from."""
    version, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)
    return {
        "python": [version, list(words), gauss],
        "numpy": {
            "key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "pos": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loaders": [generator.get_state() for generator in generators],
    }


def _set_streams(states: dict[str, Any], generators: list[torch.Generator]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    of_numpy = states["numpy"]
    key = of_numpy["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, of_numpy["pos"], of_numpy["has_gauss"], of_numpy["gauss"]))
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    for generator, state in zip(generators, states["loaders"]):
        generator.set_state(state.cpu())
