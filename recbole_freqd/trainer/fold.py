"""Teaches: finds the teacher, and folds the distillation loss into the student's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from recbole_freqd.config.identity import data_fingerprint, same_data
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features import FeatureAdapter, StudentRanker, shared_features
from recbole_freqd.losses import LOSSES
from recbole_freqd.runtime.parts import Fit, Part
from recbole_freqd.teacher import Teacher, find_teacher
from recbole_freqd.trainer.distiller import Distiller


class Distillation(Part):
    """Adds Σ β L to the student's loss.

    The teacher is found, trained or loaded when ``fit`` first sees the data. In one of several
    processes what is drawn per epoch follows from seed and epoch, and is the same in all of them;
    what is drawn per step follows from seed, epoch, step and rank.

    Args:
        trainer: The trainer.
        methods: Names of the losses.
        adapter: How the student's features are read.

    Attributes:
        teacher, distiller: From ``fit`` on.
        data: What the data was, see :func:`recbole_freqd.config.identity.data_fingerprint`.
    """

    def __init__(self, trainer: Any, methods: list[str], adapter: FeatureAdapter) -> None:
        super().__init__(trainer)
        self.methods, self.adapter = methods, adapter
        self.teacher: Optional[Teacher] = None
        self.distiller: Any = None
        self.data: dict[str, str] = {}

    def begin_fit(self, fit: Fit) -> None:
        """Finds the teacher and builds the losses, once.

        Raises:
            ConfigError: A second ``fit`` brings other data than the first.
            CheckpointError, TeacherError: The teacher cannot be made, or does not fit.
        """
        dataset = fit.train_data._dataset
        if self.distiller is None:
            self._find(fit, dataset)
        elif not same_data(self.data, data_fingerprint(dataset)):
            raise ConfigError(
                "fit was called again with other data than before, and teacher, graphs and "
                "projectors belong to the earlier data. Make a new trainer."
            )

    def _find(self, fit: Fit, dataset: Any) -> None:
        trainer = self.trainer
        self.teacher = teacher = find_teacher(trainer.config, fit.train_data, fit.valid_data)
        reads_scores = any(LOSSES.get(method).reads_scores for method in self.methods)
        self.distiller = Distiller(
            trainer.config,
            self.methods,
            trainer.model,
            self.adapter,
            dataset,
            teacher.features,
            teacher.known,
            self.taught(dataset) if reads_scores else None,
            teacher.trajectory_rankers(dataset),
            trainer.processes.make_once,
        )
        for optimizer in trainer.optimizers:
            for group in self.distiller.parameter_groups():
                optimizer.add_param_group(group)
        trainer.trained_beside = dict(self.distiller.losses)
        self.data = data_fingerprint(dataset)

    def taught(self, dataset: Any) -> Ranker:
        """Gives the ranker of what is taught, for losses that read scores and for a warm start."""
        return self.teacher.ranker(dataset)  # type: ignore[union-attr]

    def depends_on(self) -> tuple[np.ndarray, ...]:
        """What is taught."""
        return self.teacher.depends_on()  # type: ignore[union-attr]

    @contextmanager
    def fitting(self, fit: Fit) -> Iterator[None]:
        """Clips the gradients of all that is trained.

        RecBole clips ``model.parameters()`` only, and before a GradScaler has unscaled them: here
        it is done where the optimizer is about to step.
        """
        trainer = self.trainer
        clip, trainer.clip_grad_norm = trainer.clip_grad_norm, None
        hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._clip(clip))
            for optimizer in trainer.optimizers
        ]
        self.distiller.train()
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            trainer.clip_grad_norm = clip

    def _clip(self, arguments: Optional[dict[str, Any]]) -> None:
        if arguments:
            every = [*self.trainer.model.parameters(), *self.distiller.parameters()]
            clip_grad_norm_(every, **arguments)

    def fold_loss(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """Makes the student's loss and ours from one pass."""
        if not self.distiller.losses:
            return loss
        model = self.trainer.model

        def calculate_loss(*args: Any, **kwargs: Any) -> Any:
            with shared_features(model, self.adapter) as features:
                base = loss(*args, **kwargs)
                interaction = args[0] if args else kwargs["interaction"]
                return self.add(base, self.distiller(self._readable(features()), interaction))

        return calculate_loss

    def _readable(self, features: FeatureRows) -> FeatureRows:
        """The student's features for a step, whose random numbers begin here."""
        trainer = self.trainer
        if trainer.config["single_spec"]:
            return features
        self.distiller.restart_streams(trainer.epoch, trainer.steps, trainer.processes.rank)
        return replace(features, in_place=False)  # DistributedDataParallel has to see gradients

    def add(self, base: Any, terms: dict[str, torch.Tensor]) -> Any:
        """Adds Σ β L to the first part of what the base loss returned, and keeps its form.

        RecVAE breaks on a tuple, and NCL's warm-up drops the last element of one.
        """
        self.trainer.steps += 1
        first = base[0] if isinstance(base, tuple) else base
        self._count("base", sum(base) if isinstance(base, tuple) else base)
        for method, term in terms.items():
            self._count(method, term)
            first = first + self.distiller.betas[method] * term
        return (first, *base[1:]) if isinstance(base, tuple) else first

    def _count(self, name: str, value: torch.Tensor) -> None:
        """Adds to a sum on the device: no wait for the accelerator in a step."""
        sums = self.trainer.terms
        sums[name] = sums.get(name, 0.0) + value.detach().float()

    def begin_epoch(self, epoch: int) -> None:
        """Tells the losses which epoch begins: what is drawn per epoch is drawn here."""
        if not self.trainer.config["single_spec"]:
            self.distiller.restart_streams(epoch)
        self.distiller.start_epoch(epoch, StudentRanker(self.trainer.model, self.adapter))

    def end_epoch(self, epoch: int) -> None:
        """Raises TrainingError where an epoch went by without the student's ``calculate_loss``."""
        if self.distiller.losses and not self.trainer.steps:
            raise TrainingError(
                f"Epoch {epoch} of {type(self.trainer).__name__} never called the calculate_loss "
                f"of {type(self.trainer.model).__name__}, which is where {', '.join(self.methods)} "
                "comes in: the student would learn without its teacher. Let the trainer of the "
                "student call model.calculate_loss(interaction) in every epoch, or leave trainer "
                "out."
            )

    def end_fit(self, fit: Fit) -> None:
        """Raises TrainingError where no model was saved although asked for."""
        trainer, config = self.trainer, self.trainer.config
        if fit.saved and not Path(trainer.saved_model_file).is_file():
            raise TrainingError(
                f"{config['model']} trained but saved no model. RecBole saves one at the "
                f"first validation: eval_step is {config['eval_step']}, epochs "
                f"{config['epochs']}. (RaCT saves every save_step epochs: "
                f"{config['save_step']} of pretrain_epochs {config['pretrain_epochs']}.)"
            )

    def state_dict(self, *, finished: bool) -> dict[str, Any]:
        """What is trained beside the student, what was drawn, and our random streams."""
        if finished:
            return {}
        return {
            "own": self.distiller.state_dict(),
            "drawn": self.distiller.epoch_state(),
            "streams": self.distiller.extra_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts it back."""
        if state:
            self.distiller.load_state_dict(state["own"])
            self.distiller.load_epoch_state(state["drawn"])
            self.distiller.load_extra_state(on_cpu(state["streams"]))


def on_cpu(streams: dict[str, Any]) -> dict[str, Any]:
    """Generator states live on the CPU, whatever device they are states of."""
    return {
        name: {device: value.cpu() for device, value in states.items()}
        for name, states in streams.items()
    }
