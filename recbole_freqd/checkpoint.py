"""Checkpoints: read without running what is in them, written whole or not at all."""

import contextlib
import datetime
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np
import torch

from recbole_freqd import unpickling
from recbole_freqd.archive import Archive
from recbole_freqd.errors import CheckpointError

PathLike = Union[str, "os.PathLike[str]"]


def load_checkpoint(
    path: PathLike,
    *,
    map_location: Union[str, torch.device] = "cpu",
    trust: bool = False,
    model_class: Optional[type] = None,
) -> dict[str, Any]:
    """Reads a checkpoint of RecBole or of this package without running code stored in it.

    Args:
        path: The ``.pth`` file.
        map_location: Device that the tensors land on.
        trust: Load whatever is pickled inside. Only for files you made yourself.
        model_class: A class of your own that the file may mention as its model's; it is not looked
            up and not called.

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
        raise CheckpointError(f"Checkpoint {path} does not exist.{there}")
    if not zipfile.is_zipfile(path):
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
            "it, set teacher.trust_checkpoint: true."
        ) from None
    except Exception as error:  # zipfile, pickle and torch raise a dozen kinds for a damaged file
        raise CheckpointError(
            f"Checkpoint {path} cannot be read: {error or type(error).__name__}. It is damaged: "
            "take another copy of it, or train again."
        ) from error
    if not isinstance(payload, dict) or not {"config", "state_dict"} <= set(payload):
        raise CheckpointError(
            f"Checkpoint {path} has no 'config' and 'state_dict': it is not one of RecBole's."
        )
    if not trust:
        payload["config"] = _as_config(payload["config"], path)
    return payload


def load_plain(path: PathLike, map_location: Union[None, str, torch.device] = None) -> Any:
    """Reads a sidecar of ours, or pretrained weights: tensors, arrays and plain values.

    Args:
        path: A file of ``torch.save``.
        map_location: Device that the tensors land on; None: the CPU.

    Raises:
        CheckpointError: No such file, damaged, or with something else in it.
    """
    path = Path(path)
    try:
        return _read(path, map_location or "cpu", ("", ""))
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read: {error or type(error).__name__}. Allowed: a whole file of "
            "tensors and plain values, as RecBole and recbole_freqd write them."
        ) from error


def _read(path: Path, map_location: Union[str, torch.device], own: tuple[str, str]) -> Any:
    with Archive(path, map_location) as archive:
        return unpickling.read(archive, own)


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
    if (kind.__module__, kind.__name__) != unpickling.CONFIG or "final_config_dict" not in values:
        raise CheckpointError(
            f"Checkpoint {path} holds a {kind.__name__} as its 'config', not a RecBole Config."
        )
    methods = sorted(name for name in values if hasattr(Config, name))
    if methods:
        raise CheckpointError(f"Checkpoint {path} is refused: its 'config' replaces {methods}.")
    config = object.__new__(Config)
    config.__dict__.update(values)
    return config


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[str]:
    """Yields a temporary name to write to; what is there in the end takes the place of ``path``.

    Flushed to disk first. If the block raises, what stood at ``path`` is untouched.

    Raises:
        CheckpointError: The folder cannot be made or written to, or nothing was written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _cannot_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
        yield str(temporary)
        with _cannot_write(path):
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # most often it is gone, sometimes it could not be made
            temporary.unlink()


@contextlib.contextmanager
def _cannot_write(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error}.") from error


def write_atomically(path: PathLike, write: Callable[[str], Any]) -> None:
    """Runs ``write(temporary_path)`` and gives the file its name: :func:`replacing` in one call.

    Raises:
        CheckpointError: The file could not be written; what stood at ``path`` is untouched.
    """
    with replacing(path) as temporary, _cannot_write(Path(path)):
        write(temporary)


def write_json(path: PathLike, content: Any) -> None:
    """Writes ``content`` as indented JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def new_checkpoint_path(folder: PathLike, stem: str) -> str:
    """A file name in ``folder`` that no other run uses: time to the microsecond and process id.

    RecBole's own names go by the second, so two runs started together share a file.

    Raises:
        CheckpointError: The folder cannot be made.
    """
    folder = Path(folder)
    time = datetime.datetime.now().strftime("%b-%d-%Y_%H-%M-%S-%f")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint_dir {folder} cannot be made: {error}. Change checkpoint_dir."
        ) from error
    return str(folder / f"{stem}-{time}-{os.getpid()}.pth")


def sidecar_path(checkpoint: Any) -> str:
    """The file beside a student's checkpoint that keeps projectors and random streams."""
    return str(Path(checkpoint).with_suffix(".distiller.pt"))


def fingerprint(*parts: Any) -> str:
    """A hash of arrays, strings and JSON-like values: equal content, equal hash."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            text = "\0".join(map(str, part.flat)) if part.dtype.kind in "OUS" else None
            content = text.encode() if text is not None else np.ascontiguousarray(part).tobytes()
            head = f"{part.dtype.kind}{part.shape}".encode()
        else:
            content, head = json.dumps(part, sort_keys=True, default=str).encode(), b"json"
        digest.update(head + len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
