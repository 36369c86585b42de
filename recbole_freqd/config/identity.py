"""Hashes that tell data and runs apart: tokens, interactions, keys and versions."""

import json
import logging
from pathlib import Path
from typing import Any, Optional

import torch
from scipy import sparse

from recbole_freqd import __version__
from recbole_freqd.checkpoint.loading import load_plain, sidecar_path
from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.models import class_or_name
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.own_code import class_fingerprint
from recbole_freqd.config.reading import asking_recbole
from recbole_freqd.config.teacher import CHECKPOINT, LISTS, VECTORS, teachers_of
from recbole_freqd.config.teaching import WARM_START
from recbole_freqd.core.files import file_hash, fingerprint
from recbole_freqd.core.vector_files import hash_of_export
from recbole_freqd.features.data import _columns, pairs, tokens
from recbole_freqd.losses import LOSSES

WHERE_IT_RUNS = {"device", "gpu_id", "use_gpu", "worker", "eval_batch_size", "data_path"}


WHERE_IT_RUNS |= {"checkpoint_dir", "config_file", "show_progress", "state", "resume"}


WHERE_IT_RUNS |= {"log_wandb", "wandb_project", "save_dataset", "dataset_save_path"}


WHERE_IT_RUNS |= {"save_dataloaders", "dataloaders_save_path"}


_HOW_IT_IS_READ = {
    "trust_checkpoint",
    "trust_data",
    "memory_map",
}  # of a teacher: its rows are the same
logger = logging.getLogger(__name__)


def data_fingerprint(dataset: Any) -> dict[str, str]:
    """Hashes that tell training data apart.

    Tokens themselves are not kept: a teacher of other data has to be built on its own data anyway,
    so that is read again, and the hashes show that it is still the same.

    Args:
        dataset: A RecBole dataset of training data.

    Returns:
        ``tokens``: users and items in the order of their ids; ``train``: the interactions in their
        order; ``split`` and ``filters``: the keys that RecBole splits and filters by.
    """
    config = dataset.config
    filters = {key: config[key] for key in ["dataset", *config.parameters["Dataset"]]}
    return {
        "tokens": fingerprint(*tokens(dataset)),
        "train": fingerprint(pairs(dataset)),
        "split": fingerprint({"seed": config["seed"], "eval_args": splitting(config)}),
        "filters": fingerprint(filters),
    }


def run_identity(
    config: Any, dataset: Any, valid_data: Optional[Any], *, metrics: bool = True
) -> dict[str, Any]:
    """Collects all that the outcome of a training depends on: config, data, versions.

    Args:
        config: Its RecBole Config.
        dataset: Of the training data.
        valid_data: The loader it is validated with.
        metrics: Whether what is computed on the validated lists belongs to the outcome; the
            metric that decides on the best epoch always does.
    """
    made = data_fingerprint(dataset)
    data = {part: made[part] for part in ("tokens", "train")}  # the keys are in the config
    data["columns"] = fingerprint(*_columns(dataset))  # DMF reads ratings, DiffRec times
    if valid_data is not None:
        data["valid"] = fingerprint(pairs(valid_data._dataset))
    return {
        "config": _values(config, metrics),
        "data": data,
        "versions": versions_of(config),
    }


def planned_identity(config: Any, *, metrics: bool = True) -> dict[str, Any]:
    """:func:`run_identity` of a run to come, before its data is read: its files stand for it.

    Args:
        config: Its RecBole Config; with ``seed`` and ``eval_args`` it says how files are split.
        metrics: As of :func:`run_identity`.

    Raises:
        ConfigError: There are no such files, and RecBole cannot get them either.
    """
    return {
        "config": _values(config, metrics),
        "data": _files_of(config),
        "versions": versions_of(config),
    }


def differences(stored: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """Says how the identity of a run differs from a stored one; empty: not at all."""
    keys = sorted(set(stored["config"]) | set(identity["config"]))
    then, now = (each["config"] for each in (stored, identity))
    changed = [
        f"{key} was {then.get(key)}, is {now.get(key)}"
        for key in keys
        if then.get(key) != now.get(key)
    ]
    return changed + [
        f"{part} changed" for part in ("data", "versions") if stored[part] != identity[part]
    ]


def _values(config: Any, metrics: bool) -> dict[str, str]:
    """The keys that decide on the outcome of a run."""
    ignored = WHERE_IT_RUNS if metrics else WHERE_IT_RUNS | {"metrics", "topk"}
    keys = sorted(config.final_config_dict, key=str)  # YAML's `on: 5` has the key True
    values = {str(key): config[key] for key in keys if key not in ignored}
    if isinstance(values.get(TEACHER), (dict, list)):
        values[TEACHER] = teacher_of(values[TEACHER])
    values = _by_content(values)
    return {
        key: json.dumps(value, sort_keys=True, default=str)
        if isinstance(value, dict) or key == TEACHER
        else str(value)
        for key, value in values.items()
    }


def teacher_of(spec: Any) -> Any:
    """The ``teacher`` keys that decide on what is taught; a file goes by its content."""
    if isinstance(spec, list):
        return [teacher_of(member) if isinstance(member, dict) else member for member in spec]
    kept = {key: value for key, value in spec.items() if key not in _HOW_IT_IS_READ}
    for form in (CHECKPOINT, LISTS):
        if kept.get(form) is not None and Path(kept[form]).is_file():
            kept[form] = file_hash(Path(kept[form]))
    if kept.get(VECTORS) is not None and Path(kept[VECTORS]).is_dir():
        kept[VECTORS] = hash_of_export(Path(kept[VECTORS]), f"{TEACHER}.{VECTORS}")
    return _by_content(kept)


def _by_content(keys: dict[str, Any]) -> dict[str, Any]:
    """The same, with files that a model starts from (``pre_model_path``) by their content."""
    named = {
        key: file_hash(Path(value))
        for key, value in keys.items()
        if (key.endswith("_path") or key == WARM_START)
        and isinstance(value, str)
        and Path(value).is_file()
    }
    return {**keys, **named}


def versions_of(config: Any) -> dict[str, str]:
    """The versions of RecBole and of this package, and the classes of your own: their source."""
    import recbole

    versions = {"recbole": recbole.__version__, "recbole_freqd": __version__}
    classes: dict[str, Any] = {name: LOSSES.get(name) for name in trainer_names(config["trainer"])}
    if classes and config[TEACHER]:
        for place, member in enumerate(teachers_of(config[TEACHER])):
            model: Any = member.get("model")  # a checkpoint has none
            classes[f"teacher {place}" if place else "teacher"] = class_or_name(model)
    for part, own in {"model": config.model_class, **classes}.items():
        host = own.__module__.partition(".")[0] if isinstance(own, type) else "recbole"
        if host not in versions:
            versions[part] = class_fingerprint(own)
    return versions


def _files_of(config: Any) -> dict[str, str]:
    """Hashes of the files of a dataset, by name; RecBole downloads those it knows."""
    folder, start = Path(config["data_path"]), f"{config['dataset']}."
    if not _named(folder, start):
        from recbole.data import create_dataset

        with asking_recbole():
            create_dataset(config)
    return {file.name: file_hash(file) for file in _named(folder, start) if file.is_file()}


def _named(folder: Path, start: str) -> list[Path]:
    """What is in a folder, if it is there, under names that begin so; brackets mean themselves."""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(file for file in files if file.name.startswith(start))


def weights_hash(payload: dict[str, Any]) -> str:
    """A hash of the weights of a checkpoint and of what else RecBole keeps of its model.

    The bytes of the file are others every time it is written: they hold its name and folder.

    Args:
        payload: From :func:`recbole_freqd.checkpoint.load_checkpoint`.
    """
    parts = {**payload["state_dict"], **(payload.get("other_parameter") or {})}
    return fingerprint(*(leaf for name in sorted(parts) for leaf in (name, *_leaves(parts[name]))))


def _leaves(value: Any) -> list[Any]:
    """A value of a checkpoint as what :func:`fingerprint` tells apart whatever its size."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            coordinates = value.detach().to_sparse_coo().coalesce()
            return [*_leaves(coordinates.indices()), *_leaves(coordinates.values())]
        rows = value.detach().cpu().contiguous()
        return [str(value.dtype), list(value.shape), rows.reshape(-1).view(torch.uint8).numpy()]
    if sparse.issparse(value):
        found = value.tocoo()
        return [list(found.shape), found.row, found.col, found.data]
    return [value]


def same_data(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether two fingerprints are of the same entities and interactions, by whatever keys."""
    return all(one[part] == other[part] for part in ("tokens", "train"))


def read_fingerprint(path: str) -> Optional[dict[str, str]]:
    """Reads the data fingerprint beside a checkpoint of this package, or gives None.

    It has to name the very bytes of the checkpoint: what lies beside a file that was put in the
    place of another says nothing about it.
    """
    facts, sidecar = Path(path).with_suffix(".json"), Path(sidecar_path(path))
    try:
        if facts.is_file():
            content = json.loads(facts.read_text(encoding="utf-8"))
            found, of = content["identity"]["data"], content["checkpoint"]
        elif sidecar.is_file():
            content = load_plain(sidecar)
            found, of = content["data"], content["checkpoint"]
        else:
            return None
        if of == file_hash(Path(path)):
            return {"tokens": found["tokens"], "train": found["train"]}
        logger.warning("The file beside %s belongs to another checkpoint and is ignored.", path)
    except Exception as error:  # json and torch raise a dozen kinds for a damaged file
        logger.warning("The file beside %s cannot be read: %s", path, error)
    return None


def splitting(config: Any) -> dict[str, Any]:
    """How the data is split: ``eval_args`` without ``mode``, which is how it is ranked."""
    return {key: value for key, value in config["eval_args"].items() if key != "mode"}
