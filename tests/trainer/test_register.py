"""plugin: RecBole with us registered trains what `trainer:` names; without, it is stock RecBole."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_freqd
from recbole_freqd import compat
from recbole_freqd.core.errors import CompatibilityError, ConfigError
from recbole_freqd.trainer.distillation import DistillationTrainer

ROOT = Path(recbole_freqd.__file__).resolve().parents[1]
CONFIG_HOOKS = ("_load_config_files", "_merge_external_config_dict", "_load_internal_config_dict")
CONFIG_HOOKS += ("_init_device",)


def hooked_places():
    """What stands in every place that register() changes."""
    import recbole.quick_start.quick_start
    import recbole.utils
    import recbole.utils.utils
    from recbole.config import Config

    modules = (recbole.utils.utils, recbole.utils, recbole.quick_start.quick_start)
    hooked = [vars(Config)[name] for name in CONFIG_HOOKS]
    hooked.append(recbole.quick_start.quick_start.run_recboles)
    return hooked + [module.get_trainer for module in modules]


def same(one, other):
    return [left is right for left, right in zip(one, other)]


@pytest.fixture
def stock(monkeypatch):
    """RecBole that runs on these packages, but knows nothing of us; left as it was."""
    import recbole.utils.logger

    # colorama would wrap pytest's captured stdout once more at every run.
    monkeypatch.setattr(recbole.utils.logger, "init", lambda **_: None)
    recbole_freqd.unregister()
    compat.install_shims()
    yield
    recbole_freqd.unregister()


@pytest.fixture
def own_log_handlers():
    """RecBole's HyperTuning objective takes every handler off the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def keys(tiny_keys, teacher_recipe):
    """A config_dict that distils on the tiny dataset."""
    return {**tiny_keys, "trainer": "FreqD", "teacher": teacher_recipe}


# --- in and out ------------------------------------------------------------------------------


def test_register_changes_every_place_once_and_unregister_restores_the_same_objects(stock):
    before = hooked_places()
    recbole_freqd.register()
    registered = hooked_places()
    assert same(before, registered) == [False] * len(before)
    assert len({id(found) for found in registered[len(CONFIG_HOOKS) + 1 :]}) == 1
    recbole_freqd.register()
    assert same(registered, hooked_places()) == [True] * len(before)
    recbole_freqd.unregister()
    assert same(before, hooked_places()) == [True] * len(before)
    assert compat.shims_installed() == ()
    recbole_freqd.unregister()
    assert same(before, hooked_places()) == [True] * len(before)


def test_it_can_be_registered_again_after_it_was_taken_back(stock, tiny_config):
    for _ in range(2):
        recbole_freqd.unregister()
        recbole_freqd.register()
    assert tiny_config(trainer="fd", teacher={"model": "BPR"})["trainer"] == "FD"


def test_a_host_that_cannot_be_used_is_left_unchanged_and_can_be_mended(stock, monkeypatch):
    recbole_freqd.unregister()
    before = hooked_places()
    with monkeypatch.context() as broken:
        broken.setattr("recbole.__version__", "0.9")
        with pytest.raises(CompatibilityError, match=r"works with RecBole 1\.2\.\*, found .* 0\.9"):
            recbole_freqd.register()
    assert same(before, hooked_places()) == [True] * len(before)
    recbole_freqd.register()
    assert True not in same(before, hooked_places())


IMPORT = """
import json, sys
import recbole_freqd
said = {"names": dir(recbole_freqd), "version": recbole_freqd.__version__}
try:
    recbole_freqd.registr
except AttributeError as error:
    said["unknown"] = str(error)
said["register"] = callable(recbole_freqd.register)
import recbole_freqd.core.errors, recbole_freqd.core.schema, recbole_freqd.core.registry, recbole_freqd.jobs.tables
said["loaded"] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(said))
"""


def test_importing_the_package_loads_neither_torch_nor_recbole_nor_ray(tmp_path):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "recbole_freqd" in said["loaded"]
    assert set(said["loaded"]) & {"torch", "recbole", "ray", "numpy", "scipy", "pandas"} == set()
    assert said["register"]
    assert said["unknown"] == "module 'recbole_freqd' has no attribute 'registr'"
    assert {"register", "unregister", "run_recbole_freqd", "FreqDLoss"} <= set(said["names"])
    assert list(tmp_path.iterdir()) == []


# --- get_trainer -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "NCL", "RecVAE", "DiffRec", "EASE", "SASRec"])
def test_get_trainer_returns_a_subclass_of_what_recbole_finds(stock, model):
    from recbole.utils import get_model, utils

    model_type = get_model(model).type
    found_by_host = utils.get_trainer(model_type, model)
    recbole_freqd.register()
    found = utils.get_trainer(model_type, model)
    assert issubclass(found, found_by_host)
    assert found is not found_by_host
    assert found.__name__ == found_by_host.__name__
    assert found is utils.get_trainer(model_type, model)


@pytest.fixture
def make_trainer(tiny_config):
    """A BPR trainer from get_trainer, as RecBole's own scripts make it."""
    from recbole.data import create_dataset
    from recbole.utils import get_model, get_trainer

    def make(found=None, **keys):
        config = tiny_config(**keys)
        model = get_model("BPR")(config, create_dataset(config))
        found = found or get_trainer(config["MODEL_TYPE"], "BPR")
        return found(config, model)

    return make


def test_the_trainer_is_the_hosts_own_type_where_none_is_named(make_trainer):
    from recbole.trainer import Trainer

    assert type(make_trainer()) is Trainer
    assert type(make_trainer(trainer=None)) is Trainer


def test_the_trainer_is_ours_over_the_hosts_where_one_is_named(make_trainer, teacher_recipe):
    from recbole.trainer import Trainer

    trainer = make_trainer(trainer="fd", teacher=teacher_recipe)
    assert isinstance(trainer, DistillationTrainer)
    assert isinstance(trainer, Trainer)
    assert trainer.methods == ["FD"]


def test_a_trainer_of_ones_own_is_mixed_into_and_not_replaced(make_trainer, teacher_recipe):
    from recbole.trainer import Trainer

    from recbole_freqd.trainer.distillation import dispatching

    class Mine(Trainer):
        pass

    assert type(make_trainer(dispatching(Mine))) is Mine
    ours = make_trainer(dispatching(Mine), trainer="FreqD", teacher=teacher_recipe)
    assert isinstance(ours, DistillationTrainer)
    assert isinstance(ours, Mine)


# --- RecBole's own ways in -------------------------------------------------------------------


def test_recboles_run_recbole_distils_and_returns_what_it_always_returns(host, keys, tmp_path):
    from recbole.quick_start import run_recbole

    distilled = run_recbole(model="BPR", dataset="tiny", config_dict=dict(keys))
    files = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert [name for name in files if name.startswith("teacher-BPR-tiny-")]
    assert [name for name in files if name.startswith("BPR-FreqD-")]
    alone = {key: value for key, value in keys.items() if key not in ("trainer", "teacher")}
    stock = run_recbole(model="BPR", dataset="tiny", config_dict=alone)
    assert set(distilled) == set(stock)
    assert set(distilled) == {
        "best_valid_score",
        "valid_score_bigger",
        "best_valid_result",
        "test_result",
    }
    assert set(distilled["test_result"]) == set(stock["test_result"])


def test_without_a_trainer_recbole_gets_the_same_numbers_with_and_without_us(stock, keys):
    from recbole.quick_start import run_recbole

    alone = {key: value for key, value in keys.items() if key not in ("trainer", "teacher")}

    def run():
        return run_recbole(model="BPR", dataset="tiny", config_dict=dict(alone))

    expected = run()
    recbole_freqd.register()
    assert run() == expected


def test_the_objective_of_recboles_hyper_tuning_reads_flat_keys_of_ours(
    host, keys, tmp_path, monkeypatch, own_log_handlers
):
    from recbole.quick_start import objective_function

    monkeypatch.setitem(sys.modules, "ray", None)  # nobody to report to
    config_file = tmp_path / "tune.yaml"
    config_file.write_text("model: BPR\ndataset: tiny\nteacher.epochs: 1\n")
    scores = [
        objective_function(
            config_dict={**keys, "freqd_alpha": alpha, "freqd_beta": 1000.0},
            config_file_list=[str(config_file)],
            saved=False,
        )
        for alpha in (0.0, 1.0)
    ]
    for score in scores:
        assert {"best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"} < set(
            score
        )
    assert scores[0] != scores[1], "freqd_alpha did not reach the loss"
    with pytest.raises(ConfigError, match=r"freqd_alpha: got 1\.5; allowed: float in \[0, 1\]"):
        objective_function(
            config_dict={**keys, "freqd_alpha": 1.5}, config_file_list=[str(config_file)]
        )
