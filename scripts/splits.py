"""The fixed splits of CiteULike and Gowalla: made again from the public files, and checked.

Pairs of user and item are sorted; each gets a random number, by NumPy's ``default_rng(2026)``. By
these, a user's first tenth (rounded, halves to even, at least one pair) is for the test, the next
for validation, the rest for training.

What is known of a source are the pairs it holds: their checksum does not depend on how its files
are written. Three files come out, named as RecBole reads them (``benchmark_filename: [train, valid,
test]``) and checked.
"""

import argparse
import hashlib
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from recbole_freqd.core.errors import CheckpointError, ConfigError, FreqDError
from recbole_freqd.core.files import write_atomically

SOURCE = "RECBOLE_FREQD_SOURCE"
_HEAD = "user_id:token\titem_id:token\n"
_SEED = 2026


@dataclass(frozen=True)
class Split:
    """A dataset with a fixed split.

    Attributes:
        name: As RecBole names it.
        url: Where its files are.
        files: Their names.
        read: From the files to pairs (n, 2) int64, in any order, repeats allowed.
        pairs: SHA-256 of the sorted pairs, a line ``user TAB item`` each.
        results: SHA-256 of the file of each part.
    """

    name: str
    url: str
    files: tuple[str, ...]
    read: Callable[..., np.ndarray]
    pairs: str
    results: dict[str, str]


def parts_of(pairs: np.ndarray) -> dict[str, np.ndarray]:
    """The pairs (n, 2) of each part of the split, users ascending, each user's in random order.

    Example:
        >>> parts = parts_of(np.array([[7, item] for item in range(15)]))
        >>> {part: len(rows) for part, rows in parts.items()}
        {'train': 11, 'valid': 2, 'test': 2}
    """
    pairs = np.unique(pairs, axis=0)
    keys = np.random.default_rng(_SEED).random(len(pairs))
    pairs = pairs[np.lexsort((keys, pairs[:, 0]))]
    _, first, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    place = np.arange(len(pairs)) - np.repeat(first, counts)
    size = np.repeat(np.maximum(1, np.round(0.1 * counts)), counts)
    test, valid = place < size, (place >= size) & (place < 2 * size)
    return {"train": pairs[~test & ~valid], "valid": pairs[valid], "test": pairs[test]}


def lists(file: Path) -> list[list[int]]:
    """The whole numbers of each line.

    Raises:
        ConfigError: There is something else.
    """
    try:
        return [[int(word) for word in line.split()] for line in file.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not as expected, whole numbers in lines: {error}.") from error


def prepare(split: Split, output: Path) -> list[Path]:
    """Writes the files of a split into the folder ``<output>/<name>``.

    Raises:
        ConfigError: The source is not there, or holds other pairs.
        CheckpointError: What came out is not the split that was published here, or cannot be
            written.
    """
    folder = _source_of(split, output)
    pairs = np.unique(split.read(*(folder / name for name in split.files)), axis=0)
    found = _checksum(_lines(pairs))
    if found != split.pairs:
        raise ConfigError(
            f"The {len(pairs)} pairs in {folder} have the SHA-256 {found}; allowed: {split.pairs}, "
            f"those of {split.url}. Set {SOURCE} to a folder with these."
        )
    texts = {part: _HEAD + _lines(rows) for part, rows in parts_of(pairs).items()}
    for part, text in texts.items():
        if _checksum(text) != split.results[part]:
            raise CheckpointError(
                f"{split.name}.{part}.inter has the SHA-256 {_checksum(text)}, not "
                f"{split.results[part]}: this NumPy draws other numbers. Nothing is written."
            )
    paths = {part: output / split.name / f"{split.name}.{part}.inter" for part in texts}
    for part, path in paths.items():
        text = texts[part]
        write_atomically(path, lambda file, text=text: Path(file).write_text(text, newline="\n"))
    return list(paths.values())


def main(split: Split) -> None:
    """The script: ``--output_dir`` (RecBole's ``dataset``) is where the folder is made."""
    parser = argparse.ArgumentParser(
        description=f"Makes the fixed split of {split.name} from {', '.join(split.files)} of "
        f"{split.url}; ${SOURCE} names a folder with these where there is no network."
    )
    parser.add_argument("--output_dir", default="dataset", help="default: dataset")
    output = Path(parser.parse_args().output_dir)
    try:
        for path in prepare(split, output):
            print(path)
    except FreqDError as error:
        sys.exit(f"{split.name}: {error}")


def _lines(pairs: np.ndarray) -> str:
    return "".join(f"{user}\t{item}\n" for user, item in pairs.tolist())


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _source_of(split: Split, output: Path) -> Path:
    """The folder with the files of a source: the user's, else one that they are downloaded to."""
    given = os.environ.get(SOURCE)
    if given is None:
        return _download(split, output / split.name / "source")
    for folder in (Path(given) / split.name, Path(given)):
        if all((folder / name).is_file() for name in split.files):
            return folder
    raise ConfigError(
        f"{SOURCE}: neither {given} nor its folder {split.name} holds {', '.join(split.files)}, "
        f"which are those of {split.url}."
    )


def _download(split: Split, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in split.files:
        if (folder / name).is_file():
            continue
        try:
            with urllib.request.urlopen(f"{split.url}/{name}", timeout=60) as stream:
                content = stream.read()
        except (urllib.error.URLError, OSError) as error:
            raise ConfigError(
                f"{split.url}/{name} cannot be downloaded: {error}. Set {SOURCE} to a folder that "
                f"holds {', '.join(split.files)}."
            ) from error
        write_atomically(folder / name, lambda file, data=content: Path(file).write_bytes(data))
    return folder
