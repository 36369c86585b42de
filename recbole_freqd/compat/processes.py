"""Starts RecBole in several processes, also without GPUs; only one of them is loud.

RecBole's issues #815, #959 and #1375 asked for such a launch; 1.2.1 has one for GPUs only.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recbole_freqd.compat.patches import Patches
from recbole_freqd.core.errors import ConfigError


def only_nccl() -> bool:
    """Whether RecBole's Config starts processes with NCCL, whatever the machine has."""
    from recbole.config.configurator import Config

    return "gloo" not in Config._init_device.__code__.co_consts


def apply_start_of_processes(patches: Patches) -> None:
    """Config, given ``local_rank``: with gloo where there is no GPU, and once for all Configs.

    Raises:
        ConfigError: From the Config: fewer GPUs than processes.
    """
    import torch
    from recbole.config.configurator import Config

    start = Config._init_device

    @functools.wraps(start)
    def _init_device(self: Any) -> None:
        values = self.final_config_dict
        if "local_rank" not in values:
            return start(self)
        if "gpu_id" not in self.external_config_dict:  # RecBole's default is one
            usable = os.environ.get("CUDA_VISIBLE_DEVICES") or _numbers(values["nproc"])
            values["gpu_id"] = ",".join(usable.split(",")[: values["nproc"]])
        given = values["gpu_id"]
        visible = ",".join(map(str, given)) if isinstance(given, (tuple, list)) else str(given)
        os.environ["CUDA_VISIBLE_DEVICES"] = visible  # as RecBole does; before torch looks at it
        on_cpu = not visible or not torch.cuda.is_available()
        if not on_cpu and len(visible.split(",")) < values["nproc"]:
            raise ConfigError(
                f"gpu_id: got {visible!r} for {values['nproc']} processes; allowed: as many GPUs, "
                f"e.g. gpu_id: '{_numbers(values['nproc'])}'."
            )
        changed = Patches()
        changed.set(torch.distributed, "init_process_group", _starting("gloo" if on_cpu else None))
        if on_cpu:
            values["gpu_id"] = _numbers(values["nproc"])  # RecBole counts them
            changed.set(torch.cuda, "set_device", lambda device: None)
        try:
            start(self)
        finally:
            changed.undo()
        if on_cpu:
            values.update(gpu_id=visible, device=torch.device("cpu"))
            os.environ["CUDA_VISIBLE_DEVICES"] = visible

    patches.set(Config, "_init_device", _init_device)


def _numbers(count: int) -> str:
    return ",".join(map(str, range(count)))


def _starting(backend: str | None) -> Any:
    """torch's own, with another backend; a second Config of a process finds the group there."""
    import torch.distributed as dist

    start = dist.init_process_group

    def init_process_group(**arguments: Any) -> None:
        if not dist.is_initialized():
            start(**{**arguments, "backend": backend or arguments["backend"]})

    return init_process_group


class _NoWriter:
    """Stands in for a TensorBoard writer: takes everything, writes nothing."""

    log_dir = ""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@contextmanager
def one_of_many(first: bool, on_cpu: bool) -> Iterator[None]:
    """While open, RecBole's trainers are made as one of several processes.

    Args:
        first: Whether this is the one that writes; the others get no TensorBoard folder.
        on_cpu: Whether there are no GPUs: RecBole names one to DistributedDataParallel, and torch
            synchronises batch norms on GPUs only.
    """
    import torch
    from recbole.trainer import trainer

    patches, wrap = Patches(), trainer.DistributedDataParallel
    if on_cpu:
        patches.set(trainer, "DistributedDataParallel", lambda module, device_ids: wrap(module))
        patches.set(torch.nn.SyncBatchNorm, "convert_sync_batchnorm", lambda module: module)
    if not first:
        patches.set(trainer, "get_tensorboard", lambda logger: _NoWriter())
    try:
        yield
    finally:
        patches.undo()
