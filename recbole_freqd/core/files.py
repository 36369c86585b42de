"""Files are written whole or not at all; the previous file survives a failure."""

import contextlib
import datetime
import errno
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Callable, Optional, Union

import yaml

from recbole_freqd.core.errors import CheckpointError, ConfigError

PathLike = Union[str, "os.PathLike[str]"]
# Folders are shared between machines: a process that is not here may live on another.
_HOST = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
_PART = re.compile(rf"\..+\.{_HOST}-(\d{{1,9}})\.part")
_writing: set[Path] = set()
_cleaned: set[Path] = set()
_counter = itertools.count()
_OF_THE_DISK = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO")
    if hasattr(errno, name)
)


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[str]:
    """Yields a temporary name to write to; at the end that file replaces ``path``.

    Flushed to disk first. If the block raises, or the process dies, what stood at ``path`` is
    untouched; what a process that died has left half-written is removed by the next one.

    Raises:
        CheckpointError: The folder cannot be made or written to, the disk is full, or nothing was
            written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.part")
    _writing.add(temporary)
    try:
        with _cannot_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path.parent)
            temporary.touch()
        with _cannot_write(path, only=_OF_THE_DISK):
            yield str(temporary)
        with _cannot_write(path):
            if temporary.stat().st_size == 0:
                raise OSError("nothing was written to it")
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # most often it is gone, sometimes it could not be made
            temporary.unlink()
        _writing.discard(temporary)


def _sync_folder(folder: Path) -> None:
    """Writes the new name of a file to the disk, where the system supports that."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network disks cannot
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    """Removes what ended processes of this machine have left; once for every folder."""
    if folder in _cleaned or os.name != "posix":
        return
    _cleaned.add(folder)
    for file in folder.glob(".*.part"):
        match = _PART.fullmatch(file.name)
        if match and file not in _writing and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):
                file.unlink()


def _is_alive(process: int) -> bool:
    if process == os.getpid():  # what it is writing is known; this is of an earlier one, now gone
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def _cannot_write(path: Path, only: Optional[frozenset[int]] = None) -> Iterator[None]:
    """Errors of the system become ours: ``only`` these, or all."""
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        raise _not_written(path, error) from error


def _not_written(path: Path, cause: Any) -> CheckpointError:
    free = ""
    with contextlib.suppress(OSError):
        free = f" There are {shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB free."
    return CheckpointError(
        f"Cannot write {path}: {cause}.{free} The file that was there before is untouched. Make "
        "room, make the folder writable, or change it (checkpoint_dir, --output_dir)."
    )


def write_atomically(path: PathLike, write: Callable[[str], Any]) -> None:
    """Runs ``write(temporary_path)`` and gives the file its name: :func:`replacing` in one call.

    Raises:
        CheckpointError: The file could not be written; what stood at ``path`` is untouched.
    """
    with replacing(path) as temporary, _cannot_write(Path(path)):
        try:
            write(temporary)
        except RuntimeError as error:
            if type(error) is not RuntimeError:
                raise
            # torch tells neither type nor errno of a disk; here nothing is done but writing.
            cause = f"torch could not write all of it ({error})"
            raise _not_written(Path(path), cause) from error


def write_text(path: PathLike, text: str) -> None:
    """Writes ``text`` in UTF-8, atomically.

    Raises:
        CheckpointError: As :func:`write_atomically`.
    """
    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write_json(path: PathLike, content: Any) -> None:
    """Writes ``content`` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: PathLike) -> Any:
    """Reads what :func:`write_json` wrote.

    Raises:
        CheckpointError: It cannot be read, or is damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Allowed: JSON as recbole_freqd wrote it. Put a whole "
            "copy in its place, or delete it: what it describes is then made again."
        ) from error


def new_checkpoint_path(folder: PathLike, stem: str) -> str:
    """A file name in ``folder`` that no other run uses: time, machine, process, and a number.

    RecBole's own names go by the second, so two runs started together share a file. Here the time
    is to the microsecond, and the number counts what this process was given.

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
    number = next(_counter)
    return str(folder / f"{stem}-{time}-{number}-{_HOST}-{os.getpid()}.pth")


class _Loader(yaml.SafeLoader):
    """PyYAML's goes by YAML 1.1, where ``1e-5`` (no dot) and ``1.5e5`` (no sign) are text."""


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that are numbers for this loader, and for RecBole's."""


for kind in (_Loader, _Dumper):
    kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def parse_yaml(text: str) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: It is none.

    Example:
        >>> parse_yaml("{learning_rate: 1e-5, learner: adam}")
        {'learning_rate': 1e-05, 'learner': 'adam'}
    """
    return yaml.load(text, Loader=_Loader)


def read_yaml(file: str, option: str) -> dict[str, Any]:
    """A YAML file of sections with keys.

    Args:
        file: Its path.
        option: The option that named it, for messages.

    Raises:
        ConfigError: It is missing or holds something else.
    """
    if not Path(file).is_file():
        raise ConfigError(f"{option}: {file} does not exist (from {Path.cwd()}).")
    try:
        found = parse_yaml(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {file} is no YAML: {error}. Correct it there.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{option}: {file} holds {found!r}; allowed: sections with keys.")
    return found


def write_yaml(path: PathLike, comment: str, content: dict[str, Any], **style: Any) -> None:
    """Writes keys in their order below a line of comment, whole or not at all.

    Raises:
        CheckpointError: It cannot be written.
    """
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, **style)
    write_text(path, f"# {comment}\n{text}")


def fingerprint(*parts: Any) -> str:
    """A hash of arrays, strings and JSON-like values: equal content, equal hash.

    Example:
        >>> fingerprint("a", [1]) == fingerprint("a", [1]) != fingerprint("a", [2])
        True
    """
    import numpy as np  # here, so that reading the keys' files needs no numpy

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


def file_hash(file: Path) -> str:
    """A hash of the bytes of a file; read again only when its time or size has changed."""
    return _content_hash(str(file), file.stat().st_mtime_ns, file.stat().st_size)


@cache
def _content_hash(file: str, _modified: int, _size: int) -> str:
    return _digest(file, hashlib.blake2b(digest_size=16))


def sha256(path: PathLike) -> str:
    """The checksum that ``sha256sum`` prints for a file."""
    return _digest(path, hashlib.sha256())


def _digest(path: PathLike, made: Any) -> str:
    with open(path, "rb") as file:
        while block := file.read(2**20):
            made.update(block)
    return made.hexdigest()
