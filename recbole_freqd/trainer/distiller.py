"""The module that joins student, teacher features and losses; the student never contains it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable, Optional

import torch
from torch import nn

from recbole_freqd.config.complete import method_options
from recbole_freqd.config.teaching import BY_LISTS, WARM_KEYS, WARM_START
from recbole_freqd.core.errors import ConfigError, short_repr
from recbole_freqd.core.later import are_made
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import Ranker, TopItems
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import FeatureRows, Features
from recbole_freqd.features import FeatureAdapter
from recbole_freqd.features.data import Known, keep_known, training_matrix
from recbole_freqd.features.list_fit import LENGTH
from recbole_freqd.features.scores import inspecting
from recbole_freqd.losses import LOSSES
from recbole_freqd.losses.base import call_locally
from recbole_freqd.trainer.batch import BatchReader

logger = logging.getLogger(__name__)


class Distiller(nn.Module):
    """Σ_m β_m L_m for a student: the losses, their projectors, and nothing of the student itself.

    Args:
        config: The student's completed Config.
        methods: Names of the losses.
        model: The student, for the widths of its features.
        adapter: How its features are read.
        dataset: The RecBole dataset of the training data.
        teacher_features: See :class:`recbole_freqd.teacher.Teacher`.
        known: The users and items the teacher knows, or None where it knows all. The others are
            taken out of the interactions and of every batch, so that no loss meets them: they have
            no edge in a graph, their rows are never read and get no gradient.
        teacher_scores: What the teacher ranks by, where a loss reads scores.
        teacher_trajectory: What makes the rankers of its earlier selves, where a loss reads those.
        make_once: See :class:`recbole_freqd.losses.base.DistillationLoss`.

    Raises:
        TeacherError: The teacher's rows are not the student's users and items.
    """

    def __init__(
        self,
        config: Any,
        methods: list[str],
        model: nn.Module,
        adapter: FeatureAdapter,
        dataset: Any,
        teacher_features: Features,
        known: Optional[Known] = None,
        teacher_scores: Optional[Ranker] = None,
        teacher_trajectory: Sequence[Callable[[], Ranker]] = (),
        make_once: Callable[[Callable[[], Any]], Any] = call_locally,
    ) -> None:
        super().__init__()
        device, seed = config["device"], config["seed"]
        widths = _widths(model, adapter)
        self.reader = BatchReader(config, dataset.item_num, RandomStream(seed), known)
        self.betas: dict[str, float] = {}
        self.weight_decays: dict[str, float] = {}
        self.losses = nn.ModuleDict()
        user_items = keep_known(training_matrix(dataset), known)
        lists = ListMaker(config["index_items"], config["index_nprobe"], seed)
        lists.least = LENGTH if config[WARM_START] == BY_LISTS else 0
        for place, method in enumerate(methods):
            options = method_options(config, method)
            self.betas[method] = options["beta"]
            self.weight_decays[method] = options.get("weight_decay", 0.0)
            if options["beta"] == 0:
                if any(config[key] != value for key, value in WARM_KEYS.items()):  # a mistake?
                    logger.warning(
                        "%s has weight 0: it is left out, the student trains alone.", method
                    )
                continue
            with _refusing_what_no_memory_holds(method):
                self.losses[method] = LOSSES.get(method)(
                    user_items,
                    widths,
                    teacher_features,
                    teacher_scores=teacher_scores,
                    teacher_trajectory=teacher_trajectory,
                    epochs=config["epochs"],
                    progress=bool(config["show_progress"]),
                    seed=seed + place,  # two losses never start from the same numbers
                    make_once=make_once,
                    lists=lists,
                    **options,
                ).to(device)
        if are_made(teacher_features):  # else no loss has read them
            self._log_widths(widths, teacher_features, adapter)

    def _log_widths(
        self, widths: tuple[int, int], teacher_features: Features, adapter: FeatureAdapter
    ) -> None:
        for side, width, teacher in zip(("user", "item"), widths, teacher_features):
            logger.info(
                "Distilling %s features: %d dimensions from %d", side, width, teacher.shape[1]
            )
            if teacher.shape[1] <= width:
                logger.warning(
                    "The teacher's %s features (%d) are not wider than the student's (%d): nothing "
                    "is made smaller on this side. %s",
                    side,
                    teacher.shape[1],
                    width,
                    f"The student's width is set by {', '.join(adapter.capacity)}."
                    if adapter.capacity
                    else "",
                )

    def take_lists(self) -> Optional[TopItems]:
        """Hands on the teacher's lists that a loss has made, for a start; the losses let go."""
        taken = [loss.take_lists() for loss in self.losses.values()]
        return next((lists for lists in taken if lists is not None), None)

    def restart_streams(self, *place: int) -> None:
        """Whatever is drawn next follows from the seed and ``place`` alone."""
        streams = [self.reader.stream, *(loss.stream for loss in self.losses.values())]
        for own, stream in enumerate(streams):
            stream.restart(*place, own)

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        """Tells the losses which epoch begins, and how the student ranks now."""
        for loss in self.losses.values():
            loss.start_epoch(epoch, student)

    def forward(self, features: FeatureRows, interaction: Any) -> dict[str, torch.Tensor]:
        """The losses of a batch by method, not yet weighted.

        Args:
            features: The student's features with gradient.
            interaction: RecBole's batch.
        """
        batch = self.reader.read(interaction)
        return {
            method: loss(features, batch.user_ids, batch.positive_item_ids, batch.negative_item_ids)
            for method, loss in self.losses.items()
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups of all that is trained beside the student, with their weight decay."""
        return [
            {"params": list(loss.parameters()), "weight_decay": self.weight_decays[method]}
            for method, loss in self.losses.items()
            if any(True for _ in loss.parameters())
        ]

    def epoch_state(self) -> dict[str, dict[str, torch.Tensor]]:
        """What the losses have drawn in earlier epochs and go on using."""
        return {method: loss.epoch_state() for method, loss in self.losses.items()}

    def load_epoch_state(self, states: dict[str, dict[str, torch.Tensor]]) -> None:
        """Puts :meth:`epoch_state` back."""
        for method, loss in self.losses.items():
            loss.load_epoch_state(states[method])

    def extra_state(self) -> dict[str, Any]:
        """States of the random streams, for the sidecar."""
        streams = {method: loss.stream.state_dict() for method, loss in self.losses.items()}
        return {"batch": self.reader.stream.state_dict(), **streams}

    def load_extra_state(self, states: dict[str, Any]) -> None:
        """Puts :meth:`extra_state` back."""
        self.reader.stream.load_state_dict(states["batch"])
        for method, loss in self.losses.items():
            loss.stream.load_state_dict(states[method])


@contextmanager
def _refusing_what_no_memory_holds(method: str) -> Iterator[None]:
    """Raises ConfigError where a loss is larger than the memory."""
    try:
        yield
    except (MemoryError, OverflowError, torch.cuda.OutOfMemoryError) as error:
        text = str(error).partition("\n")[0]
        prefix = LOSSES.get(method).prefix
        raise ConfigError(
            f"{method} does not fit into memory: {short_repr(text)}. Lower {prefix}_experts or "
            f"{prefix}_hidden, or use {prefix}_projector: linear."
        ) from error


def _widths(model: Any, adapter: FeatureAdapter) -> tuple[int, int]:
    """Widths of a student's user and item features, read off one row of each."""
    one = torch.ones(1, dtype=torch.int64, device=model.device)
    with inspecting(model, adapter.caches):
        rows = adapter.rows(model)
        return rows.user(one).shape[1], rows.item(one).shape[1]
