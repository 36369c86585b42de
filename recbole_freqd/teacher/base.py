"""A teacher: its model, its features and its scores."""

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable, Optional

import numpy as np
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.identity import weights_hash
from recbole_freqd.config.teacher import reserved_option
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.later import LaterFeatures, are_made, made_later
from recbole_freqd.core.rankers import FeatureRanker, Ranker
from recbole_freqd.core.rows import Features, empty_rows
from recbole_freqd.core.rows import is_mapped as in_file
from recbole_freqd.features import adapter_of, extract_features
from recbole_freqd.features.data import pairs
from recbole_freqd.features.extract import ranker_of
from recbole_freqd.features.scores import ModelRanker
from recbole_freqd.runtime.processes import Processes
from recbole_freqd.teacher.alignment import Alignment, Translated
from recbole_freqd.teacher.restore import load_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OtherData:
    """What a teacher of other data needs, so that the student can use it.

    Attributes:
        config, dataset: What its model is built with: its own Config and training data.
        alignment: The student's users and items among its own.
    """

    config: Any
    dataset: Any
    alignment: Alignment


@dataclass
class Teacher:
    """A teacher that is ready to teach.

    Attributes:
        config: Its RecBole Config, on the student's device and to be evaluated on its data.
        checkpoint: Its ``.pth`` file.
        features: User features (n_users, d) and item features (n_items, d'), without gradient, in
            the order of the student's users and items; zeros where it does not know one. Spectral
            ones may be :class:`recbole_freqd.core.later.LaterFeatures`.
        origin: ``"trained"``, ``"reused"`` or ``"checkpoint"``.
        facts: What is known of its training: ``seconds_per_epoch``, or nothing.
        trajectory: Checkpoints from on the way to ``checkpoint``, earliest first (keep_every).
        other_data: None where it was trained on the student's own data.
    """

    config: Any
    checkpoint: str
    features: Features
    origin: str
    facts: dict[str, Any] = field(default_factory=dict)
    trajectory: tuple[str, ...] = ()
    other_data: Optional[OtherData] = None

    @property
    def members(self) -> "tuple[MemberTeacher, ...]":
        """The teachers that it is made of."""
        return (MemberTeacher(self.config["model"], self, 1.0),)

    @property
    def known(self) -> Optional[tuple[np.ndarray, np.ndarray]]:
        """Masks (n_users,) and (n_items,) of what it knows; None where it knows everything."""
        if self.other_data is None or self.other_data.alignment.is_complete:
            return None
        return self.other_data.alignment.known

    def model(self, dataset: Any) -> torch.nn.Module:
        """Builds the teacher's model again from its checkpoint, in eval mode on its device.

        Args:
            dataset: The student's training data.

        Returns:
            The model; of a teacher of other data, one that is asked in the student's ids.
        """
        payload, other = self._payload(self.config["device"]), self.other_data
        if other is None:
            return load_model(self.config, payload, dataset, self.checkpoint)
        model = load_model(other.config, payload, other.dataset, self.checkpoint)
        return Translated(model, other.alignment, self.config).eval()

    def weights(self) -> str:
        """A hash of its weights, the same wherever and however often they are saved."""
        return weights_hash(self._payload("cpu"))

    def _payload(self, device: Any) -> dict[str, Any]:
        """What its file holds."""
        return load_checkpoint(
            self.checkpoint,
            map_location=device,
            trust=bool(self.config["trust_checkpoint"]),
            model_class=self.config.model_class,
        )

    def ranker(self, dataset: Any) -> Ranker:
        """Gives its ranker: dot products of features and biases where its scores are those.

        Args:
            dataset: The student's training data.
        """
        model = self.model(dataset)
        if self.other_data is None:
            is_later = isinstance(self.features, LaterFeatures)  # then no file, and no products
            ranker = ranker_of(model, not is_later and any(map(in_file, self.features)))
            # Without biases its features are those that are taught: tables are not kept twice.
            factors = ranker.factors()
            is_same = factors is not None and all(map(_are_equal, factors, self.features))
            return FeatureRanker(*self.features) if is_same else ranker
        adapter = adapter_of(own_model(model))
        return ModelRanker(model, adapter.caches, adapter.pairs_by)

    def depends_on(self) -> tuple[np.ndarray, ...]:
        """Gives the arrays that tell what is taught apart, for the identity of a run."""
        if not are_made(self.features):  # no loss reads them
            return (np.array([self.weights()]),)
        return tuple(features.cpu().numpy() for features in self.features)

    def trajectory_rankers(self, dataset: Any) -> list[Callable[[], Ranker]]:
        """Gives, for each checkpoint of its trajectory, a function that makes its ranker."""
        return [partial(replace(self, checkpoint=path).ranker, dataset) for path in self.trajectory]

    def can_rank(self, loader: Any) -> bool:
        """Whether it can be evaluated on a loader of the student's; the log says if not, and why.

        Not where it does not know all users; and where it does not know all items, only if items
        are ranked: those come last.
        """
        from recbole.utils import EvaluatorType

        if self.known is None:
            return True
        users, items = self.known
        strangers = int((~users[np.unique(pairs(loader._dataset)[:, 0])]).sum())
        missing = int((~items[1:]).sum())
        ranks = self.config["eval_type"] == EvaluatorType.RANKING
        can = strangers == 0 and (ranks or missing == 0)
        logger.warning(
            f"Teacher %s is {'' if can else 'not '}evaluated: it does not know %d of the users and "
            f"%d of the items{', which are ranked last' if can else ''}.",
            self.checkpoint,
            strangers,
            missing,
        )
        return can


@dataclass(frozen=True)
class MemberTeacher:
    """A teacher as one of a team.

    Attributes:
        name: That of its model, and more where two of a team have the same.
        teacher: The teacher itself.
        weight: In [0, 1]; those of a team sum to 1.
    """

    name: str
    teacher: Teacher
    weight: float

    @property
    def model(self) -> str:
        """The name of its model."""
        return str(self.teacher.config["model"])


def _are_equal(table: torch.Tensor, other: torch.Tensor) -> bool:
    alike = table.dtype == other.dtype and table.device == other.device
    return alike and torch.equal(table, other)


def own_model(model: torch.nn.Module) -> torch.nn.Module:
    """The model to be measured, where :meth:`Teacher.model` gave one that translates ids."""
    return model.own if isinstance(model, Translated) else model


def is_mapped(config: Any, spec: dict[str, Any]) -> bool:
    """Whether features are to be paged in from a file, by the reserved keys.

    Raises:
        ConfigError: On another device than the CPU.
    """
    mapped = bool(spec.get("memory_map"))
    if mapped and torch.device(config["device"]).type != "cpu":
        raise ConfigError(
            f"teacher.memory_map: got true on {config['device']}; allowed: on the CPU only, where "
            "files can be paged in. Use teacher.precision: float16 to save memory of a GPU."
        )
    return mapped


def make_features_once(
    config: Any, spec: dict[str, Any], make: Callable[[], Features], *, later: bool = False
) -> Features:
    """What ``make`` gives; of several processes of a machine one makes it, the others share it.

    Args:
        config: The student's Config.
        spec: Its ``teacher`` keys.
        make: Gives features on the student's device.
        later: Whether they may wait until something reads them: in one process, and in memory.
    """
    if config["single_spec"]:
        return made_later(make) if later and not is_mapped(config, spec) else make()
    mapped = is_mapped(config, spec)
    tables = Processes.of(config).make_once(lambda: [table.cpu() for table in make()])
    if mapped:
        made = [
            empty_rows(len(table), table.shape[1], table.dtype, "cpu", mapped=True)
            for table in tables
        ]
        tables = [own.copy_(table) for own, table in zip(made, tables)]
    user, item = (table.to(config["device"]) for table in tables)
    return user, item


def features_of(config: Any, spec: dict[str, Any], model: torch.nn.Module) -> Features:
    """The features that are taught, in the form that the reserved keys ask for.

    Args:
        config: The student's Config.
        spec: Its ``teacher`` keys.
        model: The teacher.
    """
    precision = reserved_option(spec, "precision")
    return extract_features(
        model,
        with_bias=False,
        rank=spec.get("spectral_rank"),
        progress=bool(config["show_progress"]),
        dtype=getattr(torch, precision),
        mapped=is_mapped(config, spec),
        check=False,  # find_teacher looks at them, and knows whose rows they are
    )
