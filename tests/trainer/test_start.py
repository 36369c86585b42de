"""The part that starts warm: once, validated and saved, and never in the middle of a run."""

import math

import pytest
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.features import adapter_of
from recbole_freqd.runtime.seconds import Seconds
from recbole_freqd.runtime.trainer import mix_into
from recbole_freqd.trainer.distillation import DistillationTrainer, StudentTrainer
from recbole_freqd.trainer.start import StartWarm
from recbole_freqd.trainer.warm_start import warm_start


class Cut(BaseException):
    """Stands for the end of a process."""


@pytest.fixture
def started(tiny_config, teacher_recipe):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer, init_seed

    def start(model="BPR", trainer="FreqD", warm="teacher", **keys):
        if trainer is not None:
            keys.update(trainer=trainer, teacher=teacher_recipe)
        config = tiny_config(model, **{"epochs": 3, **keys})
        config["warm_start"] = warm
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], True)
        student = config.model_class(config, loaders[0]._dataset)
        mixin = StudentTrainer if trainer is None else DistillationTrainer
        host = get_trainer(config["MODEL_TYPE"], config["model"])
        return mix_into(mixin, host)(config, student), loaders

    return start


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_equal(one, other):
    assert list(one) == list(other)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def watch_first_step(trainer):
    """The weights that the first step of a training begins with, when it has come to it."""
    seen, loss = [], trainer.model.calculate_loss

    def calculate_loss(*args, **kwargs):
        seen.append(weights(trainer)) if not seen else None
        return loss(*args, **kwargs)

    trainer.model.calculate_loss = calculate_loss
    return seen


def test_training_begins_at_the_start_which_is_saved_as_the_first_best_one(started):
    trainer, (train, valid, _) = started()
    seen = watch_first_step(trainer)
    reference, data = started(warm=None)
    reference.prepare(*data[:2])
    model, adapter = reference.model, adapter_of(reference.model)
    taught = reference.teacher.ranker(data[0]._dataset)
    warm_start(model, adapter, taught, reference.teacher.known, seed=2020)
    expected = weights(reference)
    evaluate = trainer.evaluate

    def worse(*args, **kwargs):
        result = evaluate(*args, **kwargs)
        return result if not seen else dict.fromkeys(result, -1.0)

    trainer.evaluate = worse  # so nothing that is trained replaces the start
    score, _ = trainer.fit(train, valid)
    assert_equal(seen[0], expected)
    payload = load_checkpoint(trainer.saved_model_file)
    assert payload["epoch"] == -1 and payload["best_valid_score"] == score > 0
    assert_equal(dict(payload["state_dict"]), expected)
    assert trainer.part(Seconds).best_epoch == 0
    assert 0 < trainer.part(Seconds).to_best < trainer.part(Seconds).all_in


def test_a_start_fitted_to_lists_is_kept_where_validation_is_better_than_before_the_fit(started):
    weights_of, scores_of = [], []
    for fitted, kept in ((0.5, 1), (0.3, 1), (0.1, 0)):
        trainer, (train, valid, _) = started(warm="lists", epochs=1)
        made, scores = [], iter((0.3, fitted, 0.0))

        def validated(*_, trainer=trainer, made=made, scores=scores, **__):
            made.append(weights(trainer))
            return (score := next(scores)), {"ndcg@10": score}

        trainer._valid_epoch = validated
        seen = watch_first_step(trainer)
        score, _ = trainer.fit(train, valid)
        assert score == max(0.3, fitted)
        assert_equal(seen[0], made[kept])
        assert_equal(dict(load_checkpoint(trainer.saved_model_file)["state_dict"]), made[kept])
        weights_of.append(made[:2])
        scores_of.append(score)
    for name in ("user_embedding.weight", "item_embedding.weight"):
        assert not torch.equal(weights_of[0][0][name], weights_of[0][1][name])
        assert torch.equal(weights_of[0][1][name], weights_of[2][1][name])


def test_without_validation_data_a_start_is_fitted_to_lists(started):
    trainer, (train, _, _) = started(warm="lists", epochs=1)
    reference, (data, valid, _) = started(warm="lists", epochs=1)
    reference._valid_epoch = lambda *args, **options: (1.0, {"ndcg@10": 1.0})
    firsts = [watch_first_step(each) for each in (trainer, reference)]
    trainer.fit(train, None, saved=False)
    reference.fit(data, valid, saved=False)
    assert_equal(*(first[0] for first in firsts))


@pytest.mark.parametrize("model", ["LightGCN", "CDAE", "SimpleX"])
def test_students_of_tables_with_biases_and_propagated_ones_begin_at_lists(started, model, caplog):
    trainer, (train, valid, _) = started(model, warm="lists", epochs=1)
    with caplog.at_level("INFO"):
        trainer.fit(train, valid, saved=False)
    assert "Start fitted to lists of" in caplog.text
    assert trainer.best_valid_score > 0


@pytest.mark.parametrize("score", [0.0, 0.1])
def test_a_start_that_ranks_nothing_right_is_warned_of(started, score, caplog, monkeypatch):
    trainer, loaders = started()
    monkeypatch.setattr(
        trainer, "_valid_epoch", lambda *args, **options: (score, {"ndcg@10": score})
    )
    trainer.fit(*loaders[:2], saved=False, verbose=False, show_progress=False)
    warned = [line for line in caplog.messages if "the student begins with nothing" in line]
    assert len(warned) == (score == 0)


def test_without_the_key_nothing_changes(started):
    for warm in ("none", None):
        trainer, (train, valid, _) = started(warm=warm)
        before, seen = weights(trainer), watch_first_step(trainer)
        trainer.fit(train, valid)
        assert_equal(before, seen[0])


def test_a_warm_run_cut_off_and_resumed_is_the_same_and_starts_warm_once(
    started, tmp_path, monkeypatch
):
    from recbole_freqd.trainer import start

    done, plain = [], start.warm_start
    monkeypatch.setattr(start, "warm_start", lambda *a, **k: (done.append(1), plain(*a, **k))[1])
    whole, (train, valid, _) = started()
    whole.fit(train, valid)
    keys = {"resume": True, "checkpoint_dir": str(tmp_path / "other")}
    cut, (train, valid, _) = started(**keys)
    epoch = cut._train_epoch

    def interrupted(data, number, *args, **kwargs):
        if number == 2:
            raise Cut
        return epoch(data, number, *args, **kwargs)

    cut._train_epoch = interrupted
    with pytest.raises(Cut):
        cut.fit(train, valid)
    assert len(done) == 2
    again, (train, valid, _) = started(**keys)
    again.fit(train, valid)
    assert again.start_epoch == 1 and len(done) == 2
    assert_equal(weights(whole), weights(again))
    assert whole.best_valid_score == again.best_valid_score
    assert whole.part(Seconds).best_epoch == again.part(Seconds).best_epoch


def test_a_checkpoint_that_is_loaded_and_a_second_fit_do_not_start_warm_again(started):
    first, (train, valid, _) = started(epochs=1)
    first.fit(train, valid)
    loaded, (train, valid, _) = started()
    loaded.resume_checkpoint(first.saved_model_file)
    before, seen = weights(loaded), watch_first_step(loaded)
    loaded.fit(train, valid)
    assert_equal(before, seen[0])
    before, seen = weights(loaded), watch_first_step(loaded)
    loaded.start_epoch = 0
    loaded.fit(train, valid)
    assert_equal(before, seen[0])


def test_nothing_is_validated_or_saved_where_that_is_not_asked_for(started, tmp_path):
    trainer, (train, valid, _) = started(epochs=1, trainer="FreqD")
    trainer.prepare(train, valid)
    count = len(list((tmp_path / "saved").glob("BPR-*")))
    trainer.fit(train, valid, saved=False)
    assert len(list((tmp_path / "saved").glob("BPR-*"))) == count
    trainer, (train, _, _) = started(epochs=1)
    trainer.fit(train, None)
    assert load_checkpoint(trainer.saved_model_file)["epoch"] == 0
    assert math.isinf(trainer.best_valid_score)


def test_a_student_alone_starts_from_an_older_one_of_itself(started):
    older, (train, valid, _) = started(trainer=None, warm=None)
    older.fit(train, valid)
    trainer, (train, valid, _) = started(trainer=None, warm=older.saved_model_file, epochs=1)
    seen = watch_first_step(trainer)
    trainer.fit(train, valid)
    best = load_checkpoint(older.saved_model_file)["state_dict"]
    for name, value in best.items():
        torch.testing.assert_close(seen[0][name][1:], value[1:])
    assert trainer.best_valid_score >= older.best_valid_score


def test_another_older_student_under_the_same_path_is_another_run(started):
    older, (train, valid, _) = started(trainer=None, warm=None)
    older.fit(train, valid)

    def identity():
        (held,) = started(trainer=None, warm=older.saved_model_file)[0].part(StartWarm).depends_on()
        return held.tobytes()

    before = identity()
    assert before == identity()
    payload = torch.load(older.saved_model_file, weights_only=False)
    payload["state_dict"]["item_embedding.weight"][3] += 0.25
    torch.save(payload, older.saved_model_file)
    assert before != identity()


def test_what_cannot_start_warm_is_refused_before_a_teacher_is_trained(started):
    with pytest.raises(ConfigError, match="no trainer is named.*freqrank_beta: 0"):
        started(trainer=None, warm="teacher")
    with pytest.raises(ConfigError, match="MultiVAE cannot start warm"):
        started("MultiVAE", mlp_hidden_size=[12], latent_dimension=8, train_neg_sample_args=None)


@pytest.mark.parametrize(
    "trainer, masked", [("FreqRank", True), ("RRD", None), ("FreqRank", False)]
)
def test_lists_that_a_loss_has_made_are_not_made_again_for_the_start(
    started, trainer, masked, monkeypatch
):
    from recbole_freqd.trainer import start

    given, plain = [], start.fit_lists
    keys = {} if masked is None else {"freqrank_k": 4, "freqrank_mask_train": masked}
    trainer, (train, valid, _) = started(trainer=trainer, warm="lists", epochs=1, **keys)

    def fitted(*args, top, **options):
        given.append(top)
        found, again = plain(*args, top=top, **options), plain(*args, top=None, **options)
        assert all(torch.equal(*pair) for pair in zip(found.features, again.features))
        return found

    monkeypatch.setattr(start, "fit_lists", fitted)
    trainer.fit(train, valid, saved=False)
    assert [top is None for top in given] == [masked is False]
    (loss,) = trainer.distiller.losses.values()
    assert loss.take_lists() is None
    if masked:
        assert loss._teacher_ids.shape[1] == 4 and torch.equal(
            loss._teacher_ids, given[0].ids[:, :4]
        )
