"""Averages a student's weights over its epochs: what is validated and saved is the average."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from recbole_freqd.config.names import WEIGHT_AVERAGE
from recbole_freqd.runtime.parts import Fit, Part


class WeightAverage(Part):
    """Keeps a running average of the parameters, over a share of the epochs so far.

    After the t-th epoch the average moves towards the weights by 1 - (1 - 1 / (t + 1))^(1 / share),
    so that its window grows with the training, and the noise of a constant learning rate averages
    out. The average stands in the model's place from the end of an epoch to the beginning of the
    next: it is validated, saved and early-stopped by. Steps, optimizers and losses see the weights.
    Buffers are not averaged.

    Source: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", CVPR
        2024, equation 3 (power function averages), per epoch and with 1 / share for γ + 1. The idea
        is Polyak and Juditsky's (SIAM J. Control Optim. 1992).
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        self._average: dict[str, torch.Tensor] = {}
        self._epochs, self._in_place = 0, False

    @property
    def share(self) -> float:
        """The share of the epochs so far; 0: nothing is averaged."""
        return float(self.trainer.config[WEIGHT_AVERAGE] or 0)

    @contextmanager
    def fitting(self, fit: Fit) -> Iterator[None]:
        """Each ``fit`` averages anew; it leaves the model with the average."""
        self._average, self._epochs, self._in_place = {}, 0, False
        yield
        self._average = {}

    def begin_epoch(self, epoch: int) -> None:
        """Puts the weights back that are trained."""
        if self._in_place:
            self._exchange()
        elif self.share and not self._average:
            parameters = self.trainer.model.named_parameters()
            self._average = {name: weight.detach().clone() for name, weight in parameters}

    def end_epoch(self, epoch: int) -> None:
        """Moves the average, and puts it into the model."""
        if not self.share:
            return
        self._epochs += 1
        towards = 1 - (1 - 1 / (self._epochs + 1)) ** (1 / self.share)
        with torch.no_grad():
            for name, weight in self.trainer.model.named_parameters():
                self._average[name].lerp_(weight, towards)
        self._exchange()

    def _exchange(self) -> None:
        """Weights and average change places; nothing is copied."""
        for name, weight in self.trainer.model.named_parameters():
            weight.data, self._average[name] = self._average[name], weight.data
        self._in_place = not self._in_place

    def state_dict(self, *, finished: bool) -> dict[str, Any]:
        """The average, before an epoch."""
        return {} if finished else {"average": self._average, "epochs": self._epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        if state:
            self._average, self._epochs = dict(state["average"]), state["epochs"]
