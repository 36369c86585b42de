"""Checkpoints: read without running what is in them. They are written by :mod:`.writing`."""

import os
from pathlib import Path
from typing import Any, Optional, Union

import torch

from recbole_freqd.checkpoint import unpickler
from recbole_freqd.checkpoint.archive import Archive, is_zip
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import (
    PathLike,
)


def load_checkpoint(
    path: PathLike,
    *,
    map_location: Union[str, torch.device] = "cpu",
    trust: bool = False,
    model_class: Optional[type] = None,
    named_by: Optional[str] = None,
    trust_by: str = "set teacher.trust_checkpoint: true",
) -> dict[str, Any]:
    """Reads a checkpoint of RecBole or of this package without running code stored in it.

    Args:
        path: The ``.pth`` file.
        map_location: Device that the tensors land on.
        trust: Load whatever is pickled inside. Only for files you made yourself.
        model_class: A class of your own that the file may mention as its model's; it is not looked
            up and not called.
        named_by: The config key that has the path, for the message when there is no such file.
        trust_by: How the caller is told to trust it, for the message when it is refused.

    Returns:
        RecBole's dict: ``config``, ``epoch``, ``state_dict``, ``other_parameter``, ...

    Raises:
        CheckpointError: No such file, not a checkpoint, damaged, or (unless ``trust``) a class in
            it is not one that RecBole writes.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(str(file) for file in path.parent.glob("*.pth"))[:8]
        there = f" There: {', '.join(near)}." if near else ""
        change = f" Change {named_by}." if named_by else ""
        raise CheckpointError(f"Checkpoint {path} does not exist.{there}{change}")
    try:
        whole = is_zip(path)
    except OSError as error:
        raise CheckpointError(
            f"Checkpoint {path} cannot be opened: {error}. Allowed: a file that you may read."
        ) from error
    if not whole:
        raise CheckpointError(
            f"Checkpoint {path} is no torch checkpoint (not a zip file), or it is cut off. "
            "Allowed: a .pth file written by RecBole or recbole_freqd with torch 1.6 or later."
        )
    own = ("", "") if model_class is None else (model_class.__module__, model_class.__qualname__)
    try:
        payload = _trusted(path, map_location) if trust else _read(path, map_location, own)
    except CheckpointError as error:
        raise CheckpointError(
            f"Checkpoint {path} is refused: {error}. If you made it yourself and know what is in "
            f"it, {trust_by}."
        ) from None
    except torch.cuda.OutOfMemoryError:  # the file is none the worse
        raise
    except Exception as error:  # zipfile, pickle and torch raise a dozen kinds for a damaged file
        raise _damaged(path, error) from error
    if not isinstance(payload, dict) or not {"config", "state_dict"} <= set(payload):
        raise CheckpointError(
            f"Checkpoint {path} has no 'config' and 'state_dict': it is not one of RecBole's."
        )
    if not trust:
        _check_parts(payload, path)
        payload["config"] = _as_config(payload["config"], path)
    return payload


def _check_parts(payload: dict[str, Any], path: Path) -> None:
    """Raises CheckpointError unless weights and other parameters are what RecBole goes through."""
    weights, others = payload["state_dict"], payload.get("other_parameter")
    good = isinstance(weights, dict) and all(map(torch.is_tensor, weights.values()))
    if not good or not (others is None or isinstance(others, dict)):
        raise CheckpointError(
            f"Checkpoint {path} is not one of RecBole's: 'state_dict' must hold tensors by name, "
            "and 'other_parameter' values by name or nothing."
        )


def load_plain(path: PathLike, map_location: Union[str, torch.device, None] = None) -> Any:
    """Reads a sidecar of this package, or pretrained weights: tensors, arrays and plain values.

    Args:
        path: A file of ``torch.save``.
        map_location: Device that the tensors land on; None: the CPU.

    Raises:
        CheckpointError: No such file, damaged, or with something else in it.
    """
    path = Path(path)
    try:
        return _read(path, map_location or "cpu", ("", ""))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read: {error or type(error).__name__}. Allowed: a whole file of "
            "tensors and plain values, as RecBole and recbole_freqd write them."
        ) from error


def _read(path: Path, map_location: Union[str, torch.device], own: tuple[str, str]) -> Any:
    with Archive(path, map_location) as archive:
        return unpickler.read(archive, own)


def _trusted(path: Path, map_location: Union[str, torch.device]) -> Any:
    with Archive(path, "cpu") as archive:
        archive.verify()
    return torch.load(path, map_location=map_location, weights_only=False)


def _as_config(stored: Any, path: Path) -> Any:
    """The stored Config as RecBole's own class.

    Raises:
        CheckpointError: It is no Config.
    """
    from recbole.config import Config

    if isinstance(stored, Config):  # of a trusted file
        return stored
    kind, values = type(stored), getattr(stored, "__dict__", {})
    if (kind.__module__, kind.__name__) != unpickler.CONFIG or "final_config_dict" not in values:
        raise CheckpointError(
            f"Checkpoint {path} holds a {kind.__name__} as its 'config', not a RecBole Config."
        )
    final = values["final_config_dict"]
    if not (
        isinstance(final, dict)
        and isinstance(final.get("model"), str)
        and isinstance(values.get("model_class"), type)
    ):
        raise CheckpointError(f"Checkpoint {path} holds a 'config' that names no model.")
    methods = sorted(name for name in values if hasattr(Config, name))
    if methods:
        raise CheckpointError(
            f"Checkpoint {path} is refused: its 'config' replaces {methods} of RecBole's Config."
        )
    config = object.__new__(Config)
    config.__dict__.update(values)
    return config


def check_whole(path: Any) -> None:
    """Reads a file of ``torch.save`` against its checksums, which torch does not.

    Args:
        path: The file; one that is no zip file (torch's old format has no checksums), or that is
            not there, is passed over.

    Raises:
        CheckpointError: It is cut off, or a byte of it has changed.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as file:
            begins = file.read(4)
        if begins not in (b"PK\3\4", b"") and not is_zip(Path(path)):
            return
        with Archive(Path(path), "cpu") as archive:
            archive.verify()
    except Exception as error:
        raise _damaged(Path(path), error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"Checkpoint {path} cannot be read: {error or type(error).__name__}. It is damaged: "
        "take another copy of it, or train again."
    )


def sidecar_path(checkpoint: Any) -> str:
    """The file beside a student's checkpoint that keeps projectors and random streams."""
    return str(Path(checkpoint).with_suffix(".distiller.pt"))
