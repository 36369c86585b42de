"""faults: what RecBole 1.2.1 gets wrong by itself is mended, and gives the right numbers."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_freqd.compat import faults
from recbole_freqd.compat.patches import Patches
from recbole_freqd.jobs.quick_start import run_recbole_freqd

# --- save_dataloaders ------------------------------------------------------------------------


def train(keys, **more):
    from recbole.quick_start import run_recbole

    return run_recbole("BPR", "tiny", config_dict={**keys, **more})


def test_by_itself_recbole_leaves_the_loaders_without_generators(built, host, monkeypatch):
    """The shim is needed as long as this holds."""
    import recbole.data.utils

    _, loaders = built()
    save = recbole.data.utils.save_split_dataloaders
    save.__wrapped__(loaders[0].config, loaders)
    assert [loader.generator for loader in loaders] == [None] * 3
    host.unregister()
    assert faults.saving_takes_generators()


def test_loaders_keep_their_generators_when_they_are_saved(built):
    plain, saved = built()[1], built(save_dataloaders=True)[1]
    for one, other in zip(plain, saved):
        assert torch.equal(one.generator.get_state(), other.generator.get_state())
    assert saved[0].sampler.generator is saved[0].generator


def test_loaders_that_cannot_be_saved_keep_their_generators(host, monkeypatch):
    import pickle

    import recbole.data.utils

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(pickle, "dump", full)
    generator = torch.Generator()
    loader = SimpleNamespace(generator=generator, sampler=SimpleNamespace(generator=generator))
    config = {"checkpoint_dir": "saved", "dataset": "tiny", "model": "BPR"}
    with pytest.raises(OSError, match="disk full"):
        recbole.data.utils.save_split_dataloaders(config, [loader])
    assert loader.generator is generator and loader.sampler.generator is generator


def test_a_sampler_without_a_generator_gets_none(host):
    import recbole.data.utils

    loader = SimpleNamespace(generator=torch.Generator(), sampler=SimpleNamespace())
    config = {"checkpoint_dir": "saved", "dataset": "tiny", "model": "BPR"}
    recbole.data.utils.save_split_dataloaders(config, [loader])
    assert loader.generator is not None


@pytest.mark.parametrize("kind", ["distilled", "alone", "by RecBole"])
def test_the_run_that_saves_its_loaders_and_the_one_that_loads_them_are_the_same(
    host, tiny_keys, teacher_recipe, kind
):
    named = {"trainer": "FreqD", "teacher": teacher_recipe} if kind == "distilled" else {}
    job = train if kind == "by RecBole" else run_recbole_freqd
    keys = {**tiny_keys, **named}
    run = (lambda **more: train(keys, **more)) if job is train else (
        lambda **more: run_recbole_freqd("BPR", "tiny", config_dict={**keys, **more})
    )  # fmt: skip
    plain, saving, loading = run(), run(save_dataloaders=True), run(save_dataloaders=True)
    assert plain["test_result"] == saving["test_result"] == loading["test_result"]
    assert plain["best_valid_result"] == saving["best_valid_result"] == loading["best_valid_result"]


# --- metrics of the catalogue ----------------------------------------------------------------

OF_THE_CATALOGUE = ["ItemCoverage", "GiniIndex", "AveragePopularity", "ShannonEntropy"]
OF_THE_CATALOGUE += ["TailPercentage"]


def test_by_itself_recboles_collector_fails_over_a_number(host):
    """The shim is needed as long as this holds."""
    host.unregister()
    assert faults.collector_wants_tensors()
    patches = Patches()
    faults.apply_collector(patches)
    assert not faults.collector_wants_tensors()
    patches.undo()


def test_the_collector_hands_over_a_copy_of_each_tensor_and_keeps_what_is_none(host):
    from recbole.evaluator.collector import Collector, DataStruct

    collector = Collector.__new__(Collector)
    collector.data_struct = DataStruct()
    counter, lists = Counter({1: 2}), torch.tensor([[1, 2]])
    for name, value in {
        "data.num_items": 3,
        "data.count_items": counter,
        "rec.items": lists,
    }.items():
        collector.data_struct.set(name, value)
    for _ in range(2):
        struct = collector.get_data_struct()
        assert struct.get("data.num_items") == 3 and struct.get("data.count_items") == counter
    assert "rec.items" not in collector.data_struct and "rec.items" not in struct


def top_lists(model, loaders, k):
    """(n, k) ids, from the dense matrix of scores: training and validation items left out."""
    train, valid, test = (loader._dataset for loader in loaders)
    model.eval()
    users = torch.unique(test.inter_feat["user_id"])
    with torch.no_grad():
        tables = model.user_embedding.weight, model.item_embedding.weight
        scores = tables[0][users] @ tables[1].T
    scores[:, 0] = -np.inf
    for seen in (train, valid):
        for row, user in enumerate(users):
            scores[row, seen.inter_feat["item_id"][seen.inter_feat["user_id"] == user]] = -np.inf
    return scores.topk(k).indices.numpy()


def dense_metrics(lists, train, k):
    """The five, by their definitions in RecBole's documentation; its |I| counts the padding."""
    n_items, lists = train.item_num, lists[:, :k]
    popularity = np.bincount(train.inter_feat["item_id"].numpy(), minlength=n_items)
    counts = np.sort(np.bincount(lists.ravel(), minlength=n_items))
    shares = counts[counts > 0] / counts.sum()
    seen = np.flatnonzero(popularity)
    tail = sorted(seen, key=lambda item: (popularity[item], item))[: max(int(len(seen) * 0.1), 1)]
    ranks = 2 * np.arange(1, n_items + 1) - n_items - 1
    return {
        f"itemcoverage@{k}": (counts > 0).sum() / n_items,
        f"giniindex@{k}": (ranks * counts).sum() / (n_items * counts.sum()),
        f"averagepopularity@{k}": popularity[lists].mean(),
        f"shannonentropy@{k}": -(shares * np.log(shares)).sum() / len(shares),
        f"tailpercentage@{k}": np.isin(lists, tail).mean(),
    }


def test_metrics_of_the_catalogue_are_those_of_the_dense_lists(built, teacher_recipe):
    from recbole.utils import get_trainer

    model, loaders = built(
        trainer="FreqD", teacher=teacher_recipe, metrics=OF_THE_CATALOGUE, topk=[3, 10],
        valid_metric="GiniIndex@10",
    )  # fmt: skip
    config = loaders[0]._dataset.config
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, model)
    trainer.fit(*loaders[:2])
    result = trainer.evaluate(loaders[2])
    lists = top_lists(trainer.model, loaders, 10)
    for k in (3, 10):
        expected = dense_metrics(lists, loaders[0]._dataset, k)
        assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("metric", OF_THE_CATALOGUE)
@pytest.mark.parametrize("kind", ["distilled", "by RecBole"])
def test_each_metric_of_the_catalogue_can_be_asked_for_alone(
    host, tiny_keys, teacher_recipe, metric, kind
):
    keys = {**tiny_keys, "epochs": 1, "metrics": [metric], "topk": [5]}
    keys["valid_metric"] = f"{metric}@5"
    if kind == "by RecBole":
        result = train(keys)
    else:
        keys |= {"trainer": "FreqD", "teacher": {**teacher_recipe, "epochs": 1}}
        result = run_recbole_freqd("BPR", "tiny", config_dict=keys)
        assert set(result["teacher_test_result"]) == {f"{metric.lower()}@5"}
    assert set(result["test_result"]) == {f"{metric.lower()}@5"}
    assert 0 <= result["test_result"][f"{metric.lower()}@5"] < 100


@pytest.mark.slow  # two processes start
def test_two_processes_have_the_metrics_of_one(tiny_keys, teacher_recipe):
    keys = {**tiny_keys, "epochs": 1, "metrics": OF_THE_CATALOGUE, "topk": [5]}
    keys |= {"valid_metric": "ItemCoverage@5", "embedding_size": 4, "learning_rate": 0.0}
    keys |= {"trainer": "FreqD", "teacher": {**teacher_recipe, "epochs": 1}}
    one = run_recbole_freqd("BPR", "tiny", config_dict=dict(keys))
    two = run_recbole_freqd("BPR", "tiny", config_dict=dict(keys), nproc=2, port=str(free_port()))
    assert two["teacher_test_result"] == pytest.approx(one["teacher_test_result"])
    assert two["test_result"] == pytest.approx(one["test_result"])


def free_port():
    import socket

    with socket.socket() as any_port:
        any_port.bind(("", 0))
        return any_port.getsockname()[1]


# --- folders ---------------------------------------------------------------------------------


@pytest.fixture
def late(monkeypatch):
    """Another process makes every folder just after RecBole has asked for it."""
    import os

    exists = os.path.exists

    def asked(path):
        found = exists(path)
        os.makedirs(path, exist_ok=True)
        return found

    monkeypatch.setattr(os.path, "exists", asked)


def test_by_itself_recbole_fails_over_a_folder_that_another_process_makes(host, late):
    """The shim is needed as long as this holds."""
    from recbole.utils import ensure_dir

    host.unregister()
    assert faults.ensure_dir_races()
    with pytest.raises(FileExistsError):
        ensure_dir("log/BPR")


def test_a_folder_that_another_process_makes_meanwhile_is_taken(host, late):
    from recbole.data.utils import ensure_dir as of_the_data
    from recbole.trainer.trainer import ensure_dir as of_the_trainer
    from recbole.utils.logger import ensure_dir as of_the_log

    assert not faults.ensure_dir_races()
    for place, ensure_dir in enumerate((of_the_data, of_the_trainer, of_the_log)):
        ensure_dir(f"folder/{place}")
        assert Path(f"folder/{place}").is_dir()


def test_a_file_in_the_place_of_a_folder_is_still_an_error(host, late, tmp_path):
    from recbole.utils import ensure_dir

    (tmp_path / "log").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)):
        ensure_dir("log/BPR")
