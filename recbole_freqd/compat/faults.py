"""Faults of RecBole 1.2.1 itself, whatever it runs on: loaders, metrics, folders."""

from __future__ import annotations

import functools
import os
import types
from typing import Any

from recbole_freqd.compat.patches import Overlay, Patches


def saving_takes_generators() -> bool:
    """Whether RecBole's `save_split_dataloaders` leaves the loaders without their generators."""
    from recbole.data.utils import save_split_dataloaders

    names = save_split_dataloaders.__code__.co_names
    return "get_state" in names and "set_state" not in names


def apply_generators(patches: Patches) -> None:
    """Gives loaders their generators back once they are saved, or the saving failed."""
    import recbole.data
    import recbole.data.utils

    save = recbole.data.utils.save_split_dataloaders

    @functools.wraps(save)
    def save_split_dataloaders(config: Any, dataloaders: Any) -> None:
        owners = [owner for loader in dataloaders for owner in (loader, loader.sampler)]
        # A DistributedSampler has none.
        taken = [(owner, owner.generator) for owner in owners if hasattr(owner, "generator")]
        try:
            save(config, dataloaders)
        finally:
            for owner, generator in taken:
                owner.generator = generator

    for module in (recbole.data.utils, recbole.data):
        if vars(module).get("save_split_dataloaders") is save:
            patches.set(module, "save_split_dataloaders", save_split_dataloaders)


def collector_wants_tensors() -> bool:
    """Whether RecBole's collector calls `cpu()` of whatever it holds."""
    from recbole.evaluator.collector import Collector

    collector = Collector.__new__(Collector)
    collector.data_struct = _holding(number=1)
    try:
        collector.get_data_struct()
    except AttributeError:
        return True
    return False


def _holding(**values: Any) -> Any:
    from recbole.evaluator.collector import DataStruct

    struct = DataStruct()
    for name, value in values.items():
        struct.set(name, value)
    return struct


def apply_collector(patches: Patches) -> None:
    """Lets what is no tensor, such as the number of items, pass the collector."""
    import torch
    from recbole.evaluator.collector import Collector

    hand_over = Collector.get_data_struct

    @functools.wraps(hand_over)
    def get_data_struct(self: Any) -> Any:
        held = self.data_struct._data_dict
        others = {name: held[name] for name in held if not isinstance(held[name], torch.Tensor)}
        for name in others:
            del held[name]
        try:
            struct = hand_over(self)
        finally:
            held.update(others)
        for name, value in others.items():
            struct.set(name, value)
        return struct

    patches.set(Collector, "get_data_struct", get_data_struct)


def ensure_dir_races() -> bool:
    """Whether RecBole's `ensure_dir` fails where another process makes the folder meanwhile."""
    from recbole.utils.utils import ensure_dir

    names = ensure_dir.__globals__
    # The folder is there, but was not when `exists` was asked.
    late = Overlay(names["os"], path=Overlay(os.path, exists=lambda _: False))
    try:
        types.FunctionType(ensure_dir.__code__, {**names, "os": late})(os.curdir)
    except FileExistsError:
        return True
    return False


def apply_ensure_dir(patches: Patches) -> None:
    """Lets RecBole make a folder that is there already."""
    from recbole.utils import utils

    makedirs = functools.partial(os.makedirs, exist_ok=True)
    patches.set(utils, "os", Overlay(os, makedirs=makedirs))
