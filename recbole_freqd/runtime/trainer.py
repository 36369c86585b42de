"""The one mixin over RecBole's trainers: it calls parts where RecBole leaves room for them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import torch
from torch import nn

from recbole_freqd.core.files import new_checkpoint_path, write_atomically
from recbole_freqd.runtime.average import WeightAverage
from recbole_freqd.runtime.distributed import SeveralProcesses
from recbole_freqd.runtime.finite import FiniteNumbers
from recbole_freqd.runtime.parts import Fit, Part
from recbole_freqd.runtime.processes import Processes
from recbole_freqd.runtime.resume import Resume
from recbole_freqd.runtime.seconds import Seconds

P = TypeVar("P", bound=Part)


class PartsTrainer:
    """A mixin over a RecBole trainer that calls its parts, see :class:`Part`, in order.

    Steps, batches, early stopping and validation stay the host's own, whatever it overrides: only
    what is listed here is wrapped, and always calls the host.

    Args:
        config, model: As RecBole's.

    Attributes:
        parts: What is called, in order.
        processes: All processes that train this model together.
        optimizers: All that the host has built; RecVAE takes turns.
        trained_beside: Modules that the optimizers train beside the model, by name.
        epoch: The epoch that runs, or ran last.
        steps, terms: Steps of this epoch and sums of the parts of its loss, where a part of the
            trainer knows these.
        run_file: The name that all files of this run are made from: RaCT saves under several.
    """

    def __init__(self, config: Any, model: nn.Module) -> None:
        self.config = config  # RecBole sets it, too: parts read it before
        self.processes = Processes.of(config)
        self.optimizers: list[torch.optim.Optimizer] = []
        self.trained_beside: dict[str, nn.Module] = {}
        self.epoch, self.steps = 0, 0
        self.terms: dict[str, torch.Tensor] = {}
        self.parts = self.make_parts()
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.starting())
            super().__init__(config, model)  # type: ignore[call-arg]
        # RecBole's own name goes by the second: two runs would share it.
        self.saved_model_file = self.processes.from_first(
            lambda: new_checkpoint_path(self.checkpoint_dir, self.run_name)  # type: ignore[attr-defined]
        )
        self.run_file = self.saved_model_file

    def make_parts(self) -> list[Part]:
        """The parts of this kind of trainer, in order."""
        first = [SeveralProcesses(self), FiniteNumbers(self), WeightAverage(self)]
        return [*first, Resume(self), Seconds(self)]

    def part(self, kind: type[P]) -> P:
        """The part of a class."""
        return next(part for part in self.parts if isinstance(part, kind))

    @property
    def run_name(self) -> str:
        """What the names of its files begin with."""
        return str(self.config["model"])

    def seconds_per_epoch(self) -> Optional[float]:
        """Median seconds of an epoch without its validation, or None before the first."""
        return self.part(Seconds).per_epoch()

    # --- fit ------------------------------------------------------------------------------------

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As RecBole's ``fit``, with all parts.

        Raises:
            FreqDError: What a part has found.
        """
        fit = self.prepare(train_data, valid_data, verbose, saved)
        with self.fitting(fit):
            if fit.result is None:
                fit.result = super().fit(train_data, valid_data, verbose, saved, *args, **kwargs)  # type: ignore[misc]
            for part in self.parts:
                part.end_fit(fit)
        return fit.result

    def prepare(
        self, train_data: Any, valid_data: Any = None, verbose: bool = True, saved: bool = True
    ) -> Fit:
        """What ``fit`` begins with; called before it, the rest of ``fit`` finds it done."""
        fit = Fit(train_data, valid_data, verbose, saved)
        for part in self.parts:
            part.begin_fit(fit)
        return fit

    @contextmanager
    def fitting(self, fit: Fit) -> Iterator[None]:
        """While open, epochs are trained with all parts."""
        with ExitStack() as stack:
            stack.enter_context(self._folded_loss())
            for part in self.parts:
                stack.enter_context(part.fitting(fit))
            yield

    @contextmanager
    def _folded_loss(self) -> Iterator[None]:
        """While open, the model's ``calculate_loss`` is what the parts make of it.

        RecBole's ``_train_epoch(loss_func=...)`` does not reach all of its trainers.
        """
        model: Any = self.model  # type: ignore[attr-defined]
        own, base = vars(model).get("calculate_loss"), model.calculate_loss
        loss = base
        for part in self.parts:
            loss = part.fold_loss(loss)
        if loss is not base:
            model.calculate_loss = loss
        try:
            yield
        finally:
            vars(model).pop("calculate_loss", None)
            if own is not None:
                model.calculate_loss = own

    # --- an epoch, a step, a validation ---------------------------------------------------------

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.epoch, self.steps, self.terms = epoch_idx, 0, {}
        for part in self.parts:
            part.begin_epoch(epoch_idx)
        try:
            result = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)  # type: ignore[misc]
        except RuntimeError as error:
            for part in self.parts:
                part.explain(error)
            raise
        for part in self.parts:
            part.end_epoch(epoch_idx)
        return result

    def _check_nan(self, loss: torch.Tensor) -> None:
        """In place of RecBole's: what one process finds, all raise."""

        def check() -> None:
            for part in self.parts:
                part.check(loss)

        self.processes.run_in_all(check)

    def sync_grad_loss(self) -> Any:
        """As RecBole's: every parameter has a gradient in every process, if only of zero."""
        loss = super().sync_grad_loss()  # type: ignore[misc]
        return loss + sum(torch.sum(parameter) * 0 for parameter in self.parameters_beside())

    def parameters_beside(self) -> list[nn.Parameter]:
        """All parameters of :attr:`trained_beside`."""
        return [p for module in self.trained_beside.values() for p in module.parameters()]

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> Any:
        score, result = super()._valid_epoch(*args, **kwargs)  # type: ignore[misc]
        for part in self.parts:
            part.end_validation(score)
        return score, result

    def evaluate(self, eval_data: Any, *args: Any, **kwargs: Any) -> Any:
        """As RecBole's; the result is that of all users, in every process."""
        for part in self.parts if eval_data else ():
            part.begin_evaluation(eval_data)
        return super().evaluate(eval_data, *args, **kwargs)  # type: ignore[misc]

    def _map_reduce(self, result: Any, num_sample: int) -> Any:
        return result  # of all of them already

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        self.optimizers.append(super()._build_optimizer(**kwargs))  # type: ignore[misc]
        return self.optimizers[-1]

    # --- files ----------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """As RecBole's, but whole or not at all: it writes over the best there was."""
        path = kwargs.get("saved_model_file", self.saved_model_file)
        save = super()._save_checkpoint  # type: ignore[misc]
        self._save(path, lambda temporary: save(epoch, False, saved_model_file=temporary))
        if verbose:
            self.logger.info("Saving current: %s", path)  # type: ignore[attr-defined]

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """As RecBole's ``PretrainTrainer`` (RaCT), but under the name of this run, and whole."""
        path = f"{Path(self.run_file).with_suffix('')}-{epoch + 1}.pth"
        save = super().save_pretrained_model  # type: ignore[misc]
        self._save(path, lambda temporary: save(epoch, temporary))
        self.saved_model_file = path
        self.logger.info("It is kept as %s", path)  # type: ignore[attr-defined]

    def _save(self, path: str, save: Callable[[str], None]) -> None:
        """The first process writes; none goes on before the file is there, on every machine."""
        self.processes.run_in_all(
            lambda: self._write(path, save), takes_part=self.processes.is_first
        )
        self.processes.hand_over([Path(path)])

    def _write(self, path: str, save: Callable[[str], None]) -> None:
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.saving(path))
            write_atomically(path, save)

    def resume_checkpoint(self, resume_file: Any) -> None:
        """As RecBole's, with what the parts have kept beside the checkpoint.

        Raises:
            CheckpointError: It cannot be gone on from.
        """
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.loading(str(resume_file)))
            super().resume_checkpoint(resume_file)  # type: ignore[misc]

    def forget(self) -> None:
        """Removes all that the run has left, when its outcome is kept elsewhere."""
        run = Path(self.run_file)
        for pattern in (".*", "-*.pth"):  # RaCT's of every stage
            for path in run.parent.glob(f"{escape(run.stem)}{pattern}"):
                path.unlink(missing_ok=True)


@cache
def mix_into(mixin: type, trainer_class: type) -> type:
    """``mixin`` over a RecBole trainer class (or over the host of a dispatching one)."""
    # Of a class that inherits from one: itself.
    host = vars(trainer_class).get("fit_host", trainer_class)
    return type(f"{mixin.__name__}Over{host.__name__}", (mixin, host), {"fit_host": host})
