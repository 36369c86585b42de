"""The data that a stored teacher was trained on, read again as its own config says."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import torch

from recbole_freqd.config.identity import data_fingerprint
from recbole_freqd.config.models import find_model
from recbole_freqd.config.reading import asking_recbole
from recbole_freqd.core.errors import TeacherError
from recbole_freqd.core.rng import rng_untouched
from recbole_freqd.features import adapter_of
from recbole_freqd.features.scores import inspecting

logger = logging.getLogger(__name__)
# Where a run happens, not what its data is: the student's.
_ENVIRONMENT = ("device", "gpu_id", "use_gpu", "state", "show_progress", "worker", "checkpoint_dir")
_ALONE = {"log_wandb": False, "single_spec": True, "local_rank": 0}
INSTEAD = (
    "Put the data back, or give a recipe instead (teacher.model), or a checkpoint that was trained "
    "on the student's data."
)
OR_ALLOW = "Or set teacher.allow_leakage: true if you are sure of it."


@dataclass(frozen=True)
class Home:
    """A teacher's own data.

    Attributes:
        config: Its Config, in the student's environment but with its own data and split.
        train, valid, whole: RecBole datasets; ``whole`` is all of it.
        moved: Whether its files are gone and those of the student's dataset of that name were read.
    """

    config: Any
    train: Any
    valid: Any
    whole: Any
    moved: bool


def rebuild(stored: Any, student: Any, path: str) -> Home:
    """Reads and splits a teacher's data as RecBole did for its training.

    Args:
        stored: The teacher's Config, from its checkpoint.
        student: The student's Config.
        path: The teacher's checkpoint.

    Raises:
        TeacherError: The data is gone, or RecBole cannot read or split it any more.
    """
    from recbole.data.dataset import Dataset
    from recbole.utils import init_seed

    config = copy.copy(stored)
    config.final_config_dict = copy.deepcopy(stored.final_config_dict)
    config.final_config_dict.update({key: student[key] for key in _ENVIRONMENT}, **_ALONE)
    config["data_path"] = _folder(stored, student, path)
    logger.info("Reading the data of teacher %s, from %s", path, config["data_path"])
    try:
        with rng_untouched():
            init_seed(config["seed"], student["reproducibility"])  # a random split is by the seed
            # Not create_dataset and data_preparation: they unpickle what the config may point to.
            whole = Dataset(config)
            train, valid, _ = whole.build()
    except Exception as error:  # whatever RecBole stumbles over
        raise TeacherError(
            f"The data of teacher {path} cannot be read again from {config['data_path']}: "
            f"{type(error).__name__}: {error}. {INSTEAD}"
        ) from error
    return Home(config, train, valid, whole, config["data_path"] != stored["data_path"])


def _folder(stored: Any, student: Any, path: str) -> str:
    """Where the teacher's files are: where they were, or with the student's of the same name.

    RecBole's ml-100k lies inside the installed package, so it is elsewhere on every machine.
    """
    name, was = stored["dataset"], str(stored["data_path"])
    parts = stored["benchmark_filename"]
    files = [f"{name}.{part}.inter" for part in parts] if parts else [f"{name}.inter"]
    places = [was] + [str(student["data_path"])] * (name == student["dataset"])
    for folder in places:
        if all((Path(folder) / file).is_file() for file in files):
            return folder
    raise TeacherError(
        f"Teacher {path} was trained on the dataset {name} in {was}, and {', '.join(files)} is not "
        f"there (seen from {Path.cwd()}). Without it nobody can tell which row of the teacher is "
        f"which user or item. {INSTEAD}"
    )


def compare_with_record(home: Home, record: dict[str, str], *, allow: bool, path: str) -> None:
    """Compares the data read again with what our sidecar says of the data trained on.

    Args:
        home: From :func:`rebuild`.
        record: From :func:`recbole_freqd.config.identity.read_fingerprint`.
        allow: ``teacher.allow_leakage``: another split is a warning, since it only hides leakage.
        path: The teacher's checkpoint.

    Raises:
        TeacherError: Users or items have changed, or, unless ``allow``, the training interactions.
    """
    now, place = data_fingerprint(home.train), home.config["data_path"]
    if now["tokens"] != record["tokens"]:
        raise TeacherError(
            f"The data of teacher {path} in {place} has changed since it was trained: users or "
            "items are others, or in another order, so its rows cannot be told apart any more. "
            f"{INSTEAD}"
        )
    if now["train"] != record["train"]:
        _doubt(
            f"The data of teacher {path} in {place} has the same users and items, but other "
            "training interactions than it was trained on: what it has seen of the student's test "
            "pairs is unknown",
            allow,
        )


def compare_with_score(
    home: Home, model: torch.nn.Module, stored: dict[str, Any], *, allow: bool, path: str
) -> None:
    """Checks by its validation score that a teacher is ranked on the data it was trained on.

    A checkpoint of RecBole keeps the score of its best epoch, and no more of its data. Other files,
    ids or another split give another score.

    Args:
        home: From :func:`rebuild`.
        model: The teacher, on this data.
        stored: The content of the checkpoint.
        allow: ``teacher.allow_leakage``: a warning where there is no score to compare.
        path: The teacher's checkpoint.

    Raises:
        TeacherError: The score is another; or it cannot be had, and the data is in another place.
    """
    then, now = _score_of_old(stored), _validation_score(home, model)
    metric, unit = home.config["valid_metric"], 10.0 ** -int(home.config["metric_decimal_place"])
    doubt = (
        f"Teacher {path}: whether its data is still what it was trained on cannot be checked, "
        "since its checkpoint has"
    )
    if then is None or now is None:
        words = f"{doubt} no validation score over the full catalogue"
        _doubt(words, allow or not home.moved)
    # Devices round differently; but never so that a low score allows any other.
    elif abs(now - then) > min(0.002, unit + 0.03 * abs(then)) + 0.02 * abs(then):
        raise TeacherError(
            f"Teacher {path} had a validation {metric} of {then:.4f} when it was saved, and has "
            f"{now:.4f} on what its config reads from {home.config['data_path']} today: files or "
            "split have changed, so its rows may be those of other users and items. "
            f"{INSTEAD}"
        )
    elif abs(then) < 10 * unit:
        words = f"{doubt} a validation {metric} of {then:g}, as other data would have"
        _doubt(words, allow or not home.moved)
    else:
        logger.info("Teacher %s has its validation %s again: %.4f", path, metric, now)


def _doubt(words: str, allow: bool) -> None:
    if not allow:
        raise TeacherError(f"{words}. {INSTEAD} {OR_ALLOW}")
    logger.warning("%s.", words)


def _score_of_old(stored: dict[str, Any]) -> Optional[float]:
    score = stored.get("best_valid_score")
    if score is None or not torch.isfinite(torch.tensor(float(score))):  # never validated
        return None
    return float(score)


def _validation_score(home: Home, model: torch.nn.Module) -> Optional[float]:
    """The teacher's ``valid_metric`` now; None where it is drawn anew each time, or not at all."""
    result = validation_result(home, model)
    return None if result is None else float(result[home.config["valid_metric"].lower()])


def validation_result(home: Home, model: torch.nn.Module) -> Optional[dict[str, float]]:
    """A model's metrics on the validation split of its data, over the full catalogue.

    Args:
        home: From :func:`rebuild`; its config says which metrics.
        model: The model, on this data.

    Returns:
        None where validation is by sampled items, drawn anew each time, or where there is none.
    """
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.sampler import RepeatableSampler, Sampler
    from recbole.trainer import Trainer

    config, phases = home.config, ["train", "valid"]
    if config["eval_args"]["mode"]["valid"] != "full" or len(home.valid) == 0:
        return None
    if config["repeatable"]:
        sampler = RepeatableSampler(phases, home.whole)
    else:
        sampler = Sampler(phases, [home.train, home.valid])
    loader = FullSortEvalDataLoader(config, home.valid, sampler.set_phase("valid"))
    trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(SimpleNamespace(dataset=home.train))
    with inspecting(model, adapter_of(model).caches):
        result = trainer.evaluate(loader, load_best_model=False)
    trainer.tensorboard.close()
    return {name: float(value) for name, value in result.items()}


def load_model(
    config: Any,
    payload: dict[str, Any],
    dataset: Any,
    path: str,
    model: Optional[torch.nn.Module] = None,
) -> torch.nn.Module:
    """The model of a checkpoint, in eval mode.

    Args:
        config: What the model is built with.
        payload: The content of the checkpoint.
        dataset: The training data it is built on.
        path: The checkpoint.
        model: One of the kind on this data, if there is one already.

    Raises:
        TeacherError: The checkpoint's tensors are not of these users and items.
    """
    from recbole.utils import init_seed

    if model is None:
        with asking_recbole(), rng_untouched():
            # RecBole shuffles histories when a model is built, and SimpleX keeps the first 50 only:
            # with the seed of the training these are the same ones.
            init_seed(config["seed"], config["reproducibility"])
            model = model_class(config)(config, dataset).to(config["device"])
    own, stored = model.state_dict(), payload["state_dict"]
    wrong = [
        f"{name} {tuple(stored[name].shape)} there, {tuple(own[name].shape)} here"
        for name in own
        if name in stored and stored[name].shape != own[name].shape
    ]
    missing = sorted(set(own) ^ set(stored))
    if wrong or missing:
        raise TeacherError(
            f"Teacher {path} does not fit its data of {dataset.user_num} users and "
            f"{dataset.item_num} items (padding included): "
            f"{'; '.join(wrong) or f'tensors in one of the two only: {missing}'}. "
            "It was trained on other data than its config reads today: distil from another."
        )
    model.load_state_dict(stored)
    model.load_other_parameter(payload.get("other_parameter"))
    return model.eval()


def model_class(config: Any) -> type:
    """The model's class; in a loaded Config there is only a stand-in, which its name replaces."""
    return config.model_class if holds_class(config) else find_model(config["model"])


def holds_class(config: Any) -> bool:
    """Whether a Config has the model's class itself."""
    return issubclass(config.model_class, torch.nn.Module)
