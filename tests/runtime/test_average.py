"""weight_average: what is validated and saved is an average, what is trained is not touched."""

import pytest
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.make import make_config
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.jobs import run as runs
from recbole_freqd.runtime.average import WeightAverage

KEYS = {"epochs": 4, "learning_rate": 0.05, "train_batch_size": 128, "embedding_size": 4}


@pytest.fixture
def seen(tiny_keys, host, monkeypatch):
    """Runs BPR alone; what it validated, what each epoch began with, and the run."""

    def run(**keys):
        validated, begun = [], []
        plain, begin = runs.StudentTrainer._valid_epoch, WeightAverage.begin_epoch

        def weights(model):
            return {name: value.clone() for name, value in model.state_dict().items()}

        def valid(trainer, *args, **kwargs):
            validated.append(weights(trainer.model))
            return plain(trainer, *args, **kwargs)

        def beginning(part, epoch):
            begin(part, epoch)
            begun.append(weights(part.trainer.model))

        monkeypatch.setattr(runs.StudentTrainer, "_valid_epoch", valid)
        monkeypatch.setattr(WeightAverage, "begin_epoch", beginning)
        config = make_config("BPR", "tiny", None, {**tiny_keys, **KEYS, **keys})
        done = runs.run(config, test=False)
        monkeypatch.undo()
        return validated, begun, done

    return run


def test_the_average_is_validated_and_saved_and_the_training_is_the_same(seen):
    plain, plainly_begun, _ = seen()
    averaged, begun, done = seen(weight_average=0.25)
    expected = plainly_begun[0]
    for epoch, (raw, found) in enumerate(zip(plain, averaged), start=1):
        towards = 1 - (1 - 1 / (epoch + 1)) ** 4
        expected = {name: value + towards * (raw[name] - value) for name, value in expected.items()}
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])
    assert len(averaged) == KEYS["epochs"]
    for one, other in zip(plainly_begun, begun):
        assert all(torch.equal(one[name], other[name]) for name in one)
    kept = load_checkpoint(done.trainer.saved_model_file)
    best = averaged[done.best_epoch - 1]
    assert all(torch.equal(kept["state_dict"][name], best[name]) for name in best)


def test_without_a_validation_the_model_is_left_with_the_average(seen):
    _, begun, done = seen(weight_average=0.9, eval_step=0)
    state = done.trainer.model.state_dict()
    kept = load_checkpoint(done.trainer.saved_model_file)["state_dict"]
    assert all(torch.equal(state[name], kept[name]) for name in state)
    assert not any(torch.equal(state[name], begun[-1][name]) for name in state)


def test_a_recipe_is_the_same_teacher_whatever_the_student_averages(tiny_config, teacher_recipe):
    from recbole_freqd.teacher.recipe import recipe_config

    averaged = tiny_config(trainer="FreqRank", teacher=teacher_recipe, weight_average=0.3)
    assert averaged["weight_average"] == 0.3
    assert not recipe_config(averaged, teacher_recipe)["weight_average"]


def test_freqrank_averages_where_nobody_says_otherwise(tiny_config, teacher_recipe):
    config = tiny_config(trainer="FreqRank", teacher=teacher_recipe)
    assert config["weight_average"] == 0.15
    assert not tiny_config(trainer="FreqD", teacher=teacher_recipe)["weight_average"]


@pytest.mark.parametrize("value", [1.0, -0.1, "much"])
def test_a_share_is_below_one(value, tiny_keys, host):
    with pytest.raises(ConfigError, match=r"weight_average: got .*allowed: float in \[0, 1\)"):
        make_config("BPR", "tiny", None, {**tiny_keys, **KEYS, "weight_average": value})
