"""Finds the teacher that taught a student, as far as its checkpoint tells."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import CHECKPOINT, form_of, is_recipe
from recbole_freqd.core.errors import ConfigError, TeacherError, join_names
from recbole_freqd.core.files import file_hash
from recbole_freqd.core.schema import read_keys

logger = logging.getLogger(__name__)


def find_own_teacher(students: Sequence[str], *, trust: bool = False) -> str:
    """Finds the teacher's checkpoint of the first student that had a teacher.

    Args:
        students: Their checkpoints.
        trust: Load classes of your own, which can run code.

    Raises:
        ConfigError: None had one, or it is not where it was; the message says which it was.
    """
    configs = [
        load_checkpoint(path, trust=trust, trust_by="give --trust_checkpoint")["config"]
        for path in students
    ]
    taught = next((config for config in configs if _spec(config)), None)
    if taught is None:
        raise ConfigError(
            f"{join_names(students)}: no teacher taught them, so there is no teacher to analyse "
            "them by. Name one: --teacher TEACHER.pth."
        )
    named = _spec(taught).get(CHECKPOINT)
    found = [Path(named)] if named else []
    if is_recipe(_spec(taught)):
        found = _trained_by_recipe(taught)
    found = [path for path in found if path.is_file()]
    if len(found) != 1:
        there = f"these fit: {join_names(found)}" if found else "it is not where it was"
        raise ConfigError(
            f"The teacher was {describe_own_teacher(taught)}, and {there}. Name it: --teacher "
            "TEACHER.pth."
        )
    return str(found[0])


def check_own_teacher(path: str, config: Any, student: str, taught: Any, *, needed: bool) -> None:
    """Refuses, or warns, if another teacher taught a student than the one it is compared with.

    Args:
        path: Of the teacher's checkpoint. config: Its own.
        student: The path of the student. taught: Its config.
        needed: Whether the projector trained with the teacher is applied.

    Raises:
        TeacherError: It is another one, and its own is needed.
    """
    if not _spec(taught) or _is_own(path, config, taught):
        return
    words = f"{student} was taught by {describe_own_teacher(taught)}, not by {path}"
    if needed:
        raise TeacherError(
            f"{words}: its projector leads to the features of that one. Allowed: --teacher with "
            "its own (the default), or several students, whose maps are fitted anew."
        )
    logger.warning("%s.", words)


def describe_own_teacher(config: Any) -> str:
    """The teacher in a student's config, in words."""
    spec = _spec(config)
    if spec.get(CHECKPOINT) is not None:
        return f"the checkpoint {spec[CHECKPOINT]}"
    if not is_recipe(spec):
        return f"{form_of(spec)} in {spec[form_of(spec)]}"
    keys = ", ".join(f"{key}={value}" for key, value in _recipe(spec).items() if key != "model")
    return f"a {spec.get('model')} trained by its recipe ({keys}) in {config['checkpoint_dir']}"


def _spec(config: Any) -> dict[str, Any]:
    """The teacher of a student's config; empty where it had none, or several."""
    spec: Optional[Any] = config[TEACHER] if trainer_names(config["trainer"]) else None
    return spec if isinstance(spec, dict) else {}


def _recipe(spec: dict[str, Any]) -> dict[str, Any]:
    reserved = read_keys("teacher.yaml")
    return {key: value for key, value in spec.items() if key not in reserved}


def _is_own(path: str, config: Any, taught: Any) -> bool:
    spec = _spec(taught)
    named = spec.get(CHECKPOINT)
    if named is None:
        return is_recipe(_spec(taught)) and _fits_recipe(config, taught)
    if Path(named).is_file():
        return file_hash(Path(named)) == file_hash(Path(path))
    return Path(named).name == Path(path).name  # it has been moved


def _fits_recipe(config: Any, taught: Any) -> bool:
    wanted = {**_recipe(_spec(taught)), "seed": taught["seed"]}
    return all(str(config[key]) == str(value) for key, value in wanted.items())


def _trained_by_recipe(taught: Any) -> list[Path]:
    """Teachers in ``checkpoint_dir`` that the recipe of a student describes."""
    folder, start = (
        Path(taught["checkpoint_dir"]),
        f"teacher-{_spec(taught).get('model')}-{taught['dataset']}-",
    )
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        file
        for file in files
        if file.name.startswith(start)
        and file.suffix == ".pth"
        and ".epoch" not in file.name
        and _fits_recipe(load_checkpoint(file)["config"], taught)
    ]
