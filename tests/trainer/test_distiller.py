"""Reading RecBole's batches of every input type, and what the distiller owns."""

import pytest
import torch
from recbole.config import Config

from recbole_freqd.core.rng import RandomStream
from recbole_freqd.features import EmbeddingTables
from recbole_freqd.features.data import training_matrix
from recbole_freqd.trainer.batch import BatchReader
from recbole_freqd.trainer.distiller import Distiller

FIELDS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "NEG_PREFIX": "neg_",
    "LABEL_FIELD": "label",
}


@pytest.fixture
def read(host):
    from recbole.data.interaction import Interaction

    reader = BatchReader(FIELDS, 40, RandomStream(0))
    return lambda **fields: reader.read(
        Interaction({name: torch.tensor(value) for name, value in fields.items()})
    )


def test_pairwise_batches_carry_positives_and_negatives(read):
    batch = read(user_id=[1, 2, 2], item_id=[5, 6, 7], neg_item_id=[8, 9, 8])
    assert batch.user_ids.tolist() == [1, 2, 2]
    assert batch.positive_item_ids.tolist() == [5, 6, 7]
    assert batch.negative_item_ids.tolist() == [8, 9, 8]


def test_pointwise_batches_are_split_by_label(read):
    batch = read(user_id=[1, 1, 2], item_id=[5, 6, 7], label=[1.0, 0.0, 0.5])
    assert batch.positive_item_ids.tolist() == [5, 7]
    assert batch.negative_item_ids.tolist() == [6]


def test_user_batches_draw_as_many_items_as_rows_among_all_but_the_padding(read):
    batch = read(user_id=list(range(1000)))
    assert len(batch.positive_item_ids) == 1000 and batch.negative_item_ids is None
    assert set(batch.positive_item_ids.tolist()) == set(range(1, 40))
    assert batch.user_ids.tolist() == list(range(1, 1000))  # RecBole's user 0 is no user


def test_the_padding_is_in_no_batch(read):
    batch = read(user_id=[0, 3], item_id=[0, 4], neg_item_id=[2, 0])
    assert batch.user_ids.tolist() == [3]
    assert batch.positive_item_ids.tolist() == [4] and batch.negative_item_ids.tolist() == [2]


def test_items_without_label_or_negatives_are_positives(read):
    batch = read(user_id=[1], item_id=[4])
    assert batch.positive_item_ids.tolist() == [4] and batch.negative_item_ids.tolist() == []


@pytest.fixture
def distiller(tiny_config, teacher_recipe):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, init_seed

    def make(methods=("FreqD",), teacher_dim=8, **keys):
        config = tiny_config(trainer=list(methods), teacher=teacher_recipe, **keys)
        init_seed(config["seed"], True)
        train_data, *_ = data_preparation(config, create_dataset(config))
        dataset = train_data._dataset
        model = get_model("BPR")(config, dataset)
        teacher = (
            torch.randn(dataset.user_num, teacher_dim),
            torch.randn(dataset.item_num, teacher_dim),
        )
        return (
            Distiller(config, list(methods), model, EmbeddingTables(), dataset, teacher),
            model,
            dataset,
        )

    return make


def test_the_student_is_not_part_of_the_distiller_and_the_teacher_is_not_trained(distiller):
    built, model, _ = distiller()
    own = {id(parameter) for parameter in built.parameters()}
    assert not own & {id(parameter) for parameter in model.parameters()}
    assert sum(len(group["params"]) for group in built.parameter_groups()) == len(own)
    assert not any("teacher" in name for name in built.state_dict())


def test_several_losses_are_peers_with_their_own_weights(distiller):
    built, _, _ = distiller(("FreqD", "FD"), freqd_beta=0.5, fd_beta=2.0, fd_weight_decay=0.1)
    assert built.betas == {"FreqD": 0.5, "FD": 2.0}
    assert [group["weight_decay"] for group in built.parameter_groups()] == [0.0, 0.1]


def test_weight_0_leaves_a_loss_out_and_says_so(distiller, caplog):
    built, _, _ = distiller(freqd_beta=0)
    assert len(built.losses) == 0 and built.parameter_groups() == []
    assert "FreqD has weight 0" in caplog.text


def test_a_teacher_no_wider_than_the_student_is_allowed_with_a_note(distiller, caplog):
    distiller(teacher_dim=4)
    assert "not wider than the student's (4)" in caplog.text


def test_the_training_matrix_is_binary_with_an_empty_padding_row_and_column(distiller):
    _, _, dataset = distiller()
    matrix = training_matrix(dataset)
    assert matrix.shape == (dataset.user_num, dataset.item_num)
    assert set(matrix.data) == {1.0} and matrix.nnz == dataset.inter_num
    assert matrix[[0]].nnz == 0 and matrix[:, [0]].nnz == 0


def test_pairs_of_label_0_are_no_interactions(tiny_config, host, tmp_path):
    from recbole.data import create_dataset, data_preparation

    pairs = [(user, item) for user in range(9) for item in range(12) if (user + item) % 3]
    rows = [f"u{user}\ti{item}\t{user % 2 + 4}" for user, item in pairs]
    (tmp_path / "rated").mkdir()
    head = "user_id:token\titem_id:token\trating:float"
    (tmp_path / "rated" / "rated.inter").write_text("\n".join([head, *rows]) + "\n")
    keys = {"data_path": str(tmp_path), "load_col": {"inter": ["user_id", "item_id", "rating"]}}
    config = Config("BPR", "rated", config_dict={**keys, "threshold": {"rating": 5}})
    train_data = data_preparation(config, create_dataset(config))[0]
    inter, matrix = train_data._dataset.inter_feat, training_matrix(train_data._dataset)
    assert 0 < matrix.nnz == int((inter["label"] > 0).sum()) < len(inter)
    assert set(matrix.data) == {1.0}


def test_a_linear_projector_is_made_without_a_word_about_keys_nobody_set(distiller, caplog):
    built, _, _ = distiller(freqd_projector="linear")
    assert "no effect" not in caplog.text
    assert sum(1 for _ in built.parameters()) == 4
