"""HetComp: the curriculum and both phases against plain loops, and the checkpoints a recipe keeps."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses import HetCompLoss, hetcomp
from recbole_freqd.runtime.resume import Resume
from recbole_freqd.trainer.logs import LossLog
from tests.losses.test_listwise_losses import (
    EVERYONE,
    N_ITEMS,
    N_USERS,
    NONE,
    WIDTH,
    plain_rrd,
    ranked,
    scores_of,
    tables,
    untrained,
    value_of,
)
from tests.support.oracles import earlier_teachers, random_interactions


def make(trajectory=None, **options):
    trajectory = earlier_teachers(2) if trajectory is None else trajectory
    options = {"k": 4, "positives": 2, "every": 2, **options}
    data = random_interactions(5), (WIDTH, WIDTH), tables(1, 5)
    return HetCompLoss(*data, teacher_trajectory=trajectory, **options)


def advance(loss, epochs, student):
    """Starts epochs with an own student for each, where ``student`` is a function of the epoch."""
    for epoch in epochs:
        loss.start_epoch(epoch, FeatureRanker(*student(epoch)))


def finished(loss, student):
    """Every user at the converged teacher: alpha 0 lets all move on."""
    loss.options["alpha"] = 0.0
    advance(loss, range(20), lambda epoch: student)
    assert (loss._place[1:] == 2).all()
    return loss


def lists_by_hand(features, user, k=4):
    order = ranked(features, user, untrained(user))
    return order[:k]


def best_trained(user, count=2):
    trained = [item for item in range(1, N_ITEMS) if item not in untrained(user)]
    return ranked(tables(1, 5), user, trained)[:count]


def features_of(maker):
    ranker = maker()
    return ranker.user_emb, ranker.item_emb


def test_at_first_every_item_is_set_against_all_that_are_in_no_list():
    student, trajectory, values = tables(2, dtype=torch.float64), earlier_teachers(2), []
    for user in range(1, N_USERS):
        scores, top = scores_of(student, user), lists_by_hand(features_of(trajectory[0]), user)
        rest = sum(math.exp(scores[item]) for item in untrained(user) if item not in top)
        values.append(
            2
            * sum(
                math.log(rest + math.exp(scores[item])) - scores[item]
                for item in best_trained(user) + top
            )
        )
    assert value_of(make(trajectory), student).item() == pytest.approx(np.mean(values), rel=1e-9)


def test_at_the_end_the_order_of_the_converged_teacher_counts():
    student, values = tables(2, dtype=torch.float64), []
    loss = finished(make(k=6), tables(3))
    for user in range(1, N_USERS):
        scores, top = scores_of(student, user), lists_by_hand(tables(1, 5), user, 6)
        half = top[:3]
        rest = [item for item in untrained(user) if item not in half]
        values.append(plain_rrd(scores, best_trained(user), rest))
        values[-1] += 0.5 * plain_rrd(scores, half, rest)
        values[-1] += 0.5 * plain_rrd(scores, half[:1], half[1:] + rest)
    assert value_of(loss, student).item() == pytest.approx(np.mean(values), rel=1e-9)


def plain_distance(student, listed, user):
    top = lists_by_hand(student, user)
    gains = [(2 ** math.exp(-t / 10) - 1) / math.log2(t + 2) for t in range(len(top))]
    hit = sum(gain for gain, item in zip(gains, top) if item in listed)
    return round(1 - hit / sum(gains), 4)


def test_users_move_on_as_the_curriculum_says():
    trajectory = earlier_teachers(2)
    lists = [
        {user: lists_by_hand(features, user) for user in range(1, N_USERS)}
        for features in (*map(features_of, trajectory), tables(1, 5))
    ]

    def student(epoch):
        return tables(100 + epoch)

    loss, place, noted = make(trajectory), dict.fromkeys(range(1, N_USERS), 0), {}
    moved = set()
    for epoch in range(13):
        advance(loss, [epoch], student)
        if epoch > 0 and epoch % 2 == 0:
            for user, v in place.items():
                now = plain_distance(student(epoch), lists[min(v + 1, 2)][user], user)
                if user not in noted:
                    noted[user] = now
                elif v < 2 and (
                    now == 0
                    or noted[user] / now > 1.05 * 0.995 ** (epoch // 2)
                    or noted[user] < now
                ):
                    place[user] = v + 1
                    following = lists[min(v + 2, 2)][user]
                    noted[user] = plain_distance(student(epoch), following, user)
                    moved.add(epoch)
        assert loss._place[1:].tolist() == list(place.values())
    assert len(moved) > 1 and set(place.values()) != {0}


def test_where_users_are_is_in_the_state_and_taken_up():
    first, student = make(), lambda epoch: tables(100 + epoch)
    advance(first, range(7), student)
    again = make()
    again.load_state_dict(first.state_dict())
    for loss in (first, again):
        advance(loss, range(7, 13), student)
    assert torch.equal(first._place, again._place) and first._place.sum() > 0
    assert value_of(first, tables(2)) == value_of(again, tables(2))


@pytest.mark.parametrize("at_the_end", [False, True])
def test_gradients_pass_gradcheck(at_the_end):
    loss, student = make(), tables(2, dtype=torch.float64, grad=True)
    if at_the_end:
        finished(loss, tables(3))
    assert torch.autograd.gradcheck(lambda *parts: value_of(loss, parts), student, fast_mode=True)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_blocks_and_scorers_change_neither_value_nor_gradient(at_the_end, monkeypatch):
    loss, results = make(), []
    if at_the_end:
        finished(loss, tables(3))
    for way in ("whole", "blocks", "scorer"):
        if way == "blocks":
            monkeypatch.setattr(hetcomp, "BUDGET_BYTES", 1)
        student = tables(2, grad=True)
        rows = FeatureRows.of_tables(*student)
        if way == "scorer":
            rows = FeatureRows(rows.user, rows.item, scorer=rows.scores)
        value = value_of(loss, rows)
        value.backward()
        results.append((value.detach(), *(part.grad for part in student)))
    for other in results[1:]:
        for one, two in zip(results[0], other):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("at_the_end", [False, True])
@pytest.mark.parametrize("size", [1e4, 0.0])
def test_extreme_scores_are_finite(at_the_end, size):
    loss, student = make(positives=50), tables(2)
    if at_the_end:
        finished(loss, tables(3))
    student = (student[0] * size).requires_grad_(), student[1].requires_grad_()
    value = value_of(loss, student)
    value.backward()
    assert torch.isfinite(value) and value > 0
    assert all(part.grad.isfinite().all() for part in student)
    assert student[1].grad[0].abs().sum() == 0


def test_the_loss_of_a_batch_is_the_mean_of_its_distinct_users():
    loss, student = make(), tables(2)
    alone = [value_of(loss, student, torch.tensor([user])) for user in EVERYONE]
    torch.testing.assert_close(value_of(loss, student), torch.stack(alone).mean())
    assert value_of(loss, student, EVERYONE.repeat(2)) == value_of(loss, student)


@pytest.mark.parametrize(
    ("earlier", "taken"),
    [(1, [0]), (2, [0, 4]), (3, [0, 2, 5]), (7, [*range(7)]), (9, [*range(7)])],
)
def test_earlier_checkpoints_are_at_even_distances_up_to_the_converged_one(earlier, taken):
    made = []

    def maker(number, ranker):
        return lambda: made.append(number) or ranker()

    trajectory = [maker(number, ranker) for number, ranker in enumerate(earlier_teachers(7))]
    loss = make(trajectory, earlier=earlier)
    assert made == taken and len(loss._lists) == len(taken) + 1
    for user in range(1, N_USERS):
        assert [i for i in loss._lists[-1, user].tolist() if i] == lists_by_hand(tables(1, 5), user)


def test_a_list_of_everything_is_refused_since_it_would_be_ranked_before_nothing(caplog):
    most = max(len(untrained(user)) for user in range(1, N_USERS))
    covered = sum(0 < len(untrained(user)) < most for user in range(1, N_USERS))
    with pytest.raises(ConfigError, match=f"hetcomp_k: got {most}; allowed: below {most}"):
        make(k=most)
    assert value_of(make(k=most - 1), tables(2)) > 0
    assert f"{covered} users have no more than hetcomp_k = {most - 1}" in caplog.text


@pytest.mark.parametrize(
    ("epochs", "given", "every"),
    [(None, None, 10), (1000, None, 10), (150, None, 5), (20, None, 1), (150, 7, 7)],
)
def test_users_move_as_often_as_the_epochs_allow_unless_told(epochs, given, every):
    assert make(epochs=epochs, every=given).every == every


def test_a_training_too_short_for_the_first_move_is_warned_of(caplog):
    make(epochs=21, every=10)
    assert not caplog.text
    make(epochs=20, every=10)
    assert "from epoch 20 on" in caplog.text and "epochs is 20" in caplog.text


def test_without_earlier_checkpoints_it_says_what_is_missing():
    with pytest.raises(ConfigError, match="HetComp follows.*teacher.keep_every"):
        make([])
    assert make()(tables(2), NONE, NONE, None) == 0


# --- through the trainer ---------------------------------------------------------------------


@pytest.fixture
def started(tiny_config):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer, init_seed

    def start(model="BPR", trainer="HetComp", **keys):
        teacher = {"model": "BPR", "embedding_size": 8, "epochs": 5, "keep_every": 1}
        keys = {"epochs": 4, "hetcomp_every": 1, "hetcomp_k": 5, "teacher": teacher, **keys}
        config = tiny_config(model, trainer=trainer, **keys)
        init_seed(config["seed"], True)
        train_data, valid_data, _ = data_preparation(config, create_dataset(config))
        student = config.model_class(config, train_data._dataset)
        return get_trainer(config["MODEL_TYPE"], model)(config, student), train_data, valid_data

    return start


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"checkpoint": "some.pth"}, r"got a teacher.checkpoint \(some.pth\)"),
        ({"checkpoint": "some.pth", "keep_every": 2}, r"got a teacher.checkpoint \(some.pth\)"),
        ({"model": "BPR"}, "a recipe without teacher.keep_every"),
    ],
)
def test_a_teacher_without_a_trajectory_is_refused_before_anything_is_trained(
    started, teacher, words
):
    trainer, train_data, valid_data = started(teacher=teacher)
    with pytest.raises(ConfigError, match=words):
        trainer.fit(train_data, valid_data)
    assert not list(Path("saved").glob("*.pth"))


def test_a_recipe_keeps_checkpoints_up_to_its_best_epoch_and_leaves_nothing_else(started):
    trainer, train_data, valid_data = started()
    trainer.fit(train_data, valid_data)
    teacher = trainer.teacher
    best = load_checkpoint(teacher.checkpoint)["epoch"] + 1
    stem = Path(teacher.checkpoint).with_suffix("")
    expected = [f"{stem}.epoch{epoch}.pth" for epoch in range(1, best)]
    assert best > 1 and list(teacher.trajectory) == expected
    folder = Path(trainer.config["checkpoint_dir"])
    assert sorted(folder.glob("*.epoch*.pth")) == sorted(map(Path, expected))
    states = [load_checkpoint(path)["state_dict"] for path in (*expected, teacher.checkpoint)]
    tables = [state["user_embedding.weight"] for state in states]
    assert all(not torch.equal(one, two) for one, two in zip(tables, tables[1:]))
    # The rankers are those of the files.
    ranker = teacher.trajectory_rankers(train_data._dataset)[0]()
    users = torch.tensor([1, 2])
    expected = tables[0][users] @ states[0]["item_embedding.weight"].T
    torch.testing.assert_close(ranker.block(users), expected)


def test_the_trajectory_is_reused_with_its_teacher_and_made_again_when_a_part_is_gone_or_another(
    started,
):
    trainer, *data = started()
    trainer.fit(*data)
    again, *data = started()
    again.fit(*data)
    assert again.teacher.origin == "reused"
    assert again.teacher.trajectory == trainer.teacher.trajectory
    Path(again.teacher.trajectory[0]).unlink()
    third, *data = started()
    third.fit(*data)
    assert third.teacher.origin == "trained" and Path(third.teacher.trajectory[0]).is_file()
    shutil.copyfile(third.teacher.checkpoint, third.teacher.trajectory[0])
    fourth, *data = started()
    fourth.fit(*data)
    assert fourth.teacher.origin == "trained"


def test_the_teacher_with_a_trajectory_is_the_one_without_under_another_name(started):
    trainer, *data = started()
    trainer.fit(*data)
    recipe = {"model": "BPR", "embedding_size": 8, "epochs": 5}
    plain, *data = started(trainer="FD", teacher=recipe)
    plain.fit(*data)
    assert plain.teacher.checkpoint != trainer.teacher.checkpoint
    assert plain.teacher.trajectory == ()
    for one, two in zip(trainer.teacher.features, plain.teacher.features):
        assert torch.equal(one, two)


def test_a_best_epoch_before_the_first_kept_one_says_what_to_change(started):
    recipe = {"model": "BPR", "embedding_size": 8, "epochs": 2, "keep_every": 50}
    trainer, *data = started(teacher=recipe)
    with pytest.raises(ConfigError, match="below the number of its best epoch"):
        trainer.fit(*data)


@pytest.mark.parametrize("model", ["BPR", "MultiVAE"])
def test_it_trains_through_the_trainer_and_users_move_on(started, model):
    keys = {"train_neg_sample_args": None} if model == "MultiVAE" else {}
    trainer, *data = started(model, **keys)
    seen = []
    trainer.part(LossLog).write = lambda means, epoch: seen.append(means["HetComp"])
    trainer.fit(*data)
    assert len(seen) == 4 and all(math.isfinite(value) and value > 0 for value in seen)
    assert trainer.distiller.losses["HetComp"]._started


def test_a_teacher_interrupted_keeps_what_it_had_kept(started, monkeypatch):
    from recbole_freqd.teacher.recipe import _TeacherTrainer

    recipe = {"model": "BPR", "embedding_size": 8, "epochs": 6, "keep_every": 1}
    recipe["learning_rate"] = 0.01
    trained, stop_at = _TeacherTrainer._train_epoch, [None]
    whole, *data = started(teacher=recipe)
    whole.config["checkpoint_dir"] += "-whole"
    whole.fit(*data)
    stop_at[0] = 3

    def interrupted(self, train_data, epoch_idx, *args, **kwargs):
        if epoch_idx == stop_at[0]:
            raise KeyboardInterrupt
        return trained(self, train_data, epoch_idx, *args, **kwargs)

    monkeypatch.setattr(_TeacherTrainer, "_train_epoch", interrupted)
    trainer, *data = started(resume=True, teacher=recipe)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data)
    stop_at[0] = None
    again, *data = started(resume=True, teacher=recipe)
    again.fit(*data)
    assert len(again.teacher.trajectory) >= 4
    for one, two in zip(whole.teacher.trajectory, again.teacher.trajectory):
        assert Path(one).name == Path(two).name and one != two
        states = [load_checkpoint(path)["state_dict"] for path in (one, two)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("method", ["HetComp", "RRD", "DCD", "RCE-KD"])
def test_a_run_that_is_cut_off_ends_in_the_same_student_when_resumed(started, method, monkeypatch):
    keys = {"trainer": method, "resume": True}
    whole, *data = started(**{**keys, "resume": False})
    whole.fit(*data)
    cut, *data = started(**keys)
    train = type(cut)._train_epoch

    def interrupted(self, train_data, epoch_idx, *args, **kwargs):
        if epoch_idx == 3:
            self.part(Resume).write(epoch_idx)
            raise KeyboardInterrupt
        return train(self, train_data, epoch_idx, *args, **kwargs)

    for file in Path(whole.config["checkpoint_dir"]).glob("BPR-*.last.pt*"):
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(type(cut), "_train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cut.fit(*data)
    again, *data = started(**keys)
    again.fit(*data)
    assert again.start_epoch == 3
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])
    assert torch.equal(
        load_checkpoint(whole.saved_model_file)["state_dict"]["user_embedding.weight"],
        load_checkpoint(again.saved_model_file)["state_dict"]["user_embedding.weight"],
    )
