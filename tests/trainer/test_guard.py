"""guard: whatever trainer is made, a config that names a method of ours distils or is refused."""

import copy
import pickle

import pytest
import torch

from recbole_freqd import compat
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.trainer import DistillationTrainer, FreqDTrainer, dispatching
from recbole_freqd.trainer.guard import _TRAINING

REFUSED = (
    r"trainer: got FreqD, but this \w+ knows nothing of it .* alone, without its teacher\. Allo"
)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def named(built, teacher_recipe):
    """What a script has before it makes its trainer: config, student, loaders."""

    def make(model="BPR", trainer="FreqD", **keys):
        student, loaders = built(model, trainer=trainer, teacher=teacher_recipe, **keys)
        return student, loaders, loaders[0]._dataset.config

    return make


def by_hand(host):
    from recbole.trainer import Trainer

    return Trainer


def own_subclass(host):
    from recbole.trainer import Trainer

    class Mine(Trainer):
        pass

    return Mine


def own_fit(host):
    from recbole.trainer import Trainer

    class LoopsItself(Trainer):
        def fit(self, train_data, valid_data=None, *args, **kwargs):
            for batch in train_data:
                self.optimizer.zero_grad()
                self.model.calculate_loss(batch).backward()
                self.optimizer.step()

    return LoopsItself


def fit_of_a_mixin(host):
    from recbole.trainer import Trainer

    class Loops:
        fit = own_fit(host).__dict__["fit"].__wrapped__

    class Mixed(Loops, Trainer):
        pass

    return Mixed


def own_init(host):
    from recbole.trainer import AbstractTrainer

    class Bare(AbstractTrainer):
        def __init__(self, config, model):
            self.config, self.model = config, model
            self.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

        fit = own_fit(host).__dict__["fit"].__wrapped__

    return Bare


def get_trainer_of_others(host):
    """Another package has a get_trainer that looks among RecBole's classes by itself."""
    import importlib

    return getattr(importlib.import_module("recbole.trainer"), "Trainer")  # noqa: B009


def defined_before(host):
    host.unregister()
    compat.install_shims()
    made = own_subclass(host)
    host.register()
    return made


def get_trainer_imported_before(host):
    host.unregister()
    compat.install_shims()
    from recbole.utils import ModelType, get_trainer

    host.register()
    return get_trainer(ModelType.GENERAL, "BPR")


WAYS = [by_hand, own_subclass, own_fit, fit_of_a_mixin, own_init, get_trainer_of_others]
WAYS += [defined_before, get_trainer_imported_before]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_trainer_that_would_train_the_student_alone_refuses_and_says_how(host, named, way):
    trainer_class = way(host)
    student, (train_data, valid_data, _), config = named()
    trainer, before = trainer_class(config, student), weights(student)
    with pytest.raises(ConfigError, match=REFUSED) as refused:
        trainer.fit(train_data, valid_data)
    assert f"dispatching({trainer_class.__name__})(config, model)" in str(refused.value)
    assert unchanged(student, before)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_same_trainer_trains_where_the_config_names_none(host, named, way):
    trainer_class = way(host)
    student, (train_data, *_), config = named(trainer=None)
    before = weights(student)
    trainer_class(config, student).fit(train_data)
    assert not unchanged(student, before)


@pytest.mark.parametrize("way", [by_hand, own_subclass, get_trainer_imported_before])
def test_what_the_message_says_distils(host, named, way):
    student, (train_data, valid_data, _), config = named()
    trainer = dispatching(way(host))(config, student)
    trainer.fit(train_data, valid_data)
    assert isinstance(trainer, DistillationTrainer) and trainer.teacher is not None


@pytest.mark.parametrize("mixed_in", [by_hand, own_subclass, own_fit])
def test_our_own_trainers_pass_whatever_they_are_mixed_into(host, named, mixed_in):
    student, (train_data, *_), config = named()
    trainer = FreqDTrainer(config, student)
    trainer.fit(train_data, saved=False)
    assert trainer.teacher is not None
    distilling = dispatching(mixed_in(host))(config, student)
    distilling.fit(train_data, saved=False)
    assert distilling.teacher is not None


@pytest.mark.parametrize("model", ["NCL", "RecVAE", "RaCT", "DiffRec", "MultiVAE"])
def test_recboles_trainers_with_a_fit_of_their_own_refuse_as_well(host, named, model):
    import recbole.trainer

    student, loaders, config = named(model)
    found = getattr(recbole.trainer, f"{model}Trainer", recbole.trainer.Trainer)
    trainer = found(config, student)
    with pytest.raises(ConfigError, match=REFUSED):
        trainer.fit(*loaders[:2])


def test_every_trainer_of_recbole_is_guarded_in_all_it_trains_by(host):
    import recbole.trainer
    from recbole.trainer.trainer import AbstractTrainer

    classes = [
        found
        for found in vars(recbole.trainer).values()
        if isinstance(found, type) and issubclass(found, AbstractTrainer)
    ]
    assert len(classes) > 12
    for found in classes:
        for name in _TRAINING:
            assert not hasattr(found, name) or hasattr(getattr(found, name), "_guards"), found


@pytest.mark.parametrize("name", ["_train_epoch", "fit given to the class", "fit of the object"])
def test_other_ways_to_start_the_training_are_refused(host, named, name):
    student, (train_data, *_), config = named()
    trainer = own_subclass(host)(config, student)

    def loop(self, train_data):
        return self._train_epoch(train_data, 0)

    if name == "fit given to the class":
        type(trainer).fit = loop
    elif name == "fit of the object":
        trainer.fit = loop.__get__(trainer)
    with pytest.raises(ConfigError, match=REFUSED):
        trainer._train_epoch(train_data, 0) if name == "_train_epoch" else trainer.fit(train_data)


@pytest.mark.parametrize("spelling", ["freqd", ["FreqD"], "[FreqD]", "['FreqD']"])
def test_the_method_is_recognised_as_it_is_written_in_a_config_made_before(
    host, named, tiny_keys, teacher_recipe, spelling
):
    """Without us, RecBole's Config keeps any key as it is."""
    host.unregister()
    compat.install_shims()
    from recbole.config import Config
    from recbole.trainer import Trainer

    config = Config("BPR", "tiny", config_dict={**tiny_keys, "trainer": spelling})
    host.register()
    student, (train_data, *_), _ = named(trainer=None)
    with pytest.raises(ConfigError, match=REFUSED):
        Trainer(config, student).fit(train_data)


def test_a_trainer_made_before_register_is_guarded_until_unregister(host, named):
    student, (train_data, *_), config = named()
    host.unregister()
    compat.install_shims()
    from recbole.trainer import Trainer

    trainer = Trainer(config, student)
    host.register()
    with pytest.raises(ConfigError, match=REFUSED):
        trainer.fit(train_data)
    host.unregister()
    compat.install_shims()
    before = weights(student)
    trainer.fit(train_data)
    assert not unchanged(student, before)


def test_the_config_counts_as_it_is_when_the_training_starts(host, named):
    from recbole.utils import get_trainer

    student, (train_data, *_), config = named(trainer=None)
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, student)
    config["trainer"] = "FreqD"
    with pytest.raises(ConfigError, match=REFUSED):
        trainer.fit(train_data)
    config["trainer"] = None
    trainer.fit(train_data)


@pytest.mark.parametrize("theirs", ["ddp", ["mine"], "my.package.Trainer", 3, {"name": "x"}])
def test_a_key_of_that_name_that_is_somebody_elses_is_left_alone(host, named, tiny_keys, theirs):
    from recbole.trainer import Trainer

    student, (train_data, *_), config = named(trainer=None)
    config.final_config_dict["trainer"] = theirs
    before = weights(student)
    Trainer(config, student).fit(train_data)
    assert not unchanged(student, before)


def test_a_trainer_of_recbole_still_evaluates_what_was_distilled(host, named):
    from recbole.trainer import Trainer

    student, (train_data, valid_data, test_data), config = named()
    trainer = FreqDTrainer(config, student)
    trainer.fit(train_data, valid_data)
    expected = trainer.evaluate(test_data)
    stock = Trainer(config, student)
    assert stock.evaluate(test_data, model_file=trainer.saved_model_file) == expected
    assert stock.evaluate(test_data, load_best_model=False) == expected
    stock.resume_checkpoint(trainer.saved_model_file)
    with pytest.raises(ConfigError, match=REFUSED):
        stock.fit(train_data, valid_data)


def test_a_model_of_sequences_is_refused_too(host, tiny_config, teacher_recipe):
    from recbole.trainer import Trainer

    config = tiny_config(train_neg_sample_args=None)
    config.final_config_dict["trainer"] = "FreqD"

    class Sequences(Trainer):
        pass

    model = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match=REFUSED):
        Sequences(config, model).fit([])


def test_an_objective_of_ones_own_for_hyper_tuning_is_refused(host, named):
    pytest.importorskip("hyperopt")
    from recbole.trainer import HyperTuning, Trainer

    student, (train_data, *_), config = named()

    def objective(values, files):
        Trainer(config, student).fit(train_data)

    tuning = HyperTuning(
        objective, params_dict={"choice": {"freqd_beta": [0.1]}}, algo="exhaustive"
    )
    with pytest.raises(ConfigError, match=REFUSED):
        tuning.run()


def test_trainers_can_be_copied_and_pickled_by_name_as_before(host, named):
    from recbole.trainer import Trainer

    assert pickle.loads(pickle.dumps(Trainer.fit)) is Trainer.fit
    student, _, config = named()
    trainer = Trainer(config, student)
    assert "fit" not in vars(trainer)
    assert type(copy.copy(trainer)) is Trainer


def test_unregistering_takes_the_guards_off(host):
    from recbole.trainer.trainer import AbstractTrainer

    while_registered = own_subclass(host), fit_of_a_mixin(host), own_fit(host)
    host.unregister()
    compat.install_shims()
    assert "__init_subclass__" not in vars(AbstractTrainer)
    assert not hasattr(AbstractTrainer.fit, "_guards")
    for found in while_registered:
        assert not hasattr(vars(found).get("fit"), "_guards"), found
    assert not hasattr(vars(own_subclass(host)).get("fit"), "_guards")


def test_a_guard_that_somebody_puts_back_after_unregister_does_nothing(host, named):
    """As a patch of a test does that was made before, and is taken back after it."""
    from recbole.trainer import Trainer

    student, (train_data, *_), config = named()
    guarded, before = Trainer.fit, weights(student)
    host.unregister()
    compat.install_shims()
    plain, Trainer.fit = Trainer.fit, guarded
    try:
        Trainer(config, student).fit(train_data)
        assert not unchanged(student, before)
        host.register()
        with pytest.raises(ConfigError, match=REFUSED):
            Trainer(config, student).fit(train_data)
    finally:
        host.unregister()
        Trainer.fit = plain
