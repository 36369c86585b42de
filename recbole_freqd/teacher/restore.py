"""Restores a checkpoint with its training data, read again as its own config says."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import torch

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.complete import names_ours
from recbole_freqd.config.identity import data_fingerprint, read_fingerprint, same_data
from recbole_freqd.config.make import adopt_world
from recbole_freqd.config.models import check_dataset_kind, check_model_name, find_model
from recbole_freqd.config.older import bring_up_to_date
from recbole_freqd.config.reading import asking_recbole
from recbole_freqd.core.rng import rng_untouched
from recbole_freqd.features import registered_adapter
from recbole_freqd.teacher.reader import FOR_TEACHING, Reader
from recbole_freqd.teacher.unchanged import compare_with_record, compare_with_score

logger = logging.getLogger(__name__)
# Where a run happens, not what its data is: the environment's.
_ENVIRONMENT = (
    *("device", "gpu_id", "use_gpu", "worker", "state", "show_progress", "checkpoint_dir"),
    "reproducibility",
)
_ALONE = {"log_wandb": False, "single_spec": True, "local_rank": 0}


@dataclass(frozen=True)
class Environment:
    """Where a checkpoint is restored.

    Attributes:
        keys: Of the Config that its model and data are built with: the device, workers, ...
        folder: From the name of a dataset to the folder where its files may be now, or None.
        student: The Config of the student whose world a checkpoint of the same data joins; None:
            there is none.
    """

    keys: dict[str, Any]
    folder: Callable[[str], Optional[str]]
    student: Optional[Any] = None

    @classmethod
    def of(cls, config: Any) -> "Environment":
        """That of a Config: its device and its data."""
        folders = {config["dataset"]: str(config["data_path"])}
        return cls({key: config[key] for key in _ENVIRONMENT}, folders.get, config)


@dataclass(frozen=True)
class Restored:
    """A checkpoint, and the data that its model is built on.

    Attributes:
        path: The ``.pth`` file.
        payload: What it holds.
        stored: The Config in it.
        config: What its model is built with: its own world and training data, in the environment
            of who restores it.
        train, valid, unsplit: RecBole datasets; the last is all of it. The last two are None where
            the data is that of who restores it.
        moved: Whether its files are gone and those of a dataset of that name elsewhere were read.
        is_own: Whether ``train`` is the dataset that was given to :func:`restore`.
        reader: Who restores it.
        trust_data: Whether data that nothing shows to be the right one is taken.
        is_proven: Whether a fingerprint has shown that the data is what was trained on.
    """

    path: str
    payload: dict[str, Any]
    stored: Any
    config: Any
    train: Any
    valid: Any
    unsplit: Any
    moved: bool
    is_own: bool
    reader: Reader
    trust_data: bool
    is_proven: bool

    def model(self) -> torch.nn.Module:
        """Builds its model in eval mode, after checking that its data is what it was trained on.

        Raises:
            FreqDError: The reader's: tensors are of other users and items, the validation score is
                another, or nothing tells.
        """
        model = load_model(self.config, self.payload, self.train, self.path, reader=self.reader)
        if not self.is_proven:
            compare_with_score(self, model)
        return model


def restore(
    path: str,
    environment: Environment,
    reader: Reader,
    *,
    trust: bool = False,
    trust_data: bool = False,
    allow_leakage: bool = False,
    own: Optional[Any] = None,
) -> Restored:
    """Loads a checkpoint, and finds or reads again the data that it was trained on.

    Args:
        path: The ``.pth`` file, of RecBole or of this package.
        environment: The device, and where data lies now.
        reader: Who asks.
        trust: Load classes of one's own, which can run code.
        trust_data: Take data that nothing shows to be what was trained on, with a warning.
        allow_leakage: Take another split of the same users and items, with a warning.
        own: The RecBole dataset of the student's training data; where a fingerprint shows that the
            checkpoint was trained on the same, nothing is read.

    Raises:
        ConfigError: Its model is of another kind than the general recommenders.
        CheckpointError: The file cannot be read, or holds something that may not be in it.
        FreqDError: The reader's: its data is gone, or cannot be read or split any more, or is not
            what it was trained on.
    """
    payload = load_checkpoint(
        path,
        map_location=environment.keys["device"],
        trust=trust,
        named_by=reader.named_by,
        trust_by=reader.trust,
    )
    stored = payload["config"]
    check_stored_model(stored, path)
    bring_up_to_date(stored)
    if not names_ours(stored["trainer"]):
        stored["trainer"] = None  # of somebody else's, whatever it means there
    record = read_fingerprint(path)
    if own is not None and record is not None and same_data(record, data_fingerprint(own)):
        config, data, moved = adopted(stored, environment.student), (own, None, None), False
    else:
        own = None
        config, data, moved = _read_again(stored, environment, path, reader)
        if record is not None:
            compare_with_record(config, data[0], record, path, reader, allow_leakage)
    return Restored(
        path, payload, stored, config, *data, moved, own is not None,
        reader, trust_data, record is not None,
    )  # fmt: skip


def check_stored_model(stored: Any, path: str) -> None:
    """Raises ConfigError unless the model of a stored Config is one that we can build and read."""
    model = stored.model_class if holds_class(stored) else stored["model"]
    check_model_name(model, f"model of {path}", only_general=True)
    found = model_class(stored)
    check_dataset_kind(found, None, f"model of {path}")
    registered_adapter(found)


def adopted(stored: Any, config: Any) -> Any:
    """A stored Config in the student's world, but for the seed: SimpleX is built by chance."""
    made = copy.copy(stored)
    made.final_config_dict = dict(stored.final_config_dict)
    adopt_world(made, config)
    made["seed"] = stored["seed"]
    return made


def _read_again(
    stored: Any, environment: Environment, path: str, reader: Reader
) -> tuple[Any, tuple[Any, Any, Any], bool]:
    """Reads and splits the data of a checkpoint as RecBole did for its training."""
    from recbole.data.dataset import Dataset
    from recbole.utils import init_seed

    config = copy.copy(stored)
    config.final_config_dict = copy.deepcopy(stored.final_config_dict)
    config.final_config_dict.update(environment.keys, **_ALONE)
    config["data_path"] = _folder(stored, environment, path, reader)
    logger.info("Reading the data of %s, from %s", path, config["data_path"])
    try:
        with rng_untouched():
            # A random split is by the seed.
            init_seed(config["seed"], config["reproducibility"])
            # Not create_dataset and data_preparation: they unpickle what the config may point to.
            unsplit = Dataset(config)
            train, valid, _ = unsplit.build()
    except Exception as error:  # whatever RecBole stumbles over
        raise reader.make_error(
            f"The data of {reader.noun.lower()} {path} cannot be read again from "
            f"{config['data_path']}: {type(error).__name__}: {error}"
        ) from error
    return config, (train, valid, unsplit), config["data_path"] != str(stored["data_path"])


def _folder(stored: Any, environment: Environment, path: str, reader: Reader) -> str:
    """Where the files are: where they were, or with the environment's of the same name.

    RecBole's ml-100k lies inside the installed package, so it is elsewhere on every machine.
    """
    name, was = stored["dataset"], str(stored["data_path"])
    parts = stored["benchmark_filename"]
    files = [f"{name}.{part}.inter" for part in parts] if parts else [f"{name}.inter"]
    for folder in filter(None, (was, environment.folder(name))):
        if all((Path(folder) / file).is_file() for file in files):
            return folder
    raise reader.make_error(
        f"{reader.noun} {path} was trained on the dataset {name} in {was}, and {', '.join(files)} "
        f"is not there (seen from {Path.cwd()}). Without it nobody can tell which row of it is "
        "which user or item"
    )


def load_model(
    config: Any,
    payload: dict[str, Any],
    dataset: Any,
    path: str,
    model: Any = None,
    *,
    reader: Reader = FOR_TEACHING,
) -> torch.nn.Module:
    """The model of a checkpoint, in eval mode.

    Args:
        config: What the model is built with.
        payload: The content of the checkpoint.
        dataset: The training data it is built on.
        path: The checkpoint.
        model: One of the kind on this data, if there is one already.
        reader: Who asks.

    Raises:
        FreqDError: The reader's: the checkpoint's tensors are not of these users and items.
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
        raise reader.make_error(
            f"{reader.noun} {path} does not fit its data of {dataset.user_num} users and "
            f"{dataset.item_num} items (padding included): "
            f"{'; '.join(wrong) or f'tensors in one of the two only: {missing}'}. "
            "It was trained on other data than its config reads today"
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
