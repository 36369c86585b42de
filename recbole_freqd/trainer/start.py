"""Starts a training warm, and keeps the start as the first best checkpoint."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import torch

from recbole_freqd.config.teaching import BY_LISTS, FROM_TEACHER, NONE, WARM_START, is_written
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.files import file_hash
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rng import rng_untouched
from recbole_freqd.core.rows import Features
from recbole_freqd.features import FeatureAdapter, student_adapter
from recbole_freqd.features.approximation import approximate
from recbole_freqd.features.data import training_matrix
from recbole_freqd.features.list_fit import fit_lists
from recbole_freqd.runtime.parts import Fit, Part
from recbole_freqd.runtime.resume import Resume
from recbole_freqd.trainer.fold import Distillation
from recbole_freqd.trainer.older_student import warm_start_from
from recbole_freqd.trainer.warm_start import (
    WarmStart,
    check_warm,
    feature_width,
    start_at,
    target_of,
    warm_start,
)

logger = logging.getLogger(__name__)


class StartWarm(Part):
    """Sets the weights by ``warm_start``, before the first epoch.

    It happens once, and never after a checkpoint was loaded or a run was resumed. The start is
    validated and saved as the first best checkpoint, so that no run ends below it.

    Args:
        trainer: The trainer.
        distillation: What teaches; None: the student trains alone.
    """

    def __init__(self, trainer: Any, distillation: Optional[Distillation] = None) -> None:
        super().__init__(trainer)
        self._of, self._is_done = distillation, False
        self._begun: Optional[WarmStart] = None

    @property
    def _way(self) -> str:
        return str(self.trainer.config[WARM_START] or NONE)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Refuses students that cannot start warm, before any teacher is trained.

        Raises:
            ConfigError: ``warm_start: teacher`` or ``lists`` without one, or another student.
        """
        yield
        if self._way == NONE:
            return
        if self._way in FROM_TEACHER and self._of is None:
            raise ConfigError(
                f"warm_start: got {self._way}, but no trainer is named, and so no teacher. Set "
                "trainer, e.g. `trainer: FreqRank` with `freqrank_beta: 0` for the warm start "
                "alone, or warm_start to the checkpoint of an older student."
            )
        try:
            check_warm(self.trainer.model, self._adapter)
        except ConfigError as error:
            if is_written(self.trainer.config, WARM_START):
                raise
            logger.warning("%s It starts cold.", error)
            self.trainer.config[WARM_START] = NONE

    @property
    def _adapter(self) -> FeatureAdapter:
        return student_adapter(self.trainer.model) if self._of is None else self._of.adapter

    def depends_on(self) -> tuple[np.ndarray, ...]:
        """The older student's file."""
        if self._way in (NONE, *FROM_TEACHER) or not Path(self._way).is_file():
            return ()
        return (np.frombuffer(file_hash(Path(self._way)).encode(), dtype=np.uint8),)

    @contextmanager
    def loading(self, path: str) -> Iterator[None]:
        """A checkpoint that is loaded is where the student begins."""
        yield
        self._is_done = True

    @contextmanager
    def fitting(self, fit: Fit) -> Iterator[None]:
        """Starts warm, where this is the beginning."""
        resumed = fit.result is not None or self.trainer.part(Resume).to_restore is not None
        if not (self._is_done or resumed or self._way == NONE):
            self._start(fit)
        if self._of is not None:
            self._of.distiller.take_lists()  # they are let go where there was no start, too
        self._is_done = True
        yield

    def _start(self, fit: Fit) -> None:
        """Sets the weights, in two steps where they are fitted to lists: the better one stays."""
        self._set(fit, self._set_weights)
        first = self._validated(fit, "Warm start")
        self._keep(fit, first)
        if self._way != BY_LISTS:
            return
        model = self.trainer.model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        self._set(fit, self._fit_lists)
        fitted = self._validated(fit, "Warm start, fitted to lists")
        bigger = self.trainer.valid_metric_bigger
        if first and fitted and (fitted[0] < first[0] if bigger else fitted[0] > first[0]):
            self.trainer.logger.info("Warm start: without the fit it is better, and stays so.")
            model.load_state_dict(before)
        else:
            self._keep(fit, fitted)

    def _set(self, fit: Fit, set_weights: Callable[[Any], None]) -> None:
        """The first process sets the weights, the others take them: an SVD differs by machine."""
        model, dataset = self.trainer.model, fit.train_data._dataset

        def made() -> dict[str, torch.Tensor]:
            with rng_untouched(*(loader.generator for loader in (fit.train_data, fit.valid_data)
                                 if loader is not None)):  # fmt: skip
                set_weights(dataset)
            return {name: value.cpu() for name, value in model.state_dict().items()}

        if self.trainer.config["single_spec"]:
            made()
        else:
            model.load_state_dict(self.trainer.processes.from_first(made))

    def _set_weights(self, dataset: Any) -> None:
        model, adapter, config = self.trainer.model, self._adapter, self.trainer.config
        taught: Optional[Ranker] = None
        known = None
        if self._of is not None:
            taught, known = self._of.taught(dataset), self._of.teacher.known  # type: ignore[union-attr]
        settings = {"stand_ins": self._stand_ins(taught), "seed": config["seed"]}
        if self._way in FROM_TEACHER:
            self._begun = warm_start(model, adapter, taught, known, **settings)  # type: ignore[arg-type]
            return
        found = None
        if taught is not None:
            rank = feature_width(model, adapter) - adapter.warm_spare
            found = approximate(taught, rank, known, biases=adapter.warm_biases, **settings)
        user_items = training_matrix(dataset)
        warm_start_from(self._way, model, adapter, config, dataset, user_items, found)

    def _fit_lists(self, dataset: Any) -> None:
        """Fits the start to the heads of the teacher's lists."""
        model, adapter, config = self.trainer.model, self._adapter, self.trainer.config
        taught = self._of.taught(dataset)  # type: ignore[union-attr]
        found = fit_lists(
            self._begun.found,  # type: ignore[union-attr]
            taught,
            ListMaker(config["index_items"], config["index_nprobe"], config["seed"]),
            training_matrix(dataset),
            top=self._of.distiller.take_lists(),  # type: ignore[union-attr]
            stand_ins=self._stand_ins(taught),
            biases=adapter.warm_biases,
            progress=bool(config["show_progress"]),
        )
        start_at(model, adapter, target_of(found, model.device))
        self._begun = None

    def _stand_ins(self, taught: Optional[Ranker]) -> Optional[Features]:
        """What stands for scores that are no products, of catalogues whose lists are not exact."""
        most = self.trainer.config["index_items"]
        if taught is None or not ListMaker(most).is_beyond(taught):
            return None
        if taught.factors() is None:
            logger.info(
                "Warm start from the teacher's features, which stand for its scores beyond %d "
                "items (index_items).",
                most,
            )
        return self._of.teacher.features  # type: ignore[union-attr]

    def _validated(self, fit: Fit, what: str) -> Optional[tuple[float, Any]]:
        """Score and metrics of the weights as they are; None where nothing is validated."""
        trainer = self.trainer
        if not fit.valid_data or trainer.eval_step <= 0:
            return None
        trainer.eval_collector.data_collect(fit.train_data)
        score, result = trainer._valid_epoch(fit.valid_data)
        metric = trainer.config["valid_metric"]
        trainer.logger.info("%s: %s is %.4f", what, metric, score)
        if score == 0 and trainer.valid_metric_bigger:
            trainer.logger.warning(
                "Warm start: %s is 0 on validation, so the student begins with nothing. Check what "
                "is taught (the teacher's own validation), or set warm_start: none.",
                metric,
            )
        return score, result

    def _keep(self, fit: Fit, found: Optional[tuple[float, Any]]) -> None:
        """Saves the start as the best so far."""
        if found is None:
            return
        trainer = self.trainer
        trainer.best_valid_score, trainer.best_valid_result = found
        if fit.saved:
            trainer._save_checkpoint(-1, verbose=fit.verbose)
