"""What every test gets: a working directory of its own, one thread, and a tiny dataset."""

import os

# Before NumPy is imported: threads cost more than they bring on tensors this small, above all
# where several workers of pytest-xdist share the cores. Subprocesses of the tests inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import copy
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np
import pytest
import torch
import yaml

TINY_USERS, TINY_ITEMS = 30, 40


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The environment variable says it to OpenMP; torch has pools of its own."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole writes log/, log_tensorboard/ and saved/ where it is, and reads the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test pulls the plug, and every file that is written would be waited for twice."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset ``tiny``: 30 users, 40 items, two groups of tastes."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "tiny").mkdir()
    rng = np.random.default_rng(7)
    lines = ["user_id:token\titem_id:token"]
    for user in range(TINY_USERS):
        tastes = np.where(np.arange(TINY_ITEMS) % 2 == user % 2, 5.0, 1.0)
        liked = rng.choice(TINY_ITEMS, size=12, replace=False, p=tastes / tastes.sum())
        lines += [f"u{user}\ti{item}" for item in liked]
    (folder / "tiny" / "tiny.inter").write_text("\n".join(lines) + "\n")
    return folder


@cache
def _parsed(text: str, loader: type) -> Any:
    return yaml.load(text, Loader=loader)


def _load_again(text: str, Loader: type) -> Any:
    """RecBole parses its own defaults for every Config; that takes longer than all the rest."""
    return copy.deepcopy(_parsed(text, Loader))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """RecBole with us registered; taken back afterwards."""
    import recbole.utils.logger
    from recbole.config import configurator

    import recbole_freqd
    from recbole_freqd.config import names as key_names

    stand_in = SimpleNamespace(load=_load_again, FullLoader=yaml.FullLoader)
    monkeypatch.setattr(configurator, "yaml", stand_in)
    # colorama would wrap pytest's captured stdout once more at every run.
    monkeypatch.setattr(recbole.utils.logger, "init", lambda **_: None)
    recbole_freqd.register()
    key_names._mention.cache_clear()
    yield recbole_freqd
    recbole_freqd.unregister()


@pytest.fixture
def tiny_keys(tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    """The config_dict of a short run on the tiny dataset."""
    return {
        "data_path": str(tiny_data),
        "checkpoint_dir": str(tmp_path / "saved"),
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": 4,
        "train_batch_size": 64,
        "epochs": 2,
        "show_progress": False,
        "state": "ERROR",
    }


@pytest.fixture
def tiny_config(host: Any, tiny_keys: dict[str, Any]) -> Callable[..., Any]:
    """Makes a Config for the tiny dataset: ``tiny_config("BPR", trainer="FreqD", teacher=...)``."""
    from recbole.config import Config

    def make(model: str = "BPR", **keys: Any) -> Any:
        defaults = {**tiny_keys, "valid_metric": "NDCG@10"}
        return Config(model, "tiny", config_dict={**defaults, **keys})

    return make


TEACHER = {"model": "BPR", "embedding_size": 8, "epochs": 2, "train_batch_size": 64}


@pytest.fixture
def teacher_recipe() -> dict[str, Any]:
    """A recipe that trains in a moment."""
    return dict(TEACHER)


@pytest.fixture
def built(tiny_config: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a model on the tiny data, and the loaders it goes with: ``built("BPR", epochs=1)``."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    def build(model: Any = "BPR", **keys: Any) -> Any:
        config = tiny_config(model, **keys)
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        return config.model_class(config, loaders[0]._dataset), loaders

    return build


@pytest.fixture
def trained(tiny_config):
    """Saves a checkpoint with RecBole's own trainer: ``trained("BPR") -> (path, model)``."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer

    def save(name):
        config = tiny_config(name)
        data, *_ = data_preparation(config, create_dataset(config))
        model = get_model(name)(config, data._dataset)
        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        trainer._save_checkpoint(1, verbose=False)
        return Path(trainer.saved_model_file), model

    return save
