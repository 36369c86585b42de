"""The teacher: found, trained or loaded, checked against the data, and reduced to its features."""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from recbole_freqd import __version__
from recbole_freqd.checkpoint import (
    fingerprint,
    load_checkpoint,
    load_plain,
    read_json,
    replacing,
    sidecar_path,
    write_json,
)
from recbole_freqd.config import (
    CHECKPOINT,
    TEACHER,
    adopt_world,
    asking_recbole,
    teacher_config,
)
from recbole_freqd.errors import CheckpointError, ConfigError, TeacherError
from recbole_freqd.features import check_teacher, extract_features, registered_adapter
from recbole_freqd.measure import EpochClock
from recbole_freqd.model_classes import check_model_name, class_fingerprint
from recbole_freqd.rng import rng_untouched
from recbole_freqd.rows import Features
from recbole_freqd.settings import read_keys

logger = logging.getLogger(__name__)


@dataclass
class Teacher:
    """A teacher that is ready to teach.

    Attributes:
        config: Its RecBole Config, on the student's device.
        checkpoint: Its ``.pth`` file.
        features: User features (n_users, d) and item features (n_items, d'), without gradient.
        origin: ``"trained"``, ``"reused"`` or ``"checkpoint"``.
        facts: What is known of its training: ``seconds_per_epoch``, or nothing.
    """

    config: Any
    checkpoint: str
    features: Features
    origin: str
    facts: dict[str, Any] = field(default_factory=dict)

    def model(self, dataset: Any) -> torch.nn.Module:
        """Builds the teacher's model again from its checkpoint, in eval mode on its device."""
        trust = bool(self.config["trust_checkpoint"])
        payload = load_checkpoint(
            self.checkpoint,
            map_location=self.config["device"],
            trust=trust,
            model_class=self.config.model_class,
        )
        return _load_model(self.config, payload, dataset, self.checkpoint)


def find_teacher(config: Any, train_data: Any, valid_data: Optional[Any]) -> Teacher:
    """The teacher a student's config asks for.

    Global random streams and the loaders' own are left as they were.

    Args:
        config: The student's completed Config.
        train_data, valid_data: The student's loaders; a recipe is trained on their data.

    Raises:
        ConfigError, CheckpointError, TeacherError: The teacher cannot be had, or does not fit.
    """
    generators = [loader.generator for loader in (train_data, valid_data) if loader is not None]
    with rng_untouched(*generators):
        spec = config[TEACHER]
        if spec.get(CHECKPOINT) is not None:
            teacher = _from_checkpoint(config, spec, train_data._dataset)
        else:
            teacher = _from_recipe(config, spec, train_data, valid_data)
    return teacher


# --- from a checkpoint -----------------------------------------------------------------------


def _from_checkpoint(config: Any, spec: dict[str, Any], dataset: Any) -> Teacher:
    path, trust = str(spec[CHECKPOINT]), bool(spec.get("trust_checkpoint"))
    payload = load_checkpoint(path, map_location=config["device"], trust=trust)
    stored = payload["config"]
    if not _holds_class(stored):
        check_model_name(stored["model"], f"model of {path}", only_general=True)
    registered_adapter(_model_class(stored))
    _check_same_data(config, stored, bool(spec.get("allow_leakage")), path)
    _check_fingerprint(dataset, path, bool(spec.get("allow_leakage")))
    adopt_world(stored, config)
    stored["trust_checkpoint"] = trust
    model = _load_model(stored, payload, dataset, path)
    logger.info("Teacher loaded: %s from %s", stored["model"], path)
    return Teacher(stored, path, _features(config, spec, model), "checkpoint")


def _check_same_data(config: Any, stored: Any, allow_leakage: bool, path: str) -> None:
    """Raises unless the teacher's config reads and splits the same data as the student's.

    The keys are those by which RecBole itself decides that a saved split can be used again.
    """
    keys = [key for key in config.parameters["Dataset"] if config[key] != stored[key]]
    if config["dataset"] != stored["dataset"]:
        keys.insert(0, "dataset")
    if keys:
        raise TeacherError(
            f"Teacher {path} was trained on other data than the student's: "
            f"{_differences(keys, stored, config)}. Its users and items would not be the "
            "student's. Train a teacher on this data (a recipe: teacher.model), or change the "
            "student's keys."
        )
    if config["benchmark_filename"]:
        return  # the split is in the files, no seed touches it
    split = [key for key in ("seed", "repeatable") if config[key] != stored[key]]
    split += ["eval_args"] if _splitting(config) != _splitting(stored) else []
    if split and not allow_leakage:
        raise TeacherError(
            f"Teacher {path} was trained on another split: {_differences(split, stored, config)}. "
            "It has seen pairs the student is tested on. Use the same split, or set "
            "teacher.allow_leakage: true if you know what you do."
        )
    if split:
        logger.warning("The teacher knows another split (%s): leakage allowed.", ", ".join(split))


def _splitting(config: Any) -> dict[str, Any]:
    """How the data is split: ``eval_args`` without ``mode``, which is how it is ranked."""
    return {key: value for key, value in config["eval_args"].items() if key != "mode"}


def _check_fingerprint(dataset: Any, path: str, allow_leakage: bool) -> None:
    """Compares the data with what a sidecar of ours beside the checkpoint says of the teacher's.

    A checkpoint of RecBole alone has none; then the config keys and the sizes have to do.
    """
    stored = read_fingerprint(path)
    if stored is None:
        return
    own = data_fingerprint(dataset)
    if stored["tokens"] != own["tokens"]:
        raise TeacherError(
            f"Teacher {path} knows other users or items than the student's data, or the same in "
            "another order. Train a teacher on this data (a recipe: teacher.model)."
        )
    if stored["train"] != own["train"] and not allow_leakage:
        raise TeacherError(
            f"Teacher {path} was trained on other interactions than the student's training split; "
            "it may have seen pairs the student is tested on. Use the same split, or set "
            "teacher.allow_leakage: true if you know what you do."
        )


def read_fingerprint(path: str) -> Optional[dict[str, str]]:
    """The data fingerprint kept beside a checkpoint of ours, or None."""
    facts, sidecar = Path(path).with_suffix(".json"), Path(sidecar_path(path))
    try:
        if facts.is_file():
            return json.loads(facts.read_text(encoding="utf-8"))["identity"]["data"]
        if sidecar.is_file():
            return load_plain(sidecar)["data"]
    except Exception as error:  # json and torch raise a dozen kinds for a damaged file
        logger.warning("What lies beside %s cannot be read: %s", path, error)
    return None


def data_fingerprint(dataset: Any) -> dict[str, str]:
    """Hashes of the users and items in their order, and of the interactions, of a dataset."""
    fields = dataset.uid_field, dataset.iid_field
    tokens = [np.asarray(dataset.field2id_token[name]) for name in fields]
    return {"tokens": fingerprint(*tokens), "train": fingerprint(_pairs(dataset))}


def _differences(keys: list[str], there: Any, here: Any) -> str:
    return "; ".join(f"{key} {there[key]!r} there, {here[key]!r} here" for key in keys)


def _model_class(config: Any) -> type:
    """The model's class; in a loaded Config there is only a stand-in, which its name replaces."""
    from recbole.utils import get_model

    return config.model_class if _holds_class(config) else get_model(config["model"])


def _holds_class(config: Any) -> bool:
    return issubclass(config.model_class, torch.nn.Module)


def _load_model(
    config: Any,
    payload: dict[str, Any],
    dataset: Any,
    path: str,
    model: Optional[torch.nn.Module] = None,
) -> torch.nn.Module:
    """The model of a checkpoint, in eval mode; ``model`` is one of the kind, if there is one."""
    from recbole.utils import init_seed

    if model is None:
        with asking_recbole(), rng_untouched():
            # RecBole shuffles histories when a model is built, and SimpleX keeps the first 50 only:
            # with the seed of the training these are the same ones.
            init_seed(config["seed"], config["reproducibility"])
            model = _model_class(config)(config, dataset).to(config["device"])
    own, stored = model.state_dict(), payload["state_dict"]
    wrong = [
        f"{name} {tuple(stored[name].shape)} there, {tuple(own[name].shape)} here"
        for name in own
        if name in stored and stored[name].shape != own[name].shape
    ]
    missing = sorted(set(own) ^ set(stored))
    if wrong or missing:
        raise TeacherError(
            f"Teacher {path} does not fit the student's data of {dataset.user_num} users and "
            f"{dataset.item_num} items (padding included): "
            f"{'; '.join(wrong) or f'tensors in one of the two only: {missing}'}. "
            "Distil from a teacher trained on the same data."
        )
    model.load_state_dict(stored)
    model.load_other_parameter(payload.get("other_parameter"))
    return model.eval()


# --- from a recipe ---------------------------------------------------------------------------


def _from_recipe(config: Any, spec: dict[str, Any], train_data: Any, valid_data: Any) -> Teacher:
    reserved = read_keys("teacher.yaml")
    recipe = {key: value for key, value in spec.items() if key not in reserved}
    own_config = teacher_config(config, recipe)
    rank = spec.get("spectral_rank")
    if _is_closed_form(own_config):
        if recipe.get("epochs", 1) != 1:
            logger.info("%s is computed in one pass: teacher.epochs is 1.", own_config["model"])
        own_config["epochs"] = own_config["eval_step"] = 1  # a validation is what saves it
    identity = _identity(own_config, train_data._dataset, valid_data)
    stem = f"teacher-{own_config['model']}-{config['dataset']}"
    name = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=6).hexdigest()
    path = Path(config["checkpoint_dir"]) / f"{stem}-{name}.pth"
    facts_file, model = path.with_suffix(".json"), None
    if path.is_file() and facts_file.is_file():
        facts, origin = read_json(facts_file)["facts"], "reused"
        logger.info("Teacher reused: %s (recipe, data and versions are unchanged)", path)
    else:
        logger.info("Teacher to be trained: %s", _why_not_reused(path, stem, identity))
        (facts, model), origin = _train(own_config, train_data, valid_data, path, rank), "trained"
        write_json(facts_file, {"identity": identity, "facts": facts})
        logger.info("Teacher trained: %s", path)
    own_class = own_config.model_class
    payload = load_checkpoint(path, map_location=config["device"], model_class=own_class)
    model = _load_model(own_config, payload, train_data._dataset, str(path), model)
    return Teacher(own_config, str(path), _features(config, spec, model), origin, facts)


def _is_closed_form(config: Any) -> bool:
    """Whether a teacher is computed, not trained.

    Raises:
        ConfigError: RecBole needs a package for it that is not installed.
    """
    from recbole.utils import ModelType

    adapter = registered_adapter(config.model_class)
    traditional = config["MODEL_TYPE"] == ModelType.TRADITIONAL
    return traditional or (adapter is not None and adapter.student is None)


def _features(config: Any, spec: dict[str, Any], model: torch.nn.Module) -> Features:
    """The features that are taught, in the form that the reserved keys ask for."""
    mapped = bool(spec.get("memory_map"))
    if mapped and torch.device(config["device"]).type != "cpu":
        raise ConfigError(
            f"teacher.memory_map: got true on {config['device']}; allowed: on the CPU only, where "
            "files can be paged in. Use teacher.precision: float16 to save memory of a GPU."
        )
    return extract_features(
        model,
        with_bias=False,
        rank=spec.get("spectral_rank"),
        progress=bool(config["show_progress"]),
        dtype=getattr(
            torch, spec.get("precision") or read_keys("teacher.yaml")["precision"].default
        ),
        mapped=mapped,
    )


def _identity(config: Any, dataset: Any, valid_data: Optional[Any]) -> dict[str, Any]:
    """All that a recipe teacher depends on: its config, its data, the versions."""
    import recbole

    ignored = {"device", "checkpoint_dir", "data_path", "show_progress", "state", "config_file"}
    ignored |= {"gpu_id", "use_gpu", "log_wandb", "wandb_project", "worker", "eval_batch_size"}
    ignored |= {"save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path"}
    ignored |= {"metrics", "topk"}  # valid_metric, which decides the best epoch, stays
    values = {
        key: str(value)
        for key, value in sorted(config.final_config_dict.items())
        if key not in ignored
    }
    data = data_fingerprint(dataset)
    if valid_data is not None:
        data["valid"] = fingerprint(_pairs(valid_data._dataset))
    versions = {"recbole": recbole.__version__, "recbole_freqd": __version__}
    if not config.model_class.__module__.startswith("recbole."):
        versions["model"] = class_fingerprint(config.model_class)
    return {"config": values, "data": data, "versions": versions}


def _pairs(dataset: Any) -> np.ndarray:
    """(n, 2) int64, the interactions of a dataset in its order."""
    inter = dataset.inter_feat
    columns = [np.asarray(inter[name]) for name in (dataset.uid_field, dataset.iid_field)]
    return np.stack(columns, axis=1).astype(np.int64)


def _why_not_reused(path: Path, stem: str, identity: dict[str, Any]) -> str:
    """What sets this teacher apart from the stored one that comes nearest."""
    candidates = []
    for file in path.parent.glob(f"{stem}-*.json"):
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))["identity"]
        except (OSError, ValueError, KeyError):
            continue
        changed = [
            f"{key} was {stored['config'].get(key)}, is {identity['config'].get(key)}"
            for key in sorted(set(stored["config"]) | set(identity["config"]))
            if stored["config"].get(key) != identity["config"].get(key)
        ]
        changed += [
            f"{key} changed" for key in ("data", "versions") if stored[key] != identity[key]
        ]
        candidates.append((len(changed), file.with_suffix(".pth").name, changed))
    if not candidates:
        return f"there is no {stem} in {path.parent} yet"
    _, name, changed = min(candidates)
    return f"the nearest stored one, {name}, differs ({'; '.join(changed) or 'its .pth is gone'})"


def _train(
    config: Any, train_data: Any, valid_data: Any, path: Path, rank: Optional[int]
) -> tuple[dict[str, Any], torch.nn.Module]:
    """Trains a recipe with RecBole's own trainer and keeps its best model at ``path``.

    Returns:
        What is known of the training, and the model as the last epoch left it.

    Raises:
        CheckpointError: ``path`` cannot be written.
    """
    from recbole.data.utils import get_dataloader
    from recbole.utils import get_trainer, init_seed

    init_seed(config["seed"], config["reproducibility"])
    dataset = train_data._dataset
    with asking_recbole():
        model = config.model_class(config, dataset).to(config["device"])
        loader = get_dataloader(config, "train")(
            config, dataset, _train_sampler(config, dataset), shuffle=config["shuffle"]
        )
        check_teacher(model, rank)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    _log_beside_the_student(trainer, config["model"])
    epochs = EpochClock(trainer)

    with replacing(path) as temporary:
        trainer.saved_model_file = temporary
        trainer.fit(loader, valid_data, saved=True, show_progress=config["show_progress"])
        if trainer.saved_model_file != temporary and Path(trainer.saved_model_file).is_file():
            shutil.copyfile(trainer.saved_model_file, temporary)  # RaCT names its files itself
        if os.path.getsize(temporary) == 0:
            raise CheckpointError(
                f"The teacher {config['model']} trained but saved no model. RecBole saves one at "
                f"the first validation: teacher.epochs is {config['epochs']}, teacher.eval_step "
                f"{config['eval_step']}. (RaCT saves every teacher.save_step epochs.)"
            )
    trainer.tensorboard.close()
    if _is_closed_form(config):
        return {}, model  # an epoch is RecBole's idle pass over the data, the work was before it
    return {"seconds_per_epoch": epochs.median()}, model


def _train_sampler(config: Any, dataset: Any) -> Optional[Any]:
    """The negative sampler RecBole's data_preparation would make for training on ``dataset``."""
    from recbole.sampler import RepeatableSampler, Sampler

    negatives = config["train_neg_sample_args"]
    if negatives["distribution"] == "none":
        return None
    arguments = (["train"], negatives["distribution"], negatives["alpha"])
    if config["repeatable"]:
        sampler = RepeatableSampler(arguments[0], dataset, *arguments[1:])
    else:
        sampler = Sampler(arguments[0], [dataset], *arguments[1:])
    return sampler.set_phase("train")


def _log_beside_the_student(trainer: Any, model: str) -> None:
    """Gives the teacher's training a TensorBoard folder of its own."""
    from torch.utils.tensorboard import SummaryWriter

    folder = trainer.tensorboard.log_dir
    trainer.tensorboard.close()
    trainer.tensorboard = SummaryWriter(f"{folder}-teacher-{model}")
