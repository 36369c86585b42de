"""The trainer: RecBole's own steps plus our term, and nothing else changed."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_freqd.checkpoint.loading import load_plain, sidecar_path
from recbole_freqd.core.errors import CheckpointError, ConfigError, TrainingError
from recbole_freqd.runtime.trainer import mix_into
from recbole_freqd.trainer.distillation import DistillationTrainer, FreqDTrainer, dispatching
from recbole_freqd.trainer.fold import Distillation
from tests.support.oracles import dense_filter, dense_graph

PLAIN = {
    "freqd_distance": "squared",
    "freqd_projector": "linear",
    "freqd_keep_prob": 1.0,
    "freqd_k": 3,
}


@pytest.fixture
def started(tiny_config, teacher_recipe):
    """Everything up to ``fit``: (trainer, train loader, valid loader, test loader)."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    def start(model="BPR", trainer="FreqD", **keys):
        if trainer is not None:
            keys.update(trainer=trainer, teacher=keys.get("teacher", teacher_recipe))
        config = tiny_config(model, **keys)
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], True)
        student = get_model(model)(config, loaders[0]._dataset)
        return get_trainer(config["MODEL_TYPE"], model)(config, student), *loaders

    return start


def fit(started, **keys):
    trainer, train_data, valid_data, test_data = started(**keys)
    trainer.fit(train_data, valid_data)
    return trainer, test_data


def record_batches(trainer):
    """Ids of every batch, in order, and the student's weights at the first."""
    batches, model, base = [], trainer.model, trainer.model.calculate_loss

    def calculate_loss(interaction):
        if not batches:
            batches.append(copy.deepcopy(model.state_dict()))
        batches.append({name: interaction[name].clone() for name in interaction.columns})
        return base(interaction)

    model.calculate_loss = calculate_loss
    return batches


def assert_equal_states(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("learner", ["adam", "sgd"])
def test_two_steps_equal_two_steps_written_by_hand(started, learner):
    learning_rate, beta, alpha, decay = 0.01, 0.7, 0.4, 0.05
    trainer, train_data, _, _ = started(
        epochs=1, train_batch_size=150, learning_rate=learning_rate, freqd_beta=beta,
        freqd_alpha=alpha, freqd_weight_decay=decay, learner=learner, **PLAIN,
    )  # fmt: skip
    trainer.prepare(train_data, None)
    batches = record_batches(trainer)
    projectors = trainer.distiller.losses["FreqD"].projectors
    names = ["user_embedding.weight", "item_embedding.weight"]
    start = {name: value.double().clone() for name, value in trainer.model.state_dict().items()}
    weights = [start[name] for name in names]
    for side in ("user", "item"):
        weights += [
            projectors[side].weight.detach().double(),
            projectors[side].bias.detach().double(),
        ]
    weights = [weight.clone().requires_grad_() for weight in weights]
    R = np.zeros((31, 41))
    inter = train_data._dataset.inter_feat
    R[inter["user_id"].numpy(), inter["item_id"].numpy()] = 1
    H = [
        torch.from_numpy(dense_filter(dense_graph(R, side, 3), lambda lam: 1 - alpha * lam))
        for side in ("user", "item")
    ]
    T = [tensor.double() for tensor in trainer.teacher.features]

    trainer.fit(train_data)
    assert len(batches) == 3  # initial weights and two batches

    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    for step, ids in enumerate(batches[1:], start=1):
        S_u, S_i, W_u, b_u, W_i, b_i = weights
        u, p, n = ids["user_id"], ids["item_id"], ids["neg_item_id"]
        margin = (S_u[u] * S_i[p]).sum(1) - (S_u[u] * S_i[n]).sum(1)
        base = -torch.log(1e-10 + torch.sigmoid(margin)).mean()
        users = (H[0] @ (S_u @ W_u + b_u - T[0])).square().sum(1)
        items = (H[1] @ (S_i @ W_i + b_i - T[1])).square().sum(1)
        distance = users[u.unique()].mean() + 0.5 * (
            items[p.unique()].mean() + items[n.unique()].mean()
        )
        gradients = torch.autograd.grad(base + beta * distance, weights)
        with torch.no_grad():
            for place, (weight, gradient) in enumerate(zip(weights, gradients)):
                gradient = gradient + (decay * weight if place >= 2 else 0.0)
                if learner == "sgd":
                    weight -= learning_rate * gradient
                    continue
                first[place] = 0.9 * first[place] + 0.1 * gradient
                second[place] = 0.999 * second[place] + 0.001 * gradient**2
                mean, square = first[place] / (1 - 0.9**step), second[place] / (1 - 0.999**step)
                weight -= learning_rate * mean / (square.sqrt() + 1e-8)
    got = [trainer.model.state_dict()[name] for name in names]
    for side in ("user", "item"):
        got += [projectors[side].weight.detach(), projectors[side].bias.detach()]
    for ours, by_hand in zip(got, weights):
        torch.testing.assert_close(ours.double(), by_hand.detach(), rtol=1e-4, atol=1e-5)
        assert not torch.equal(ours, torch.zeros_like(ours))


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 10.0])
def test_initial_weights_and_every_batch_are_stock_recboles_for_any_beta(started, model, beta):
    records = []
    for keys in ({"trainer": None}, {"freqd_beta": beta}):
        trainer, train_data, valid_data, _ = started(model, **keys)
        records.append(record_batches(trainer))
        trainer.fit(train_data, valid_data)
    stock, ours = records
    assert len(stock) == len(ours) > 10
    assert_equal_states(stock[0], ours[0])
    for one, other in zip(stock[1:], ours[1:]):
        assert_equal_states(one, other)


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
@pytest.mark.parametrize("clip", [None, {"max_norm": 0.01}])
def test_with_beta_0_the_student_is_recboles_to_the_last_bit(started, model, clip):
    stock, test_data = fit(started, model=model, trainer=None, clip_grad_norm=clip)
    ours, _ = fit(started, model=model, freqd_beta=0.0, clip_grad_norm=clip)
    assert_equal_states(stock.model.state_dict(), ours.model.state_dict())
    results = [trainer.evaluate(test_data) for trainer in (stock, ours)]
    assert results[0] == results[1]


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_the_same_seed_gives_the_same_student_twice_and_beta_matters(started, model):
    one, two, stronger = (
        fit(started, model=model, freqd_beta=beta)[0].model.state_dict() for beta in (1.0, 1.0, 3.0)
    )
    assert_equal_states(one, two)
    assert any(not torch.equal(one[name], stronger[name]) for name in one)


def test_the_teacher_is_frozen_and_outside_of_everything_that_is_trained(started):
    trainer, train_data, valid_data, _ = started()
    trainer.prepare(train_data, valid_data)
    before = [tensor.clone() for tensor in trainer.teacher.features]
    trainer.fit(train_data, valid_data)
    for old, new in zip(before, trainer.teacher.features):
        assert torch.equal(old, new) and not new.requires_grad and new.grad is None
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    own = {id(p) for part in (trainer.model, trainer.distiller) for p in part.parameters()}
    assert trained == own
    assert trainer.teacher.model(train_data._dataset).training is False


def test_the_projectors_learn_with_the_students_rate_and_their_own_weight_decay(started):
    trainer, train_data, valid_data, _ = started(
        learning_rate=0.003, weight_decay=0.2, freqd_weight_decay=0.1
    )
    trainer.prepare(train_data, valid_data)
    student, projectors = trainer.optimizer.param_groups
    assert student["lr"] == projectors["lr"] == 0.003
    assert (student["weight_decay"], projectors["weight_decay"]) == (0.2, 0.1)
    start = [parameter.detach().clone() for parameter in trainer.distiller.parameters()]
    trainer.fit(train_data, valid_data)
    moved = [not torch.equal(a, b) for a, b in zip(start, trainer.distiller.parameters())]
    assert all(moved)


def test_clipping_reaches_the_projectors(started):
    trainer, train_data, valid_data, _ = started(clip_grad_norm={"max_norm": 1e-3}, epochs=1)
    trainer.prepare(train_data, valid_data)
    norms = []

    def measure(optimizer, *_):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads])).item())

    # Registered after fit's own hook: sees what the optimizer will see.
    register = trainer.optimizer.register_step_pre_hook
    trainer.optimizer.register_step_pre_hook = lambda hook: (register(hook), register(measure))[0]
    trainer.fit(train_data, valid_data)
    assert norms and max(norms) <= 1e-3 * 1.001


def test_the_form_of_the_base_loss_is_kept(started):
    trainer, train_data, valid_data, _ = started(freqd_beta=2.0)
    trainer.prepare(train_data, valid_data)
    one, two, term = torch.tensor(1.0), torch.tensor(5.0), torch.tensor(3.0)
    assert trainer.part(Distillation).add(one, {"FreqD": term}) == 7.0
    folded = trainer.part(Distillation).add((one, two), {"FreqD": term})
    assert isinstance(folded, tuple) and [float(part) for part in folded] == [7.0, 5.0]


def test_after_fit_the_student_is_untouched_even_if_training_fails(started, monkeypatch):
    trainer, train_data, valid_data, _ = started()
    trainer.fit(train_data, valid_data)
    assert "calculate_loss" not in vars(trainer.model)
    trainer, train_data, valid_data, _ = started()
    monkeypatch.setattr(trainer, "_check_nan", lambda loss: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(train_data, valid_data)
    assert "calculate_loss" not in vars(trainer.model) and trainer.clip_grad_norm is None


def test_a_lightgcn_student_propagates_once_per_step(started):
    trainer, train_data, _, _ = started("LightGCN", epochs=1)
    trainer.prepare(train_data, None)
    calls, forward = [], trainer.model.forward
    trainer.model.forward = lambda: calls.append(1) or forward()
    trainer.fit(train_data)
    assert len(calls) == len(train_data)


def test_base_and_distillation_loss_are_logged_by_name(started, caplog):
    caplog.set_level("INFO")
    trainer, train_data, valid_data, _ = started(trainer=["FreqD", "FD"], fd_beta=0.25)
    scalars, metrics = [], []
    trainer.tensorboard.add_scalar = lambda name, value, step: scalars.append((name, step))
    trainer.wandblogger.log_metrics = lambda record, head: metrics.append((head, record))
    trainer.fit(train_data, valid_data)
    for part in ("base", "FreqD", "FD"):
        assert (f"Loss/{part}", 1) in scalars
        assert any(head == "train" and f"loss_{part}" in record for head, record in metrics)
    assert "FD: " in caplog.text and "(weight 0.25)" in caplog.text


def test_amp_trains_to_nearly_the_same_student(started):
    half, full = (fit(started, enable_amp=on, freqd_dropout=0.0)[0] for on in (True, False))
    for name, value in full.model.state_dict().items():
        torch.testing.assert_close(half.model.state_dict()[name], value, rtol=0.1, atol=0.01)


def test_a_loss_that_turns_nan_names_the_term_and_what_is_left(started, monkeypatch):
    trainer, train_data, valid_data, _ = started()
    trainer.prepare(train_data, valid_data)
    loss = trainer.distiller.losses["FreqD"]
    monkeypatch.setattr(loss, "forward", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingError, match="nan in step 1 of epoch 0; not finite: FreqD"):
        trainer.fit(train_data, valid_data)


def test_an_own_override_of_the_students_loss_survives_fit(started):
    trainer, train_data, valid_data, _ = started()
    base = trainer.model.calculate_loss
    trainer.model.calculate_loss = own = lambda interaction: base(interaction)
    trainer.fit(train_data, valid_data)
    assert trainer.model.calculate_loss is own


def test_a_subclass_of_what_get_trainer_returns_is_itself(started, host):
    from recbole.utils import ModelType, get_trainer

    class Mine(get_trainer(ModelType.GENERAL, "BPR")):
        pass

    stock = started(trainer=None)[0]
    assert type(Mine(stock.config, stock.model)) is Mine
    ours = started(trainer="FreqD")[0]
    with pytest.raises(ConfigError, match=r"Mine inherits from .*dispatching\(Mine\)\(config"):
        Mine(ours.config, ours.model)  # it would train without a teacher
    made = dispatching(Mine)(ours.config, ours.model)
    assert isinstance(made, DistillationTrainer) and isinstance(made, Mine)


# --- checkpoints -----------------------------------------------------------------------------


def test_the_checkpoint_holds_the_student_only_and_the_sidecar_needs_no_pickle(started):
    trainer, _ = fit(started)
    checkpoint = torch.load(trainer.saved_model_file, weights_only=False)
    assert set(checkpoint["state_dict"]) == {"user_embedding.weight", "item_embedding.weight"}
    assert len(checkpoint["optimizer"]["param_groups"]) == 1
    assert len(checkpoint["optimizer"]["state"]) == 2
    sidecar = torch.load(sidecar_path(trainer.saved_model_file), weights_only=True)
    assert sidecar["methods"] == ["FreqD"]
    assert set(sidecar["distiller"]) == set(trainer.distiller.state_dict())


def test_resuming_brings_students_projectors_and_their_optimizer_back(started):
    first, _ = fit(started, epochs=1)
    resumed, train_data, valid_data, _ = started(epochs=3)
    resumed.resume_checkpoint(first.saved_model_file)
    resumed.prepare(train_data, valid_data)
    assert resumed.start_epoch == 1
    assert_equal_states(first.model.state_dict(), resumed.model.state_dict())
    assert_equal_states(first.distiller.state_dict(), resumed.distiller.state_dict())
    for one, other in zip(
        first.optimizer.state_dict()["state"].values(),
        resumed.optimizer.state_dict()["state"].values(),
    ):
        assert_equal_states(one, other)
    resumed.fit(train_data, valid_data)


def test_resuming_without_the_sidecar_or_with_other_losses_is_refused(started, tmp_path):
    first, _ = fit(started, epochs=1)
    resumed, train_data, valid_data, _ = started(trainer="FD")
    resumed.resume_checkpoint(first.saved_model_file)
    with pytest.raises(CheckpointError, match=r"holds the projectors of trainer \['FreqD'\]"):
        resumed.fit(train_data, valid_data)
    narrower, train_data, valid_data, _ = started(freqd_hidden=3)
    narrower.resume_checkpoint(first.saved_model_file)
    with pytest.raises(CheckpointError, match=r"cannot be used(.|\n)*size mismatch"):
        narrower.fit(train_data, valid_data)
    (tmp_path / sidecar_path(first.saved_model_file)).unlink()
    with pytest.raises(CheckpointError, match="is missing: the projectors of"):
        started()[0].resume_checkpoint(first.saved_model_file)


def test_resuming_after_fit_is_refused_and_changes_nothing(started):
    first, _ = fit(started, epochs=1)
    before = copy.deepcopy(first.model.state_dict())
    with pytest.raises(CheckpointError, match=r"comes after fit.*Make a new trainer"):
        first.resume_checkpoint(first.saved_model_file)
    assert_equal_states(before, first.model.state_dict())
    assert first.start_epoch == 0


def test_resuming_takes_the_checkpoints_learning_rate_for_the_projectors_too(started):
    first, _ = fit(started, epochs=1, learning_rate=0.01)
    resumed, train_data, valid_data, _ = started(epochs=3, learning_rate=0.5)
    resumed.resume_checkpoint(first.saved_model_file)
    resumed.prepare(train_data, valid_data)
    assert [group["lr"] for group in resumed.optimizer.param_groups] == [0.01, 0.01]


def test_two_trainers_made_at_once_never_share_a_file(started):
    assert started()[0].saved_model_file != started()[0].saved_model_file


# --- which trainer, which student ------------------------------------------------------------


def test_ours_is_mixed_into_the_students_own_trainer(host, started):
    from recbole.trainer import RecVAETrainer, Trainer

    trainer = started()[0]
    assert isinstance(trainer, Trainer) and isinstance(trainer, DistillationTrainer)
    mixed = mix_into(DistillationTrainer, RecVAETrainer)
    assert issubclass(mixed, RecVAETrainer) and mixed.__mro__[1] is DistillationTrainer


def test_by_hand_freqdtrainer_completes_a_config_that_names_no_trainer(tiny_config, teacher_recipe):
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer

    config = tiny_config()
    config["teacher"], config["freqd_alpha"] = teacher_recipe, 0.25
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    trainer = FreqDTrainer(config, BPR(config, train_data._dataset))
    assert isinstance(trainer, FreqDTrainer) and isinstance(trainer, Trainer)
    trainer.fit(train_data, valid_data)
    assert trainer.distiller.losses["FreqD"].filter.coefficients == (1.0, -0.25)
    assert "ndcg@10" in trainer.evaluate(test_data)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("EASE", "EASE cannot be a student: it is computed in one pass"),
        ("ItemKNN", "ItemKNN cannot be a student: it is computed in one pass"),
        ("NCEPLRec", "NCEPLRec cannot be a student: it is computed in one pass"),
        ("Random", "Random cannot be a student: it is computed in one pass"),
    ],
)
def test_a_model_that_cannot_be_a_student_is_refused_with_a_way_out(
    tiny_config, teacher_recipe, model, message
):
    config = tiny_config(model, trainer="FreqD", teacher=teacher_recipe, train_neg_sample_args=None)
    from recbole.utils import get_model, get_trainer

    student = object.__new__(get_model(model))
    with pytest.raises(ConfigError, match=message):
        get_trainer(config["MODEL_TYPE"], model)(config, student)


def test_a_model_of_another_kind_is_refused(host):
    from recbole.model.sequential_recommender import GRU4Rec

    from recbole_freqd.trainer.distillation import check_student

    with pytest.raises(ConfigError, match="GRU4Rec cannot be a student: it is a sequential model"):
        check_student(GRU4Rec, GRU4Rec.type)


def test_the_projectors_of_a_model_that_names_its_files_itself_lie_beside_them(
    built, teacher_recipe
):
    """RaCT's own names go by dataset and epoch: two runs would share them."""
    keys = {"pretrain_epochs": 2, "save_step": 1, "epochs": 2, "train_stage": "actor_pretrain"}
    model, (train_data, valid_data, _) = built(
        "RaCT", trainer="FreqD", teacher=teacher_recipe, **keys
    )
    trainer = FreqDTrainer(train_data._dataset.config, model)
    trainer.fit(train_data, valid_data, show_progress=False)
    folder = Path(trainer.saved_model_file).parent
    assert Path(trainer.saved_model_file).name.endswith("-2.pth")
    assert load_plain(sidecar_path(trainer.saved_model_file))["methods"] == ["FreqD"]
    assert not list(folder.glob("RaCT-tiny*"))


def test_a_second_fit_on_other_data_is_refused(built, teacher_recipe):
    keys = {"trainer": "FreqD", "teacher": teacher_recipe, "epochs": 1}
    model, (train_data, valid_data, _) = built(**keys)
    trainer = FreqDTrainer(train_data._dataset.config, model)
    trainer.fit(train_data, valid_data, show_progress=False)
    trainer.fit(train_data, valid_data, show_progress=False)
    _, (other, other_valid, _) = built(seed=5, **keys)
    with pytest.raises(ConfigError, match="again with other data.*Make a new trainer"):
        trainer.fit(other, other_valid, show_progress=False)


def test_a_trainer_that_goes_round_calculate_loss_is_refused_after_an_epoch(started, monkeypatch):
    from recbole.trainer import Trainer

    def by_itself(trainer, train_data, epoch, *args, **kwargs):
        batch = next(iter(train_data))
        trainer.optimizer.zero_grad()
        loss = -trainer.model.predict(batch).sum()
        loss.backward()
        trainer.optimizer.step()
        return loss.item()

    monkeypatch.setattr(Trainer, "_train_epoch", by_itself)
    with pytest.raises(TrainingError, match="Epoch 0 of .* never called the calculate_loss of BPR"):
        fit(started)
    fit(started, freqd_beta=0.0)  # alone on purpose


def test_the_seconds_of_an_epoch_count_what_a_loss_prepares_for_it(started, monkeypatch):
    from time import sleep

    from recbole_freqd.trainer.distiller import Distiller

    monkeypatch.setattr(Distiller, "start_epoch", lambda *_: sleep(0.3))
    trainer, _ = fit(started, epochs=1)
    assert trainer.seconds_per_epoch() >= 0.3
