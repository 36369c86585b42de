"""The teacher: trained once, reused for a reason, refused when it does not fit."""

import random
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

import recbole_freqd.config.identity
import recbole_freqd.teacher as teacher_room
from recbole_freqd.core import locks
from recbole_freqd.core.errors import CheckpointError, ConfigError, TeacherError
from recbole_freqd.core.rng import rng_untouched
from recbole_freqd.core.rows import is_mapped


@pytest.fixture
def loaders(host):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    def prepare(config):
        init_seed(config["seed"], True)
        return data_preparation(config, create_dataset(config))

    return prepare


@pytest.fixture
def find(tiny_config, loaders):
    """Finds the teacher of a student on the tiny data."""

    def find(teacher, **keys):
        config = tiny_config(trainer="FreqD", teacher=teacher, **keys)
        train_data, valid_data, _ = loaders(config)
        return teacher_room.find_teacher(config, train_data, valid_data)

    return find


@pytest.fixture
def trained(tiny_config, host):
    """The checkpoint of a model that RecBole trained without us."""
    from recbole_freqd.jobs import run as runs

    def train(model="BPR", **keys):
        return runs.run(tiny_config(model, epochs=1, **keys), test=False).trainer.saved_model_file

    return train


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_a_recipe_is_trained_once_and_then_reused(find, teacher_recipe, caplog, model):
    caplog.set_level("INFO")
    recipe = {**teacher_recipe, "model": model}
    first, second = find(recipe), find(recipe, learning_rate=0.5, epochs=7, freqd_alpha=0.1)
    assert (first.origin, second.origin) == ("trained", "reused")
    assert f"there is no teacher-{model}-tiny in" in caplog.text
    assert "Teacher reused: " in caplog.text and "are unchanged" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(first.features, second.features))
    assert [tuple(tensor.shape) for tensor in first.features] == [(31, 8), (41, 8)]
    assert first.facts["seconds_per_epoch"] == second.facts["seconds_per_epoch"] > 0


def test_a_teacher_that_another_process_trains_is_waited_for_and_reused(
    find, teacher_recipe, monkeypatch, tmp_path
):
    """The other process ends in the moment in which we would begin to wait."""
    first = find(teacher_recipe)
    path, found = Path(first.checkpoint), tmp_path / "elsewhere"
    path.with_suffix(".json").rename(found)
    other, acquired, asked = ExitStack(), locks.acquired, []
    assert other.enter_context(locks.working_on(path, "checkpoint_dir"))

    def ends(lock, of, change, timeout):
        asked.append(timeout)
        if timeout:
            found.rename(path.with_suffix(".json"))
            other.close()
        return acquired(lock, of, change, timeout)

    monkeypatch.setattr(locks, "acquired", ends)
    assert find(teacher_recipe).origin == "reused" and asked == [0, -1]
    assert not list(path.parent.glob("*.lock"))


def test_a_changed_recipe_is_trained_again_and_the_log_says_what_changed(
    find, teacher_recipe, caplog
):
    caplog.set_level("INFO")
    first = find(teacher_recipe)
    again = find({**teacher_recipe, "embedding_size": 6})
    assert again.origin == "trained" and again.checkpoint != first.checkpoint
    assert "differs (embedding_size was 8, is 6)" in caplog.text


def test_changed_data_and_a_changed_version_are_trained_again(
    find, teacher_recipe, monkeypatch, caplog
):
    caplog.set_level("INFO")
    find(teacher_recipe)
    assert find(teacher_recipe, seed=5).origin == "trained"
    monkeypatch.setattr(recbole_freqd.config.identity, "__version__", "99")
    assert find(teacher_recipe).origin == "trained"
    assert "differs (versions changed)" in caplog.text


def test_the_teacher_takes_world_from_the_student_and_training_from_its_recipe(find):
    teacher = find({"model": "BPR", "embedding_size": 8, "epochs": 1}, epochs=9, learning_rate=0.7)
    assert teacher.config["learning_rate"] == 0.001 and teacher.config["train_batch_size"] == 2048
    assert teacher.config["epochs"] == 1 and teacher.config["valid_metric"] == "NDCG@10"


def test_finding_a_teacher_moves_no_random_stream(tiny_config, loaders, teacher_recipe):
    config = tiny_config(trainer="FreqD", teacher=teacher_recipe)
    train_data, valid_data, _ = loaders(config)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    own = train_data.generator.get_state(), valid_data.generator.get_state()
    assert teacher_room.find_teacher(config, train_data, valid_data).origin == "trained"
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all() and states[2] == random.getstate()
    assert torch.equal(own[0], train_data.generator.get_state())
    assert torch.equal(own[1], valid_data.generator.get_state())


def test_a_recipe_teacher_is_what_recbole_alone_would_have_trained(find, tiny_config, host):
    from recbole_freqd.features import extract_features
    from recbole_freqd.jobs import run as runs

    keys = {"embedding_size": 8, "epochs": 3, "train_batch_size": 64}
    stock = runs.run(tiny_config(**keys))
    teacher = find({"model": "BPR", **keys})
    for ours, theirs in zip(teacher.features, extract_features(stock.model)):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_a_checkpoint_of_recbole_teaches(find, trained, model):
    path = trained(model, embedding_size=6)
    teacher = find({"checkpoint": path})
    assert teacher.origin == "checkpoint" and teacher.checkpoint == path
    assert teacher.features[0].shape == (31, 6)
    assert teacher.config["model"] == model


def test_a_student_of_ours_can_teach_in_turn(find, teacher_recipe, trained):
    path = trained(trainer="FreqD", teacher=teacher_recipe)
    assert find({"checkpoint": path}).features[0].shape == (31, 4)


def test_a_checkpoint_teacher_is_evaluated_as_the_student_is(tiny_config, trained, host):
    from recbole_freqd.jobs import run as runs

    path = trained(embedding_size=6, topk=[3], metrics=["Recall"], valid_metric="Recall@3")
    run = runs.run(tiny_config(trainer="FreqD", teacher={"checkpoint": path}, topk=[5, 10]))
    _, (test,) = runs.evaluate_teacher(run, 2)
    assert set(test) == set(run.test_result) and "ndcg@5" in test


def test_how_a_teacher_was_ranked_is_no_other_split(find, trained):
    path = trained(eval_args={"mode": {"valid": "uni10", "test": "full"}})
    assert find({"checkpoint": path, "trust_data": True}).origin == "checkpoint"


def test_other_metrics_do_not_train_a_recipe_again(find, teacher_recipe):
    find(teacher_recipe)
    assert find(teacher_recipe, topk=[5, 10], eval_batch_size=77).origin == "reused"


def test_keys_of_the_other_form_of_teacher_are_mentioned(find, teacher_recipe, trained, caplog):
    find({**teacher_recipe, "min_overlap": 0.9, "allow_leakage": True, "trust_checkpoint": False})
    idle = "teacher.allow_leakage, teacher.min_overlap: no effect, since the teacher is a recipe."
    assert idle in caplog.text
    find({"checkpoint": trained(), "keep_every": 3})
    assert "teacher.keep_every: no effect, since the teacher is a checkpoint." in caplog.text


def test_a_missing_checkpoint_names_those_that_are_there(find, trained):
    path = trained()
    with pytest.raises(
        CheckpointError, match=r"nowhere.pth does not exist.*BPR-.* Change teacher\.checkpoint\.$"
    ):
        find({"checkpoint": path.replace("BPR-", "nowhere.pth#").split("#")[0]})


def test_an_unreadable_checkpoint_is_refused(find, tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="is no torch checkpoint"):
        find({"checkpoint": str(broken)})


def test_a_teacher_whose_tables_have_other_sizes_is_refused(find, trained):
    path = trained()
    payload = torch.load(path, weights_only=False)
    payload["state_dict"]["item_embedding.weight"] = torch.zeros(99, 4)
    torch.save(payload, path)
    with pytest.raises(
        TeacherError, match=r"item_embedding.weight \(99, 4\) there, \(41, 4\) here"
    ):
        find({"checkpoint": path})


def test_a_teacher_with_nan_is_refused(find, trained):
    path = trained()
    payload = torch.load(path, weights_only=False)
    payload["state_dict"]["user_embedding.weight"][3] = float("nan")
    torch.save(payload, path)
    with pytest.raises(TeacherError, match="1 of 30 user rows hold NaN or infinite numbers: u"):
        find({"checkpoint": path})


def test_a_recipe_for_an_unknown_model_or_key_is_refused_before_training(find, tmp_path):
    with pytest.raises(ConfigError, match="teacher.model: 'LigthGCN'.*Did you mean 'LightGCN'"):
        find({"model": "LigthGCN"})
    with pytest.raises(ConfigError, match="'teacher.embeding_size'.*'teacher.embedding_size'"):
        find({"model": "BPR", "embeding_size": 3})
    assert not list(tmp_path.glob("saved/teacher*"))


def test_an_interrupted_teacher_leaves_no_checkpoint(find, teacher_recipe, monkeypatch, tmp_path):
    from recbole.trainer import Trainer

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_valid_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        find(teacher_recipe)
    assert not list(tmp_path.glob("saved/teacher-*"))


def test_rng_untouched_restores_after_an_error_too():
    state = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), rng_untouched():
        torch.rand(3)
        raise ZeroDivisionError
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("recipe", [{}, {"model": "EASE"}])
def test_features_are_kept_in_the_precision_and_place_asked_for(find, teacher_recipe, recipe):
    keys = {"model": "EASE"} if recipe else teacher_recipe
    plain = find(teacher=keys)
    teacher = find(teacher={**keys, "precision": "float16", "memory_map": True})
    for ours, single in zip(teacher.features, plain.features):
        assert ours.dtype == torch.float16 and is_mapped(ours) and not is_mapped(single)
        torch.testing.assert_close(ours.float(), single, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mapped", [False, True])
def test_what_ranks_without_biases_is_what_is_taught_and_no_second_copy(
    find, built, teacher_recipe, mapped
):
    _, (train_data, _, _) = built("BPR")
    teacher = find(teacher={**teacher_recipe, "memory_map": mapped})
    for ours, kept in zip(teacher.ranker(train_data._dataset).factors(), teacher.features):
        assert ours.data_ptr() == kept.data_ptr()
    half = find(teacher={**teacher_recipe, "precision": "float16", "memory_map": mapped})
    for ours, kept in zip(half.ranker(train_data._dataset).factors(), teacher.features):
        assert torch.equal(ours, kept) and is_mapped(ours) is mapped


def test_a_computed_teacher_has_no_time_per_epoch(find, teacher_recipe):
    assert find(teacher={"model": "EASE"}).facts == {}
    assert find(teacher=teacher_recipe).facts["seconds_per_epoch"] > 0


# --- what lies beside a checkpoint is of that very checkpoint -----------------------------------


def test_a_teacher_whose_file_was_replaced_or_damaged_is_trained_again(
    find, teacher_recipe, caplog
):
    first, other = find(teacher_recipe), find({**teacher_recipe, "epochs": 1})
    whole = Path(first.checkpoint).read_bytes()
    for content in (Path(other.checkpoint).read_bytes(), whole[:-100]):
        Path(first.checkpoint).write_bytes(content)
        again = find(teacher_recipe)
        assert again.origin == "trained" and "is not the one that was trained" in caplog.text
        for one, two in zip(first.features, again.features):
            assert torch.equal(one, two)
    assert find(teacher_recipe).origin == "reused"


@pytest.mark.parametrize("content", ["[]", '{"identity": {}}', '{"facts": 3}', "no json"])
def test_facts_of_others_beside_a_teacher_are_no_stumbling_block(
    find, teacher_recipe, tmp_path, content
):
    (tmp_path / "saved").mkdir(exist_ok=True)
    (tmp_path / "saved" / "teacher-BPR-tiny-other.json").write_text(content)
    first = find(teacher_recipe)
    Path(first.checkpoint).with_suffix(".json").write_text(content)
    assert find(teacher_recipe).origin == "trained"


def test_a_sidecar_of_another_checkpoint_is_not_believed(tiny_config, host, teacher_recipe, caplog):
    from recbole_freqd.config.identity import read_fingerprint
    from recbole_freqd.jobs import run as runs

    keys = {"trainer": "FreqD", "teacher": teacher_recipe, "epochs": 1}
    paths = [
        runs.run(tiny_config(seed=seed, **keys), test=False).trainer.saved_model_file
        for seed in (1, 2)
    ]
    assert read_fingerprint(paths[0]) != read_fingerprint(paths[1])
    Path(paths[0]).write_bytes(Path(paths[1]).read_bytes())
    assert read_fingerprint(paths[0]) is None and "belongs to another checkpoint" in caplog.text
