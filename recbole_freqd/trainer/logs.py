"""Logs the losses of a distilled training after an epoch."""

from typing import Any

import numpy as np

from recbole_freqd.features.check import whole_features
from recbole_freqd.features.scores import inspecting
from recbole_freqd.runtime.parts import Fit, Part
from recbole_freqd.trainer.fold import Distillation

_BANDS_EVERY = 5  # epochs between two looks at the bands


class LossLog(Part):
    """Mean of base and distillation losses per batch: log, TensorBoard, Weights & Biases."""

    def __init__(self, trainer: Any, distillation: Distillation) -> None:
        super().__init__(trainer)
        self._distillation, self._verbose = distillation, True

    def begin_fit(self, fit: Fit) -> None:
        """Notes whether the log is wanted."""
        self._verbose = fit.verbose

    def end_epoch(self, epoch: int) -> None:
        """Says what the terms of this epoch were."""
        steps = self.trainer.steps
        means = {name: float(total) / steps for name, total in self.trainer.terms.items()}
        if means:
            self.write(means, epoch)

    def write(self, means: dict[str, float], epoch: int) -> None:
        """Writes the means of an epoch."""
        betas = self._distillation.distiller.betas
        words = [
            f"{name}: {value:.4f}" + (f" (weight {betas[name]:g})" if name != "base" else "")
            for name, value in means.items()
        ]
        if self._verbose:
            self.trainer.logger.info("epoch %d losses per batch: %s", epoch, ", ".join(words))
        for name, value in means.items():
            self.trainer.tensorboard.add_scalar(f"Loss/{name}", value, epoch)
        record = {f"loss_{name}": value for name, value in means.items()}
        self.trainer.wandblogger.log_metrics({**record, "train_step": epoch}, head="train")


class BandLog(Part):
    """What of each band is not learnt yet, for the losses that are asked for it: TensorBoard."""

    def __init__(self, trainer: Any, distillation: Distillation) -> None:
        super().__init__(trainer)
        self._distillation = distillation

    def end_epoch(self, epoch: int) -> None:
        """Looks at the bands every fifth epoch, and after the last."""
        if epoch % _BANDS_EVERY and epoch != self.trainer.epochs - 1:
            return
        every = self._distillation.distiller.losses.values()
        losses = [loss for loss in every if loss.options.get("log_bands")]
        if not losses:
            return
        model, adapter = self.trainer.model, self._distillation.adapter
        with inspecting(model, adapter.caches):
            student = whole_features(model, adapter)
            for loss in losses:
                self._write(loss, student, epoch)

    def _write(self, loss: Any, student: Any, epoch: int) -> None:
        for side, shares in loss.relative_band_losses(student).items():
            for band, share in enumerate(shares.tolist(), start=1):
                if np.isfinite(share):  # else the teacher has no energy there
                    tag = f"Bands/{loss.method}/{side}/{band}"
                    self.trainer.tensorboard.add_scalar(tag, share, epoch)
