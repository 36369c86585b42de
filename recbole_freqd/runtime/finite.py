"""Stops a training at the first number that is not finite, and says where it was."""

from pathlib import Path
from traceback import walk_tb

import torch

from recbole_freqd.core.errors import TrainingError
from recbole_freqd.runtime.parts import Part

_AUTOGRAD = "torch.autograd"


class FiniteNumbers(Part):
    """Raises an error for numbers that are not finite, before anything is saved.

    RecBole looks for NaN in the total loss only. An infinite loss, and gradients that spoil the
    weights in the last step of an epoch, pass; the next validation then ranks by NaN and may be
    taken for the best.
    """

    def check(self, loss: torch.Tensor) -> None:
        """As RecBole's, but infinite is an error, too, and it says which term it was.

        With a GradScaler an infinite loss is not: the scaler skips such a step.

        Raises:
            TrainingError: The loss is not finite.
        """
        scaled = getattr(self.trainer, "enable_scaler", False)
        if not (torch.isnan(loss) if scaled else ~torch.isfinite(loss)).any():
            return
        terms = self.trainer.terms
        bad = [name for name, total in terms.items() if not torch.isfinite(total)]
        bad = bad or ["their weighted sum" if terms else "the loss"]
        weights = self._bad_weights()
        raise TrainingError(
            f"Training loss is {float(loss.detach().sum())} in {self._place()}; not finite: "
            f"{', '.join(bad)}. "
            + (f"The step before made weights that are not: {', '.join(weights)}. " * bool(weights))
            + self._what_is_left()
        )

    def explain(self, error: RuntimeError) -> None:
        """Raises TrainingError for what torch's anomaly detection found, where it is on."""
        if torch.is_anomaly_enabled() and _is_of_a_backward_pass(error):
            raise TrainingError(
                f"A gradient is nan in {self._place()}: {error} {self._what_is_left()}"
            ) from error

    def end_epoch(self, epoch: int) -> None:
        """Raises TrainingError where the last step spoiled the weights."""
        bad = self._bad_weights()
        if bad:
            raise TrainingError(
                f"The last step of epoch {epoch} made weights that are not finite: "
                f"{', '.join(bad)}. {self._what_is_left()}"
            )

    def end_validation(self, score: float) -> None:
        """Raises TrainingError where the score is NaN."""
        if score != score:
            raise TrainingError(
                f"{self.trainer.config['valid_metric']} is nan in the validation after epoch "
                f"{self.trainer.epoch}: the scores of the model are no numbers. "
                f"{self._what_is_left()}"
            )

    def _place(self) -> str:
        """The epoch, and the step where a part counts them."""
        step = f"step {self.trainer.steps} of " if self.trainer.steps else ""
        return f"{step}epoch {self.trainer.epoch}"

    def _bad_weights(self) -> list[str]:
        """Names of parameters that are not finite."""
        modules = {"": self.trainer.model, **self.trainer.trained_beside}
        return [
            f"{of} {name}".strip()
            for of, module in modules.items()
            for name, weight in module.named_parameters()
            if not _is_finite(weight.detach())
        ]

    def _what_is_left(self) -> str:
        path = str(self.trainer.saved_model_file)
        kept = (
            f"The best checkpoint so far stays at {path}"
            if Path(path).is_file()
            else "No checkpoint had been saved before"
        )
        return f"{kept}. Lower learning_rate or the weight of the loss."


def _is_of_a_backward_pass(error: RuntimeError) -> bool:
    """Whether autograd raised it; running out of memory has a type of its own."""
    calls = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return type(error) is RuntimeError and "".join(calls[-1:]).startswith(_AUTOGRAD)


def _is_finite(values: torch.Tensor) -> bool:
    """Whether all are; in one pass without memory of their size, but where their sum overflows."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())
