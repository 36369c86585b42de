"""Exchanges values between the processes of one training; a single one skips that."""

import contextlib
import copy
import datetime
import hashlib
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import torch
import torch.distributed as dist

from recbole_freqd.config.names import OF_MANY_PROCESSES
from recbole_freqd.core.errors import FreqDError, TrainingError
from recbole_freqd.core.files import write_atomically

T = TypeVar("T")
# For one process at work while the others wait: a teacher may be trained for hours, and NCCL gives
# up after ten minutes. A process that has died is noticed at once, since its connections close.
_PATIENCE = datetime.timedelta(days=1)
_made: list[Any] = []


@dataclass(frozen=True)
class Processes:
    """The processes of one training, as seen by one of them.

    Whatever a method says of all processes holds only if all of them call it, in the same order.

    Attributes:
        rank: Number of this process among all.
        local_rank: Its number among those of its machine.
        size: How many there are.
        on_this_machine: How many of them are here.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    on_this_machine: int = 1

    @classmethod
    def of(cls, config: Any) -> "Processes":
        """Those that a finished Config was made in."""
        if config["single_spec"]:
            return cls()
        return cls(dist.get_rank(), config["local_rank"], dist.get_world_size(), config["nproc"])

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def run_in_all(self, work: Callable[[], T], takes_part: bool = True) -> Optional[T]:
        """Runs ``work`` where it ``takes_part``, and waits until all are done; None elsewhere.

        Raises:
            FreqDError: It failed somewhere; then it raises everywhere.
        """
        if self.size == 1:
            return work()
        result, error = self._try(work) if takes_part else (None, None)
        if self._any_process(error is not None):
            errors: list[Any] = [None] * self.size
            dist.all_gather_object(errors, self._as_picklable(error), group=_group())
            raise error or next(filter(None, errors))
        return result

    def from_first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in the first process, in all of them.

        Raises:
            FreqDError: It failed there; then it raises everywhere.
        """
        if self.size == 1:
            return work()
        result, error = self._try(work) if self.is_first else (None, None)
        told = [(result, self._as_picklable(error))]
        dist.broadcast_object_list(told, src=0, group=_group())
        if error or told[0][1]:
            raise error or told[0][1]
        return told[0][0]

    def make_once(self, work: Callable[[], T]) -> T:
        """The tensors that ``work`` gives in one process of each machine, in all of them.

        They are read from a temporary file that is gone afterwards: mapped into memory (torch 2.1
        and later), so that on the CPU all processes share one copy.
        """
        if self.size == 1:
            return work()
        name = self.from_first(lambda: f"recbole_freqd-{uuid.uuid4().hex}")
        file = Path(tempfile.gettempdir()) / f"{name}-{self.rank - self.local_rank}.pt"

        def save() -> None:
            made = work()
            file.touch(mode=0o600, exist_ok=False)  # features of users are nobody else's to read
            torch.save(made, file)

        try:
            self.run_in_all(save, takes_part=self.local_rank == 0)
            mapped = {"mmap": True} if "mmap" in signature(torch.load).parameters else {}
            read = partial(torch.load, file, weights_only=True, **mapped)
            return self.run_in_all(read)  # type: ignore[return-value]
        finally:
            if self.local_rank == 0:
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)

    def gathered(self, part: T) -> list[T]:
        """The parts of all processes in the first one, by rank; elsewhere none."""
        if self.size == 1:
            return [part]
        parts: Any = [None] * self.size if self.is_first else None
        dist.gather_object(part, parts, dst=0, group=_group())
        return parts or []

    def hand_over(self, files: Iterable[Path]) -> None:
        """Gives files of the first process's machine to the machines that do not have them."""
        if self.size == self.on_this_machine:
            return
        for file in files:
            wanted = self.from_first(partial(_hash, file))
            lacks = self.local_rank == 0 and _hash(file) != wanted
            if self._any_process(lacks):
                content = self.from_first(file.read_bytes)
                self.run_in_all(partial(_write, file, content), takes_part=lacks)

    def _any_process(self, flag: bool) -> bool:
        found = torch.tensor([flag], dtype=torch.uint8)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=_group())
        return bool(found)

    def _try(self, work: Callable[[], T]) -> tuple[Optional[T], Optional[Exception]]:
        try:
            return work(), None
        except Exception as error:
            return None, error

    def _as_picklable(self, error: Optional[Exception]) -> Optional[FreqDError]:
        """An error as other processes can be told of it."""
        if error is None or isinstance(error, FreqDError):
            return error
        return TrainingError(f"Process {self.rank} failed: {type(error).__name__}: {error}")


def as_in_one_process(config: Any) -> Any:
    """A Config of one of many processes as that of one alone; of one alone, itself.

    It is what a checkpoint holds: given ``local_rank``, RecBole would wait for the others.
    """
    if config["single_spec"]:
        return config
    made = copy.copy(config)
    for name, values in vars(config).items():
        if name.endswith("_config_dict"):
            kept = {key: value for key, value in values.items() if key not in OF_MANY_PROCESSES}
            setattr(made, name, kept)
    device = type(config["device"])(config["device"].type)
    made.final_config_dict.update(single_spec=True, local_rank=0, device=device)
    return made


def _group() -> Any:
    """Connects all processes apart from the gradients, with a longer patience."""
    if not _made or _made[0] is not dist.group.WORLD:
        _made[:] = [dist.group.WORLD, dist.new_group(backend="gloo", timeout=_PATIENCE)]
    return _made[1]


def _hash(file: Path) -> Optional[str]:
    if not file.is_file():
        return None
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


def _write(file: Path, content: bytes) -> None:
    write_atomically(file, lambda temporary: Path(temporary).write_bytes(content))
