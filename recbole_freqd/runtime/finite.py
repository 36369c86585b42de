"""Training that stops at the first number that is none, and says where it was."""

from pathlib import Path
from typing import Any

import torch

from recbole_freqd.core.errors import TrainingError


class FiniteTrainer:
    """A mixin over a RecBole trainer: what is not finite is an error, before anything is saved.

    RecBole looks for NaN in the total loss only. An infinite loss, and gradients that spoil the
    weights in the last step of an epoch, pass; the next validation then ranks by NaN and may be
    taken for the best.
    """

    _epoch = 0

    def _terms(self) -> dict[str, torch.Tensor]:
        """Sums of the parts of the loss over this epoch, where the trainer knows parts."""
        return {}

    def _other_modules(self) -> dict[str, torch.nn.Module]:
        """What is trained beside the model, by name."""
        return {}

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        self._epoch = epoch_idx
        try:
            result = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)  # type: ignore[misc]
        except RuntimeError as error:
            if "returned nan values" not in str(error):  # torch's anomaly detection, where it is on
                raise
            raise TrainingError(
                f"A gradient is nan in {self._place()}: {error} {self._what_is_left()}"
            ) from error
        bad = self._bad_weights()
        if bad:
            raise TrainingError(
                f"The last step of epoch {epoch_idx} made weights that are not finite: "
                f"{', '.join(bad)}. {self._what_is_left()}"
            )
        return result

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> Any:
        score, result = super()._valid_epoch(*args, **kwargs)  # type: ignore[misc]
        if score != score:
            raise TrainingError(
                f"{self.config['valid_metric']} is nan in the validation after epoch "  # type: ignore[attr-defined]
                f"{self._epoch}: the scores of the model are no numbers. {self._what_is_left()}"
            )
        return score, result

    def _check_nan(self, loss: torch.Tensor) -> None:
        """As RecBole's, but infinite is an error, too, and it says which term it was.

        With a GradScaler an infinite loss is not: the scaler skips such a step.

        Raises:
            TrainingError: The loss is not finite.
        """
        scaled = getattr(self, "enable_scaler", False)
        if not (torch.isnan(loss) if scaled else ~torch.isfinite(loss)).any():
            return
        terms = self._terms()
        bad = [name for name, total in terms.items() if not torch.isfinite(total)]
        bad = bad or ["their weighted sum" if terms else "the loss"]
        weights = self._bad_weights()
        raise TrainingError(
            f"Training loss is {float(loss.detach().sum())} in {self._place()}; not finite: "
            f"{', '.join(bad)}. "
            + (f"The step before made weights that are not: {', '.join(weights)}. " * bool(weights))
            + self._what_is_left()
        )

    def _place(self) -> str:
        return f"epoch {self._epoch}"

    def _bad_weights(self) -> list[str]:
        """Names of parameters that are not finite."""
        modules = {"": self.model, **self._other_modules()}  # type: ignore[attr-defined]
        return [
            f"{of} {name}".strip()
            for of, module in modules.items()
            for name, weight in module.named_parameters()
            if not _is_finite(weight.detach())
        ]

    def _what_is_left(self) -> str:
        path = str(self.saved_model_file)  # type: ignore[attr-defined]
        kept = (
            f"The best checkpoint so far stays at {path}"
            if Path(path).is_file()
            else "No checkpoint had been saved before"
        )
        return f"{kept}. Lower learning_rate or the weight of the loss."


def _is_finite(values: torch.Tensor) -> bool:
    """Whether all are; in one pass without memory of their size, but where their sum overflows."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())
