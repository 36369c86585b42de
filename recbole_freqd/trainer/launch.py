"""Runs one job in several processes, as RecBole's ``run`` starts them."""

import os
import pickle
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from recbole_freqd.core.errors import ConfigError, FreqDError, TrainingError


@dataclass(frozen=True)
class Launch:
    """Where processes run, by RecBole's names.

    Attributes:
        nproc: Processes on this machine.
        world_size: Processes on all machines; -1: those of this one.
        ip, port: Of the machine with the first process.
        group_offset: Rank of this machine's first process.
    """

    nproc: int = 1
    world_size: int = -1
    ip: str = "localhost"
    port: str = "5678"
    group_offset: int = 0

    @property
    def is_many(self) -> bool:
        """Whether there is more than this process."""
        return self.nproc > 1 or self.world_size > 1

    @property
    def _all(self) -> int:
        return self.nproc if self.world_size <= 0 else self.world_size

    def check(self) -> None:
        """Raises ConfigError where these processes cannot be started."""
        if self.nproc < 1:
            raise ConfigError(f"--nproc: got {self.nproc}; allowed: 1 or more.")
        if not self.is_many:
            return
        last = self._all - self.nproc
        if last < 0 or not 0 <= self.group_offset <= last:
            raise ConfigError(
                f"--group_offset {self.group_offset} --nproc {self.nproc} --world_size {self._all}:"
                " the ranks of this machine, from group_offset on, have to be below world_size."
            )
        if last > 0 and self.ip == "localhost":
            raise ConfigError(
                f"--world_size: got {self._all} with --nproc {self.nproc} and --ip localhost. "
                "Allowed on several machines: --ip, the address of the one with --group_offset 0."
            )
        self._check_machine()
        self._check_port()

    def _check_machine(self) -> None:
        import torch

        gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
        most = gpus or max(cores, 2)  # two on one core: to try things out
        if self.nproc > most:
            raise ConfigError(
                f"--nproc: got {self.nproc}, but this machine has {gpus} GPUs and {cores} cores, "
                "and a process takes a GPU each or, where there is none, a core. Allowed here: "
                f"{most} at most."
            )

    def _check_port(self) -> None:
        """Two launches on one port would take each other's processes for their own."""
        if not str(self.port).isdecimal() or not 0 < int(self.port) < 65536:
            raise ConfigError(f"--port: got {self.port!r}; allowed: 1 to 65535.")
        if self.group_offset > 0:
            return
        with socket.socket() as test:
            test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                test.bind(("", int(self.port)))
            except OSError as error:
                raise ConfigError(
                    f"--port: got {self.port}, which cannot be used ({error.strerror}). If "
                    "another launch has it, give each a --port of its own."
                ) from error

    def keys(self, local_rank: int) -> dict[str, Any]:
        """What RecBole's Config has to know in one of the processes."""
        return {
            "local_rank": local_rank,
            "nproc": self.nproc,
            "world_size": self._all,
            "offset": self.group_offset,
            "ip": self.ip,
            "port": str(self.port),
        }

    def run(self, job: Callable[..., Any], *arguments: Any) -> Any:
        """Runs ``job(*arguments, keys)`` in every process of this machine.

        Args:
            job: A function of a module, which other processes can import; ``keys`` are its share
                of :meth:`keys`.
            *arguments: What can be pickled.

        Returns:
            What it returns in the first process of this machine.

        Raises:
            FreqDError: It failed in one of them, or one has died; then none is left.
        """
        import torch.cuda
        import torch.multiprocessing as mp

        # On the CPU, processes with as many threads as there are cores would wait for each other.
        split = torch.cuda.device_count() == 0 and "OMP_NUM_THREADS" not in os.environ
        threads = max(1, torch.get_num_threads() // self.nproc) if split else 0
        # What the processes tell is read from files that are nobody else's; a pipe would fill up.
        with tempfile.TemporaryDirectory(prefix="recbole_freqd-") as folder:
            told = (self, job, arguments, folder, threads)
            started = mp.spawn(_run_in_process, args=told, nprocs=self.nproc, join=False)
            try:
                while not started.join():
                    pass
            except mp.ProcessExitedException as error:
                raise TrainingError(
                    f"{error}: it was killed, so the other processes were ended. Is there enough "
                    "memory for all of them?"
                ) from error
            except mp.ProcessRaisedException as error:
                errors = sorted(Path(folder).glob("error-*"))
                if not errors:
                    raise
                raise pickle.loads(errors[0].read_bytes()) from error
            finally:  # also where this process alone was told to stop
                for process in started.processes:
                    process.terminate()
                for process in started.processes:
                    process.join()
            return pickle.loads((Path(folder) / "result").read_bytes())


def _run_in_process(
    local_rank: int,
    launch: Launch,
    job: Callable[..., Any],
    arguments: tuple[Any, ...],
    folder: str,
    threads: int,
) -> None:
    """The job in one of the processes, which has so many threads; 0: as torch has it.

    What it returns, or how it failed, is written into the folder.
    """
    import torch.distributed

    if threads:
        torch.set_num_threads(threads)
    try:
        result = job(*arguments, launch.keys(local_rank))
    except FreqDError as error:
        (Path(folder) / f"error-{local_rank}").write_bytes(pickle.dumps(error))
        raise
    except RuntimeError:
        if torch.distributed.is_initialized():  # a peer may have gone: let that one be reported
            time.sleep(3)
        raise
    _leave_group()
    if local_rank == 0:
        (Path(folder) / "result").write_bytes(pickle.dumps(result))


def _leave_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
