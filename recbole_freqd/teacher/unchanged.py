"""Checks that the data of a checkpoint, read again, is still what it was trained on."""

import logging
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import torch

from recbole_freqd.config.identity import data_fingerprint
from recbole_freqd.features import adapter_of
from recbole_freqd.features.check import some_users
from recbole_freqd.features.scores import inspecting, score_users
from recbole_freqd.teacher.reader import Reader

logger = logging.getLogger(__name__)


def compare_with_record(
    config: Any, train: Any, record: dict[str, str], path: str, reader: Reader, allow: bool
) -> None:
    """Compares the data read again with the fingerprint in our sidecar.

    Another split is accepted by ``allow_leakage``, since it only hides leakage.
    """
    now, place = data_fingerprint(train), config["data_path"]
    its = f"The data of {reader.noun.lower()} {path} in {place}"
    if now["tokens"] != record["tokens"]:
        raise reader.make_error(
            f"{its} has changed since it was trained: it has other users or items, or another "
            "order, so nobody can tell which row is whose"
        )
    if now["train"] != record["train"]:
        reader.raise_or_warn(
            f"{its} has the same users and items, but other training interactions than it was "
            "trained on: what it has seen of the student's test pairs is unknown",
            allow,
            reader.allow_leakage,
        )


def compare_with_score(restored: Any, model: torch.nn.Module) -> None:
    """Checks by its validation score that a model is ranked on the data it was trained on.

    A checkpoint of RecBole keeps the score of its best epoch, and no more of its data. Other files,
    ids or another split give another score.

    Args:
        restored: The checkpoint, with its data.
        model: Its model, on this data.

    Raises:
        FreqDError: The score is another; or it cannot be compared, and the data is not trusted.
    """
    config, reader = restored.config, restored.reader
    then, now = _score_of_old(restored.payload), _validation_score(restored, model)
    metric, unit = config["valid_metric"], 10.0 ** -int(config["metric_decimal_place"])
    doubt = (
        f"{reader.noun} {restored.path}: whether its data has changed since the training cannot "
        "be checked, since"
    )
    if then is None or now is None:
        words = f"{doubt} its checkpoint has no validation score over the full catalogue"
    # Devices round differently; but never so that a low score allows any other.
    elif abs(now - then) > min(0.002, unit + 0.03 * abs(then)) + 0.02 * abs(then):
        if not _draws_scores(model):
            raise reader.make_error(
                f"{reader.noun} {restored.path} had a validation {metric} of {then:.4f} when it "
                f"was saved, and has {now:.4f} on what its config reads from {config['data_path']} "
                "today: files or split have changed, so its rows may be those of other users and "
                "items"
            )
        words = f"{doubt} {config['model']} draws its scores anew each time it is asked"
    elif abs(then) < 10 * unit:
        words = f"{doubt} its checkpoint has a validation {metric} of {then:g}, as other data would"
    else:
        logger.info(
            "%s %s has its validation %s again: %.4f", reader.noun, restored.path, metric, now
        )
        return
    reader.raise_or_warn(words, restored.trust_data, reader.trust_data)


def _draws_scores(model: Any) -> bool:
    """Whether a model gives other scores with other random numbers, as RecBole's Random does."""
    with inspecting(model, adapter_of(model).caches):
        users = some_users(model)
        one = score_users(model, users)
        torch.manual_seed(1)
        np.random.seed(1)
        return not torch.equal(one, score_users(model, users))


def _score_of_old(payload: dict[str, Any]) -> Optional[float]:
    score = payload.get("best_valid_score")
    if score is None or not torch.isfinite(torch.tensor(float(score))):  # never validated
        return None
    return float(score)


def _validation_score(restored: Any, model: torch.nn.Module) -> Optional[float]:
    """The model's ``valid_metric`` now; None where it is drawn anew each time, or not at all."""
    result = validation_result(restored, model)
    return None if result is None else float(result[restored.config["valid_metric"].lower()])


def validation_result(restored: Any, model: torch.nn.Module) -> Optional[dict[str, float]]:
    """A model's metrics on the validation split of its data, over the full catalogue.

    Args:
        restored: From :func:`restore`; its config says which metrics.
        model: The model, on this data.

    Returns:
        None where validation is by sampled items, drawn anew each time, or where there is none.
    """
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.sampler import RepeatableSampler, Sampler
    from recbole.trainer import Trainer

    config, phases = restored.config, ["train", "valid"]
    if config["eval_args"]["mode"]["valid"] != "full" or len(restored.valid) == 0:
        return None
    if config["repeatable"]:
        sampler = RepeatableSampler(phases, restored.unsplit)
    else:
        sampler = Sampler(phases, [restored.train, restored.valid])
    loader = FullSortEvalDataLoader(config, restored.valid, sampler.set_phase("valid"))
    trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(SimpleNamespace(dataset=restored.train))
    with inspecting(model, adapter_of(model).caches):
        result = trainer.evaluate(loader, load_best_model=False)
    trainer.tensorboard.close()
    return {name: float(value) for name, value in result.items()}
