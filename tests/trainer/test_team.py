"""Students of a team, of a filtered teacher, of one whose scores are close together."""

import pytest
import torch

from recbole_freqd.features.data import training_matrix
from recbole_freqd.runtime.trainer import mix_into
from recbole_freqd.trainer.distillation import DistillationTrainer

BPR = {"model": "BPR", "embedding_size": 8, "epochs": 2, "train_batch_size": 64}
KNN, EASE = {"model": "ShrunkKNN", "k": 10}, {"model": "EASE"}
EVERYONE = torch.arange(31)


@pytest.fixture
def taught(tiny_config):
    """A student that has been taught, its trainer, and the training data."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer, init_seed

    def teach(teacher, trainer="FreqRank", model="BPR", **keys):
        keys = {"epochs": 3, "learning_rate": 0.02, **keys}
        config = tiny_config(model, trainer=trainer, teacher=teacher, **keys)
        init_seed(config["seed"], True)
        train_data, valid_data, _ = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], True)
        student = config.model_class(config, train_data._dataset)
        host = get_trainer(config["MODEL_TYPE"], config["model"])
        trainer = mix_into(DistillationTrainer, host)(config, student)
        trainer.fit(train_data, valid_data)
        return student, trainer, train_data._dataset

    return teach


def test_the_order_of_the_teachers_changes_nothing_in_the_student(taught):
    one, *_ = taught([BPR, KNN, EASE], trainer=["FreqRank", "FreqD"], teacher_weights=[3, 1, 2])
    other, *_ = taught([EASE, BPR, KNN], trainer=["FreqRank", "FreqD"], teacher_weights=[2, 3, 1])
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name])


def test_a_student_of_a_list_of_one_is_that_of_the_teacher(taught):
    one, *_ = taught(BPR, trainer="FreqD")
    other, *_ = taught([BPR], trainer="FreqD")
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name])


def test_two_losses_see_one_thing_taught(taught):
    _, trainer, dataset = taught(
        [BPR, KNN], trainer=["FreqRank", "FreqD"], teacher_filter=0.4, epochs=1
    )
    losses, teacher = trainer.distiller.losses, trainer.teacher
    assert losses["FreqRank"].teacher_scores is teacher.ranker(dataset)
    assert losses["FreqRank"].stand_ins(teacher.ranker(dataset)) is teacher.features
    assert torch.equal(losses["FreqD"].teacher_user_emb, teacher.features[0])
    assert torch.equal(losses["FreqD"].teacher_item_emb, teacher.features[1])


def test_a_warm_student_begins_as_the_team_cut_to_its_width(taught):
    student, trainer, dataset = taught(
        [BPR, {**BPR, "embedding_size": 6}], freqrank_beta=0, epochs=1, learning_rate=0.0,
        teacher_weights=[1, 1], teacher_filter=0.4, teacher_filter_side="item", embedding_size=14,
        warm_start="teacher",
    )  # fmt: skip
    scores = student.user_embedding.weight @ student.item_embedding.weight.T
    wanted = trainer.teacher.ranker(dataset).block(EVERYONE)
    torch.testing.assert_close(scores[1:, 1:], wanted[1:, 1:], atol=1e-4, rtol=1e-3)


def test_beyond_the_size_a_team_with_a_member_without_features_goes_by_its_spectral_ones(
    taught, caplog
):
    pytest.importorskip("faiss")
    keys = {"teacher_weights": [1, 1], "teacher_filter": "none", "epochs": 1, "learning_rate": 0.0}
    _, exact, _ = taught([BPR, KNN], **keys)
    assert "stand for its scores" not in caplog.text
    with caplog.at_level("INFO"):
        student, large, _ = taught([BPR, KNN], index_items=1, index_nprobe=99, **keys)
    assert "Teacher's lists: from an index of 40 items" in caplog.text
    assert "Warm start from the teacher's features, which stand for its scores" in caplog.text
    lists = [trainer.distiller.losses["FreqRank"]._teacher_ids for trainer in (exact, large)]
    assert torch.equal(*lists)  # all are candidates here, and the team's own scores decide
    user, item = large.teacher.features
    wanted = torch.linalg.svdvals(user[1:] @ item[1:].T)[:4]  # the student's width
    scores = (student.user_embedding.weight @ student.item_embedding.weight.T)[1:, 1:]
    torch.testing.assert_close(torch.linalg.svdvals(scores)[:4], wanted, rtol=1e-3, atol=1e-4)


def agreement(student, trainer, dataset):
    """Share of the teacher's ten best new items that are among the student's."""
    seen = torch.from_numpy(training_matrix(dataset).toarray() != 0)
    with torch.no_grad():
        own = student.user_embedding.weight @ student.item_embedding.weight.T
    lists = []
    for scores in (own, trainer.teacher.ranker(dataset).block(EVERYONE)):
        hidden = scores.masked_fill(seen, -torch.inf)
        hidden[:, 0] = -torch.inf
        lists.append(hidden[1:].topk(10).indices)
    return (lists[0][:, :, None] == lists[1][:, None, :]).any(2).double().mean()


def test_ease_alone_teaches_at_its_given_spread_and_next_to_nothing_at_its_own(taught):
    keys = {"warm_start": "none", "teacher_filter": "none", "epochs": 30, "stopping_step": 50}
    keys.update(freqrank_k=10, freqrank_sampled=10, freqrank_top=30, embedding_size=16)
    close = {"freqrank_beta": 100.0, **keys}
    learnt = agreement(*taught(EASE, teacher_spread=2.0, **close))
    flat = agreement(*taught(EASE, teacher_spread=1e-3, **close))
    assert learnt > 0.7 and learnt > flat + 0.15


def test_a_model_that_cannot_start_warm_starts_cold_unless_that_was_asked_for(taught, caplog):
    keys = {"model": "MultiVAE", "latent_dimension": 8, "mlp_hidden_size": [12], "epochs": 1}
    taught(BPR, **keys)
    assert "MultiVAE cannot start warm: " in caplog.text and "It starts cold." in caplog.text
    with pytest.raises(Exception, match="MultiVAE cannot start warm: "):
        taught(BPR, warm_start="teacher", **keys)
