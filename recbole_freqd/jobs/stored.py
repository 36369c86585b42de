"""Restores a checkpoint with its data on the CPU, for a job that trains nothing."""

import platform
from pathlib import Path
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd import __version__, compat
from recbole_freqd.config.identity import data_fingerprint
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import sha256
from recbole_freqd.features.data import pairs
from recbole_freqd.teacher.reader import Reader
from recbole_freqd.teacher.restore import Environment, Restored, restore

_FOR_A_JOB = Reader(
    "Checkpoint",
    CheckpointError,
    "Put the data back, or say where it is: --data_path=...",
    trust="give --trust_checkpoint",
    trust_data="give --trust_data",
)


def restore_for_job(
    path: Path, data_path: Optional[str], *, trust: bool, trust_data: bool
) -> Restored:
    """Loads a checkpoint and reads its data again.

    Args:
        path: The ``.pth`` file.
        data_path: Where the datasets are now, as RecBole's key, if they have moved.
        trust: Load classes of one's own, which can run code.
        trust_data: Take data that nothing shows to be what was trained on.

    Raises:
        CheckpointError: It cannot be read, or its data is gone or has changed.
    """
    compat.install_shims()
    environment = _environment(data_path)
    return restore(str(path), environment, _FOR_A_JOB, trust=trust, trust_data=trust_data)


def _environment(data_path: Optional[str]) -> Environment:
    """On the CPU, with the data where it was, or where it is now."""
    import recbole

    examples = Path(recbole.__file__).parent / "dataset_example"  # ml-100k is among them
    datasets = examples if data_path is None else Path(data_path)
    keys = {
        "device": torch.device("cpu"),
        "gpu_id": "",
        "use_gpu": False,
        "show_progress": False,
        "worker": 0,
    }
    return Environment(keys, lambda name: str(datasets / name))


def shape_of(source: Restored) -> tuple[int, int]:
    """(n_users, n_items), padding included."""
    return source.train.user_num, source.train.item_num


def pair_matrix(dataset: Any, shape: tuple[int, int]) -> sp.csr_array:
    """(n_users, n_items) bool, true for the interactions of a RecBole dataset."""
    ids = tuple(pairs(dataset).T)
    return sp.csr_array((np.ones(len(ids[0]), dtype=bool), ids), shape=shape)


def describe_source(source: Restored) -> dict[str, Any]:
    """Describes a checkpoint, and what made a file from it, for that file."""
    import recbole

    modules = {"recbole": recbole, "torch": torch, "numpy": np}
    return {
        "format": 1,
        "model": source.stored["model"],
        "trainer": source.stored["trainer"],
        "checkpoint": {"file": Path(source.path).name, "sha256": sha256(source.path)},
        "dataset": source.stored["dataset"],
        "data": data_fingerprint(source.train),
        "versions": {
            "recbole_freqd": __version__,
            **{name: str(module.__version__) for name, module in modules.items()},
            "python": platform.python_version(),
        },
    }
