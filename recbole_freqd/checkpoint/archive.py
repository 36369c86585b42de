"""The zip file that ``torch.save`` writes: its records, each checked by its checksum.

torch reads such files without a look at the checksums: a byte that a disk or a transfer has flipped
in a weight goes unnoticed.
"""

import sys
import zipfile
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch

_CHUNK = 1 << 24  # bytes read and checked at a time


class Damaged(Exception):
    """The file is not what was written."""


def is_zip(path: Path) -> bool:
    """Whether a file ends as a zip file does; a damaged end counts, opening it will say more.

    Raises:
        OSError: The file cannot be opened at all.
    """
    with open(path, "rb") as file:
        try:
            return zipfile.is_zipfile(file)
        except zipfile.BadZipFile:
            return True


class Archive:
    """A file of ``torch.save``, opened.

    Args:
        path: The file.
        device: Where the storages land.

    Raises:
        Damaged, zipfile.BadZipFile: It is none, or not as torch.save writes them.
    """

    def __init__(self, path: Path, device: Union[str, torch.device]) -> None:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\3\4":  # what lies before a zip could be a bare pickle
                raise Damaged("it does not begin as a zip file")
        self._zip = zipfile.ZipFile(path)
        self._device = device
        self._storages: dict[str, torch.Tensor] = {}
        records = self._zip.infolist()
        names = [record.filename for record in records]
        tops = {name.partition("/")[0] for name in names}
        if any(name.endswith("/constants.pkl") for name in names):
            raise Damaged("it is a TorchScript archive, and those hold code")
        if len(tops) != 1 or f"{next(iter(tops))}/data.pkl" not in names:
            raise Damaged("it has no record data.pkl: torch.save did not write it")
        self._top = next(iter(tops))
        if len(set(names)) < len(names):
            raise Damaged("it has two records of one name")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise Damaged("its records are compressed, which torch.save never does")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise Damaged("its records are larger than the file")
        order = "little"
        if f"{self._top}/byteorder" in names:
            order = self.record("byteorder").decode()
        if order != sys.byteorder:
            raise Damaged(f"it is of a {order}-endian machine, and this one is {sys.byteorder}")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: Any) -> None:
        self._zip.close()

    def record(self, name: str) -> bytes:
        """The bytes of a record."""
        return self._zip.read(f"{self._top}/{name}")

    def storage(self, key: str) -> torch.Tensor:
        """The bytes of a record, read once."""
        if key not in self._storages:
            try:
                record = self._zip.getinfo(f"{self._top}/data/{key}")
            except KeyError:
                raise Damaged(f"its record data/{key} is missing") from None
            data = torch.empty(record.file_size, dtype=torch.uint8)
            _read_into(self._zip, record, data.numpy())
            self._storages[key] = data.to(self._device)
        return self._storages[key]

    def verify(self) -> None:
        """Reads every record against its checksum."""
        bad = self._zip.testzip()
        if bad is not None:
            raise Damaged(f"its record {bad} is not what was written (wrong checksum)")


def _read_into(archive: zipfile.ZipFile, record: zipfile.ZipInfo, into: np.ndarray) -> None:
    """Reads a record into an array of as many bytes; zipfile checks the sum at the last of them.

    Raises:
        Damaged: There are fewer bytes than the directory of the file says.
    """
    view, position = into.data, 0
    with archive.open(record) as file:
        while True:
            part = file.read(_CHUNK)
            if not part:
                break
            view[position : position + len(part)] = part
            position += len(part)
    if position != len(view):
        raise Damaged(f"its record {record.filename} is cut off")
