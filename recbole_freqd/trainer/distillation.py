"""The distillation trainer: a mixin over the student's own RecBole trainer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from recbole_freqd import compat
from recbole_freqd.config.complete import complete_in_place, trainer_names
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features import (
    StudentRanker,
    closed_form_error,
    shared_features,
    student_adapter,
)
from recbole_freqd.features.check import whole_features
from recbole_freqd.features.scores import undisturbed
from recbole_freqd.losses import LOSSES
from recbole_freqd.runtime.resume import over
from recbole_freqd.teacher import Teacher, find_teacher
from recbole_freqd.trainer.distiller import Distiller
from recbole_freqd.trainer.sidecar import SidecarTrainer

_BANDS_EVERY = 5  # epochs between two looks at the bands


class DistillationTrainer(SidecarTrainer):
    """Trains a student with its own loss plus the distillation losses that ``trainer:`` names.

    Everything is the work of the student's own RecBole trainer, which this class is mixed into when
    an instance is made; the distillation is folded into the value of the student's
    ``calculate_loss`` while ``fit`` runs. The teacher is found, trained or loaded when ``fit``
    first sees the data.

    Random numbers for the distillation come from streams of its own, so the student's initial
    weights and its batches are those of stock RecBole for any weight of the loss. In one of several
    processes what is drawn per epoch follows from seed and epoch, and is the same in all of them;
    what is drawn per step follows from seed, epoch, step and rank.

    Args:
        config: A RecBole Config with ``teacher`` and, unless the class implies it, ``trainer``.
        model: The student.

    Attributes:
        adapter: How the student's features are read: a
            :class:`recbole_freqd.features.FeatureAdapter`.
        teacher: The :class:`recbole_freqd.teacher.Teacher`, from ``fit`` on.
        distiller: The :class:`recbole_freqd.trainer.distiller.Distiller`, from ``fit`` on.

    Raises:
        ConfigError: A key is wrong, or the student is a model that cannot be trained or read.
        CheckpointError, TeacherError: From ``fit``: the teacher cannot be had, or does not fit.
    """

    default_trainer: Optional[str] = None

    def __new__(cls, config: Any, model: torch.nn.Module) -> "DistillationTrainer":
        if not hasattr(cls, "fit_host"):
            compat.install_shims()
            from recbole.utils.utils import get_trainer

            cls = over(cls, get_trainer(config["MODEL_TYPE"], config["model"]))
        return object.__new__(cls)

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        compat.install_shims()
        complete_in_place(config, self.default_trainer)
        check_student(type(model), config["MODEL_TYPE"])
        self.adapter = student_adapter(model)
        self.methods = trainer_names(config["trainer"])
        super().__init__(config, model)
        self.teacher: Optional[Teacher] = None
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._verbose = True

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As RecBole's ``fit``, with the teacher found first.

        Raises:
            TrainingError: A loss or weights that are not finite, an epoch without any call of the
                student's ``calculate_loss``, or no model was saved although asked for.
        """
        self._verbose = verbose
        self._prepare(train_data, valid_data)
        with self._distilling():
            result = super().fit(train_data, valid_data, verbose, saved, *args, **kwargs)
        if saved and not Path(self.saved_model_file).is_file():
            raise TrainingError(
                f"{self.config['model']} trained but saved no model. RecBole saves one at the "
                f"first validation: eval_step is {self.config['eval_step']}, epochs "
                f"{self.config['epochs']}. (RaCT saves every save_step epochs: "
                f"{self.config['save_step']} of pretrain_epochs {self.config['pretrain_epochs']}.)"
            )
        return result

    def _stem(self, config: Any) -> str:
        return f"{config['model']}-{'-'.join(self.methods)}"

    def _taught(self) -> tuple[np.ndarray, ...]:
        return self.teacher.depends_on()

    def _prepare(self, train_data: Any, valid_data: Any) -> None:
        if self.distiller is not None:
            return self._refuse_other_data(train_data._dataset)
        self.teacher = find_teacher(self.config, train_data, valid_data)
        self.distiller = Distiller(
            self.config,
            self.methods,
            self.model,
            self.adapter,
            train_data._dataset,
            self.teacher.features,
            self.teacher.known,
            self.teacher.ranker(train_data._dataset) if self._reads_scores() else None,
            self.teacher.trajectory_rankers(train_data._dataset),
            self.processes.once_per_machine,
        )
        for optimizer in self._optimizers:
            for group in self.distiller.parameter_groups():
                optimizer.add_param_group(group)
        self.average_also(list(self.distiller.parameters()))
        self._distiller_is_there(train_data._dataset)

    def _reads_scores(self) -> bool:
        return any(LOSSES.get(method).reads_scores for method in self.methods)

    @contextmanager
    def _distilling(self) -> Iterator[None]:
        """While open, the student's loss contains the distillation and clipping knows of it."""
        model, base_loss = self.model, self.model.calculate_loss
        own_override = model.__dict__.get("calculate_loss")

        def calculate_loss(*args: Any, **kwargs: Any) -> Any:
            with shared_features(model, self.adapter) as features:
                base = base_loss(*args, **kwargs)
                interaction = args[0] if args else kwargs["interaction"]
                return self._fold(base, self.distiller(self._readable(features()), interaction))

        # RecBole clips model.parameters() only, and before a GradScaler has unscaled them: clip
        # here instead, where the optimizer is about to step with everything that it trains.
        clip, self.clip_grad_norm = self.clip_grad_norm, None
        hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._clip(clip))
            for optimizer in self._optimizers
        ]
        if self.distiller.losses:
            model.calculate_loss = calculate_loss
        self.distiller.train()
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self.clip_grad_norm = clip
            model.__dict__.pop("calculate_loss", None)
            if own_override is not None:
                model.calculate_loss = own_override

    def _readable(self, features: FeatureRows) -> FeatureRows:
        """The student's features for a step, whose random numbers begin here."""
        if self.config["single_spec"]:
            return features
        self.distiller.restart_streams(self._epoch, self._steps, self.processes.rank)
        return replace(features, in_place=False)  # DistributedDataParallel has to see gradients

    def _fold(self, base: Any, terms: dict[str, torch.Tensor]) -> Any:
        """What the base loss returned, with Σ β L added to its first part, the form unchanged."""
        self._steps += 1
        first = base[0] if isinstance(base, tuple) else base
        self._count("base", sum(base) if isinstance(base, tuple) else base)
        for method, term in terms.items():
            self._count(method, term)
            first = first + self.distiller.betas[method] * term
        return (first, *base[1:]) if isinstance(base, tuple) else first

    def _count(self, name: str, value: torch.Tensor) -> None:
        """Adds to a sum on the device: no wait for the accelerator in a step."""
        self._sums[name] = self._sums.get(name, 0.0) + value.detach().float()

    def _clip(self, arguments: Optional[dict[str, Any]]) -> None:
        if arguments:
            clip_grad_norm_([*self.model.parameters(), *self.distiller.parameters()], **arguments)

    def _begin_epoch(self, epoch: int) -> None:
        if not self.config["single_spec"]:
            self.distiller.restart_streams(epoch)
        self.distiller.start_epoch(epoch, StudentRanker(self.model, self.adapter))

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        self._sums, self._steps = {}, 0
        result = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        self._check_taught(epoch_idx)
        parts = {name: float(value) / self._steps for name, value in self._sums.items()}
        if parts:
            self._log_parts(parts, epoch_idx)
        if epoch_idx % _BANDS_EVERY == 0 or epoch_idx == self.epochs - 1:
            self._log_bands(epoch_idx)
        return result

    def _check_taught(self, epoch_idx: int) -> None:
        """Raises TrainingError where an epoch went by without the student's ``calculate_loss``."""
        if self.distiller.losses and not self._steps:
            raise TrainingError(
                f"Epoch {epoch_idx} of {type(self).__name__} never called the calculate_loss of "
                f"{type(self.model).__name__}, which is where {', '.join(self.methods)} comes in: "
                "the student would learn without its teacher. Let the trainer of the student call "
                "model.calculate_loss(interaction) in every epoch, or leave trainer out."
            )

    def _log_bands(self, epoch_idx: int) -> None:
        """What of each band is not learnt yet, for the losses that are asked for it."""
        losses = [loss for loss in self.distiller.losses.values() if loss.options.get("log_bands")]
        if not losses:
            return
        with undisturbed(self.model, self.adapter.caches):
            student = whole_features(self.model, self.adapter)
            for loss in losses:
                for side, shares in loss.relative_band_losses(student).items():
                    for band, share in enumerate(shares.tolist(), start=1):
                        if np.isfinite(share):  # else the teacher has no energy there
                            tag = f"Bands/{loss.method}/{side}/{band}"
                            self.tensorboard.add_scalar(tag, share, epoch_idx)

    def _log_parts(self, parts: dict[str, float], epoch_idx: int) -> None:
        """Mean of base and distillation losses per batch: log, TensorBoard, Weights & Biases."""
        words = [
            f"{name}: {value:.4f}"
            + (f" (weight {self.distiller.betas[name]:g})" if name != "base" else "")
            for name, value in parts.items()
        ]
        if self._verbose:
            self.logger.info("epoch %d losses per batch: %s", epoch_idx, ", ".join(words))
        for name, value in parts.items():
            self.tensorboard.add_scalar(f"Loss/{name}", value, epoch_idx)
        record = {f"loss_{name}": value for name, value in parts.items()}
        self.wandblogger.log_metrics({**record, "train_step": epoch_idx}, head="train")

    def _terms(self) -> dict[str, torch.Tensor]:
        return self._sums

    def _other_modules(self) -> dict[str, torch.nn.Module]:
        return dict(self.distiller.losses) if self.distiller is not None else {}

    def _place(self) -> str:
        return f"step {self._steps} of {super()._place()}"


class FreqDTrainer(DistillationTrainer):
    """:class:`DistillationTrainer` with ``trainer: FreqD`` where the config names none.

    Example:
        >>> config = Config(model="BPR", dataset="ml-100k", config_dict={
        ...     "embedding_size": 8, "teacher": {"model": "BPR", "embedding_size": 64}})
        ... # doctest: +SKIP
        >>> trainer = FreqDTrainer(config, student)  # doctest: +SKIP
        >>> trainer.fit(train_data, valid_data)  # doctest: +SKIP
    """

    default_trainer = "FreqD"


@cache
def dispatching(host: type) -> type:
    """A stand-in for a RecBole trainer class that looks at ``config["trainer"]``.

    It is a subclass, so that ``issubclass`` holds, but its instances never are of it: they are the
    host's own where the config names no trainer, else ours mixed into the host.
    """

    def __new__(cls: type, config: Any, model: torch.nn.Module) -> Any:
        if cls is not stand_in:  # somebody's own subclass of what get_trainer returned
            if trainer_names(config["trainer"]):
                raise ConfigError(
                    f"{cls.__name__} inherits from what RecBole's get_trainer returned, and would "
                    f"train without the teacher of trainer={config['trainer']}. Make it by "
                    f"recbole_freqd.trainer.dispatching({cls.__name__})(config, model), or leave "
                    "trainer out."
                )
            return object.__new__(cls)
        chosen = over(DistillationTrainer, host) if trainer_names(config["trainer"]) else host
        return chosen(config, model)

    stand_in = type(host.__name__, (host,), {"__new__": __new__, "fit_host": host})
    return stand_in


def check_student(model_class: type, model_type: Any) -> None:
    """Raises ConfigError unless models of this kind are trained, in RecBole's sense."""
    from recbole.utils import ModelType

    name = model_class.__name__
    if model_type == ModelType.TRADITIONAL:
        raise closed_form_error(name)
    if model_type != ModelType.GENERAL:
        raise ConfigError(
            f"{name} cannot be a student: it is a {model_type.name.lower()} model; allowed: "
            "RecBole's general recommenders. Change model."
        )
