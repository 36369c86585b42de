"""The distillation trainer: a mixin over the student's own RecBole trainer."""

from functools import cache
from typing import Any, Optional

import torch

from recbole_freqd import compat
from recbole_freqd.config.complete import complete_in_place, names_ours, trainer_names
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.features import closed_form_error, student_adapter
from recbole_freqd.runtime.parts import Part
from recbole_freqd.runtime.trainer import PartsTrainer, mix_into
from recbole_freqd.teacher import Teacher
from recbole_freqd.trainer.distiller import Distiller
from recbole_freqd.trainer.fold import Distillation
from recbole_freqd.trainer.logs import BandLog, LossLog
from recbole_freqd.trainer.sidecar import Sidecar
from recbole_freqd.trainer.start import StartWarm


class StudentTrainer(PartsTrainer):
    """Trains a student alone, which may start warm from an older one."""

    def make_parts(self) -> list[Part]:
        """Those of any training, and the start."""
        return [*super().make_parts(), StartWarm(self)]


class DistillationTrainer(PartsTrainer):
    """Trains a student with its own loss plus the distillation losses that ``trainer:`` names.

    Everything is the work of the student's own RecBole trainer, which this class is mixed into when
    an instance is made, and of the parts that it calls; the distillation is folded into the value
    of the student's ``calculate_loss`` while ``fit`` runs. The teacher is found, trained or loaded
    when ``fit`` first sees the data.

    Random numbers for the distillation come from streams of its own, so the student's initial
    weights and its batches are those of stock RecBole for any weight of the loss.

    Args:
        config: A RecBole Config with ``teacher`` and, unless the class implies it, ``trainer``.
        model: The student.

    Attributes:
        adapter: How the student's features are read: a
            :class:`recbole_freqd.features.FeatureAdapter`.
        methods: Names of the losses.

    Raises:
        ConfigError: A key is wrong, or the student is a model that cannot be trained or read.
        CheckpointError, TeacherError: From ``fit``: the teacher cannot be made, or does not fit.
        TrainingError: From ``fit``: a loss or weights that are not finite, an epoch without any
            call of the student's ``calculate_loss``, or no model was saved although asked for.
    """

    default_trainer: Optional[str] = None

    def __new__(cls, config: Any, model: torch.nn.Module) -> "DistillationTrainer":
        if not hasattr(cls, "fit_host"):
            compat.install_shims()
            from recbole.utils.utils import get_trainer

            cls = mix_into(cls, get_trainer(config["MODEL_TYPE"], config["model"]))
        return object.__new__(cls)

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        compat.install_shims()
        complete_in_place(config, self.default_trainer)
        check_student(type(model), config["MODEL_TYPE"])
        self.adapter = student_adapter(model)
        self.methods = trainer_names(config["trainer"])
        super().__init__(config, model)

    def make_parts(self) -> list[Part]:
        """Those of any training, and what teaches, saves and logs."""
        own = Distillation(self, self.methods, self.adapter)
        beside = [StartWarm(self, own), Sidecar(self, own), LossLog(self, own), BandLog(self, own)]
        return [*super().make_parts(), own, *beside]

    @property
    def run_name(self) -> str:
        """Of the student and its losses."""
        return f"{self.config['model']}-{'-'.join(self.methods)}"

    @property
    def teacher(self) -> Optional[Teacher]:
        """The :class:`recbole_freqd.teacher.Teacher`, from ``fit`` on."""
        return self.part(Distillation).teacher

    @property
    def distiller(self) -> Optional[Distiller]:
        """The :class:`recbole_freqd.trainer.distiller.Distiller`, from ``fit`` on."""
        return self.part(Distillation).distiller


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
    """Makes a stand-in for a RecBole trainer class that obeys ``config["trainer"]``.

    It is a subclass, so that ``issubclass`` holds, but its instances never are of it: they are the
    host's own where the config names no trainer, else ours mixed into the host.
    """

    def __new__(cls: type, config: Any, model: torch.nn.Module) -> Any:
        if cls is not stand_in:  # somebody's own subclass of what get_trainer returned
            if names_ours(config["trainer"]):
                raise ConfigError(
                    f"{cls.__name__} inherits from what RecBole's get_trainer returned, and would "
                    f"train without the teacher of trainer={config['trainer']}. Make it by "
                    f"recbole_freqd.trainer.dispatching({cls.__name__})(config, model), or leave "
                    "trainer out."
                )
            return object.__new__(cls)
        chosen = mix_into(DistillationTrainer, host) if names_ours(config["trainer"]) else host
        return chosen(config, model)

    stand_in = type(host.__name__, (host,), {"__new__": __new__, "fit_host": host})
    return stand_in


def check_student(model_class: type, model_type: Any) -> None:
    """Raises ConfigError unless RecBole trains models of this kind as general recommenders."""
    from recbole.utils import ModelType

    name = model_class.__name__
    if model_type == ModelType.TRADITIONAL:
        raise closed_form_error(name)
    if model_type != ModelType.GENERAL:
        raise ConfigError(
            f"{name} cannot be a student: it is a {model_type.name.lower()} model; allowed: "
            "RecBole's general recommenders. Change model."
        )
