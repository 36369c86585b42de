"""Numbers that are none, too large, too small, or missing: right treatment, or an error of ours."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.config import make
from recbole_freqd.core.errors import ConfigError, TeacherError, TrainingError
from recbole_freqd.core.schema import method_keys
from recbole_freqd.features import extract_features, student_adapter
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.jobs.quick_start import run_recbole_freqd
from recbole_freqd.losses import LOSSES
from recbole_freqd.teacher.checks import check_features
from recbole_freqd.trainer.distillation import FreqDTrainer
from recbole_freqd.trainer.distiller import Distiller
from tests.support.oracles import SHORT_LISTS, random_interactions

every_loss = pytest.mark.parametrize("name", LOSSES.names())
of_features = pytest.mark.parametrize(
    "name", [name for name in LOSSES.names() if not LOSSES.get(name).reads_scores]
)
of_distances = pytest.mark.parametrize("name", ["FreqD", "FD"])
every_distance = pytest.mark.parametrize("distance", ["cosine", "squared"])
every_projector = pytest.mark.parametrize("projector", ["mlp", "linear"])
D_S, D_T = 3, 5
NONE = torch.empty(0, dtype=torch.int64)


def tables(n_users, n_items, width, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(n, width, generator=generator) for n in (n_users, n_items)]
    return tuple(table.to(**options) if options else table for table in made)


def trainable(features):
    return tuple(table.clone().requires_grad_() for table in features)


def loss_on(user_items, name="FreqD", teacher=None, **options):
    user_items = sp.csr_array(user_items)
    teacher = tables(*user_items.shape, D_T, seed=1) if teacher is None else teacher
    prefix = LOSSES.get(name).prefix
    has = {key: value for key, value in options.items() if f"{prefix}_{key}" in method_keys(name)}
    options = {**SHORT_LISTS.get(name, {}), **has}
    return LOSSES.get(name)(user_items, (D_S, D_S), teacher, **options)


def value_and_gradients(loss, student, *ids):
    value = loss(student, *ids)
    value.backward()
    return value.detach(), [table.grad for table in student]


# --- the teacher's features ------------------------------------------------------------------


@pytest.fixture
def dataset(built):
    _, loaders = built("BPR")
    return loaders[0]._dataset


def features_of_the_tiny_data(**options):
    return [table.clone() for table in tables(31, 41, 4, **options)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["user", "item"])
def test_rows_that_are_no_numbers_are_refused_with_side_count_and_names(dataset, side, bad):
    features = features_of_the_tiny_data()
    place = ["user", "item"].index(side)
    features[place][[3, 7], 1] = bad
    names = dataset.field2id_token[f"{side}_id"][[3, 7]]
    n = len(features[place]) - 1
    with pytest.raises(
        TeacherError,
        match=rf"Teacher a\.pth cannot teach: 2 of {n} {side} rows hold NaN or infinite numbers: "
        rf"{names[0]}, {names[1]}\. Train it again",
    ):
        check_features(tuple(features), None, dataset, "a.pth")


def test_only_rows_that_are_taught_count(dataset, caplog):
    features = features_of_the_tiny_data()
    for table in features:
        table[0] = float("nan")  # the padding
    check_features(tuple(features), None, dataset, "a.pth")
    known = np.arange(31) > 5, np.arange(41) > 5
    features[0][3], features[1][4] = float("inf"), 0.0
    check_features(tuple(features), known, dataset, "a.pth")
    assert caplog.text == ""


def test_an_overflow_of_float16_says_so(dataset):
    features = features_of_the_tiny_data()
    features[1][2] = 1e5
    half = tuple(table.half() for table in features)
    with pytest.raises(TeacherError, match=r"1 of 40 item rows.*set teacher\.precision to float32"):
        check_features(half, None, dataset, "a.pth")


def test_zero_rows_are_counted_and_nothing_but_zero_rows_is_refused(dataset, caplog):
    features = features_of_the_tiny_data()
    features[0][[2, 5]] = 0.0
    check_features(tuple(features), None, dataset, "a.pth")
    assert "2 of the teacher's 30 user rows are zero (" in caplog.text
    for factor in (0.0, 1e-30):
        with pytest.raises(
            TeacherError, match="nothing to teach: all of its 40 item rows are zero"
        ):
            check_features((features[0], features[1] * factor), None, dataset, "a.pth")


def test_rows_too_long_for_single_precision_are_refused(dataset):
    features = features_of_the_tiny_data()
    with pytest.raises(TeacherError, match=r"30 of 30 user rows are too long \(up to \de\+30\)"):
        check_features((features[0] * 1e30, features[1]), None, dataset, "a.pth")


def test_a_padding_row_of_nan_does_not_spoil_the_features_of_a_model(built):
    model, _ = built("BPR")
    with torch.no_grad():
        model.user_embedding.weight[0] = float("nan")
    extract_features(model)
    with torch.no_grad():
        model.user_embedding.weight[1] = float("nan")
    with pytest.raises(TeacherError, match="1 of 31 user rows hold NaN"):
        extract_features(model)


def test_a_teacher_whose_training_blew_up_is_refused_by_the_run(host, tiny_keys, teacher_recipe):
    recipe = {**teacher_recipe, "learning_rate": 1e3, "weight_decay": 1e6, "learner": "sgd"}
    keys = {**tiny_keys, "trainer": "FreqD", "teacher": recipe, "valid_metric": "NDCG@10"}
    with pytest.raises((TeacherError, TrainingError), match="not finite|too long|hold NaN"):
        run_recbole_freqd("BPR", "tiny", config_dict=keys)


# --- tensors by hand -------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16], ids=lambda dtype: str(dtype)
)
def test_a_teacher_of_another_precision_teaches_the_same(name, dtype):
    user_items = random_interactions(3)
    teacher, ids = tables(9, 10, D_T, seed=1), torch.arange(1, 9)
    student = tables(9, 10, D_S, seed=2)
    values = [
        loss_on(user_items, name, tuple(table.to(kind) for table in teacher)).eval()(
            student, ids, ids, ids
        )
        for kind in (torch.float32, dtype)
    ]
    torch.testing.assert_close(values[1].float(), values[0], rtol=0.02, atol=0.02)


@every_loss
def test_tables_that_are_not_contiguous_are_read_as_they_are(name):
    user_items, ids = random_interactions(3), torch.arange(1, 9)
    teacher, student = tables(9, 10, D_T, seed=1), tables(9, 10, D_S, seed=2)
    spread = [tuple(t.T.contiguous().T for t in pair) for pair in (teacher, student)]
    assert not spread[0][0].is_contiguous()
    one = value_and_gradients(loss_on(user_items, name, teacher), trainable(student), ids, ids, ids)
    leaves = tuple(table.requires_grad_() for table in spread[1])
    two = value_and_gradients(loss_on(user_items, name, spread[0]), leaves, ids, ids, ids)
    torch.testing.assert_close(one, two)


@every_loss
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.long(), r"torch\.int64 \(9, 5\); allowed: a dense floating"),
        (lambda table: table[0], r"torch\.float32 \(5,\)"),
        (lambda table: table[:, :0], r"torch\.float32 \(9, 0\)"),
        (lambda table: table.numpy(), "are ndarray"),
        (lambda table: table.to_sparse(), "are Tensor"),
        (lambda table: None, "are NoneType"),
        (lambda table: table[:8], "8 user rows and 10 item rows"),
    ],
    ids=["integers", "vector", "no width", "array", "sparse", "none", "fewer rows"],
)
def test_a_teacher_that_is_no_table_of_floats_is_refused(name, change, words):
    user, item = tables(9, 10, D_T)
    with pytest.raises(TeacherError, match=words):
        loss_on(random_interactions(3), name, (change(user), item))


@every_loss
@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.tensor([1.0, 2.0]), r"user_ids are torch\.float32 \(2,\); allowed: .*int64"),
        (torch.tensor([1, 2], dtype=torch.int32), r"user_ids are torch\.int32"),
        (torch.tensor([[1, 2]]), r"user_ids are torch\.int64 \(1, 2\)"),
        ([1, 2], "user_ids are list"),
        (torch.tensor([1, -1]), "user_ids run from -1 to 1; allowed: 0 to 8"),
        (torch.tensor([1, 9]), "user_ids run from 1 to 9; allowed: 0 to 8"),
    ],
    ids=["floats", "int32", "matrix", "list", "negative", "too large"],
)
def test_ids_that_are_no_rows_are_refused(name, ids, words):
    loss = loss_on(random_interactions(3), name)
    with pytest.raises(ConfigError, match=words):
        loss(tables(9, 10, D_S), ids, NONE, NONE)


@every_loss
def test_student_tables_of_another_shape_are_refused(name):
    loss, ids = loss_on(random_interactions(3), name), torch.arange(3)
    for shapes in ((9, 10, D_S + 1), (8, 10, D_S), (9, 11, D_S)):
        with pytest.raises(ConfigError, match="student's .* features have the shape"):
            loss(tables(*shapes), ids, ids, ids)


# --- graphs with little in them --------------------------------------------------------------

ISLANDS = np.zeros((6, 7))
ISLANDS[1:4, 1:4] = 1.0  # users 4, 5 and items 4, 5, 6 have no interaction


@of_distances
@every_distance
@every_projector
def test_entities_without_interactions_are_filtered_as_what_they_are(name, distance, projector):
    options = {"distance": distance, "projector": projector}
    options.update({"experts": 1, "dropout": 0.0} if projector == "mlp" else {})
    loss = loss_on(ISLANDS, name, **options).eval()
    alone = LOSSES.get("FD")(
        sp.csr_array(ISLANDS), (D_S, D_S), (loss.teacher_user_emb, loss.teacher_item_emb), **options
    ).eval()
    alone.projectors.load_state_dict(loss.projectors.state_dict())
    student = tables(6, 7, D_S, seed=2)
    ids = torch.tensor([4, 5]), torch.tensor([4, 6]), torch.tensor([5])
    ours = value_and_gradients(loss, trainable(student), *ids)
    torch.testing.assert_close(ours, value_and_gradients(alone, trainable(student), *ids))
    assert ours[1][0][:4].abs().sum() == 0 and ours[1][0][4:].abs().sum() > 0


@of_features
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 5), (5, 2), (3, 3), (1, 4)])
@pytest.mark.parametrize("filled", [True, False], ids=["all edges", "no edge"])
def test_graphs_of_one_or_two_entities_or_without_an_edge_work(name, shape, filled):
    user_items = np.full(shape, float(filled))
    loss = loss_on(user_items, name, projector="linear", distance="squared")
    student = trainable(tables(*shape, D_S, seed=2))
    users, items = (torch.arange(n) for n in shape)
    value, gradients = value_and_gradients(loss, student, users, items, items)
    # FitNet and VkD draw from the catalogue, which has only the padding where there is one row.
    assert value > 0 or (shape == (1, 1) and name in ("FitNet", "VkD"))
    assert all(grad.isfinite().all() for grad in gradients)


@pytest.mark.parametrize("name", [n for n in LOSSES.names() if LOSSES.get(n).reads_scores])
def test_a_catalogue_of_one_item_has_no_order_to_be_taught(name):
    with pytest.raises(ConfigError, match=f"{name} teaches the order of items.*has 1"):
        loss_on(np.ones((3, 2)), name)


def test_one_user_and_one_item_beside_the_padding_can_be_distilled():
    user_items = np.array([[0.0, 0.0], [0.0, 1.0]])
    loss, one = loss_on(user_items), torch.tensor([1])
    value, gradients = value_and_gradients(loss, trainable(tables(2, 2, D_S)), one, one, NONE)
    assert torch.isfinite(value) and all(grad[0].abs().sum() == 0 for grad in gradients)


def test_more_neighbours_than_there_are_act_as_all_of_them_and_the_log_says_so(caplog):
    user_items, ids = random_interactions(3), torch.arange(1, 9)
    student = tables(9, 10, D_S, seed=2)
    values = [loss_on(user_items, k=k).eval()(student, ids, ids, ids) for k in (9, 10, 10**40)]
    assert values[0] == values[1] == values[2]
    assert f"freqd_k: got {10**40}, but the user graph has 9 entities: it acts as 8." in caplog.text
    for side, n in (("user", 9), ("item", 10)):
        graphs = [cooccurrence_graph(user_items, side=side, k=k) for k in (n - 1, n, 10**6)]
        assert all((graphs[0] != graph).nnz == 0 for graph in graphs)


# --- batches with little in them -------------------------------------------------------------


@of_distances
@every_distance
@every_projector
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_batch_without_one_kind_has_the_loss_of_the_others(name, distance, projector, kind):
    loss = loss_on(random_interactions(3), name, distance=distance, projector=projector).eval()
    student = tables(9, 10, D_S, seed=2)
    ids = [torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5])]
    parts = [
        loss(student, *(own if i == j else NONE for j, own in enumerate(ids))) for i in range(3)
    ]
    ids[kind] = NONE
    value, gradients = value_and_gradients(loss, trainable(student), *ids)
    expected = sum(part for i, part in enumerate(parts) if i != kind)
    torch.testing.assert_close(value, expected)
    assert all(grad.isfinite().all() for grad in gradients)
    assert (gradients[0].abs().sum() == 0) == (kind == 0)


# --- very large and very small ---------------------------------------------------------------


@of_distances
@every_distance
@every_projector
@pytest.mark.parametrize("scale", [1e15, 1e-15, 1e-30, 1e-42])
def test_large_and_small_features_give_finite_values_and_gradients(
    name, distance, projector, scale
):
    user_items, ids = random_interactions(3), torch.arange(1, 9)
    for student_scale, teacher_scale in ((scale, 1.0), (1.0, scale), (scale, scale)):
        teacher = tuple(table * teacher_scale for table in tables(9, 10, D_T, seed=1))
        student = trainable([table * student_scale for table in tables(9, 10, D_S, seed=2)])
        loss = loss_on(user_items, name, teacher, distance=distance, projector=projector)
        value, gradients = value_and_gradients(loss, student, ids, ids, ids)
        assert torch.isfinite(value), (student_scale, teacher_scale)
        assert all(grad.isfinite().all() for grad in gradients), (student_scale, teacher_scale)


@of_distances
@every_distance
@every_projector
@pytest.mark.parametrize("bad", [1e30, float("nan"), float("inf")])
def test_student_rows_that_no_square_can_hold_are_seen_in_the_loss(name, distance, projector, bad):
    loss = loss_on(random_interactions(3), name, distance=distance, projector=projector)
    student, ids = tables(9, 10, D_S, seed=2), torch.arange(1, 9)
    student[0][3] = bad
    assert not torch.isfinite(loss(student, ids, ids, ids))


# --- training --------------------------------------------------------------------------------


@pytest.fixture
def started(tiny_config, teacher_recipe, built):
    """A trainer with its loaders, nothing trained yet: ``started(epochs=3) -> (trainer, data)``."""

    def start(model="BPR", **keys):
        keys = {"trainer": "FreqD", "teacher": teacher_recipe, "epochs": 3, **keys}
        student, loaders = built(model, **keys)
        return FreqDTrainer(tiny_config(model, **keys), student), loaders

    return start


def spoil(trainer, of, step, value=float("nan")):
    """Makes a term of the loss return something else in one step, counted over all epochs."""
    trainer.prepare(*trainer.loaders[:2])
    target, name = (
        (trainer.model, "calculate_loss")
        if of == "base"
        else (trainer.distiller.losses[of], "forward")
    )
    stock, count = getattr(target, name), iter(range(1, 10_000))
    setattr(
        target,
        name,
        lambda *args: stock(*args) * (value if next(count) == step else 1.0),
    )


@pytest.mark.parametrize("of", ["base", "FreqD"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_term_that_turns_nan_or_infinite_is_named_with_step_epoch_and_what_is_left(
    started, of, value
):
    trainer, trainer_loaders = started()
    trainer.loaders = trainer_loaders
    steps = len(trainer_loaders[0])
    spoil(trainer, of, steps + 2, value)
    with pytest.raises(TrainingError) as caught:
        trainer.fit(*trainer_loaders[:2])
    message = str(caught.value)
    assert f"in step 2 of epoch 1; not finite: {of}. The best checkpoint so far stays at" in message
    stored = torch.load(trainer.saved_model_file, weights_only=False)["state_dict"]
    assert trainer.saved_model_file in message
    assert all(weight.isfinite().all() for weight in stored.values())


def test_before_the_first_checkpoint_the_error_says_that_there_is_none(started):
    trainer, trainer.loaders = (made := started())[0], made[1]
    spoil(trainer, "FreqD", 1)
    with pytest.raises(TrainingError, match="No checkpoint had been saved before"):
        trainer.fit(*trainer.loaders[:2])


@pytest.mark.parametrize("step", [1, "last"])
def test_weights_that_a_finite_loss_spoiled_are_found_before_they_are_saved(started, step):
    trainer, (train, valid, _) = started()
    trainer.prepare(train, valid)
    step, count = len(train) if step == "last" else step, iter(range(1, 10_000))
    weight = trainer.distiller.losses["FreqD"].projectors["user"].weight_in
    weight.register_hook(lambda grad: grad * (float("nan") if next(count) == step else 1.0))
    with pytest.raises(TrainingError) as caught:
        trainer.fit(train, valid)
    message = str(caught.value)
    if step == 1:
        assert "step 2 of epoch 0; not finite: FreqD. The step before made weights" in message
    else:
        assert "The last step of epoch 0 made weights that are not finite" in message
    assert "FreqD projectors.user.weight_in" in message and "No checkpoint had been" in message


def test_the_student_alone_is_watched_as_well(host, tiny_keys, monkeypatch):
    from recbole.model.general_recommender import BPR

    stock, count = BPR.calculate_loss, iter(range(1, 10_000))
    monkeypatch.setattr(
        BPR,
        "calculate_loss",
        lambda *args: stock(*args) * (float("inf") if next(count) == 3 else 1.0),
    )
    with pytest.raises(
        TrainingError, match="Training loss is inf in epoch 0; not finite: the loss"
    ):
        run_recbole_freqd("BPR", "tiny", config_dict={**tiny_keys, "valid_metric": "NDCG@10"})


def test_with_a_grad_scaler_an_infinite_loss_is_the_scalers_business(started):
    trainer, _ = started()
    trainer.enable_scaler = True
    trainer._check_nan(torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match="Training loss is nan"):
        trainer._check_nan(torch.tensor(float("nan")))


def test_a_validation_that_is_no_number_is_an_error(started, monkeypatch):
    trainer, (train, valid, _) = started()
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: {trainer.valid_metric: float("nan")})
    with pytest.raises(TrainingError, match="NDCG@10 is nan in the validation after epoch 0"):
        trainer.fit(train, valid)


def test_projectors_that_no_memory_holds_are_an_error_of_ours(built, tiny_config, teacher_recipe):
    model, loaders = built("BPR")
    keys = {"trainer": "FreqD", "teacher": teacher_recipe, "freqd_projector": "mlp"}
    for key in ("freqd_experts", "freqd_hidden"):
        for size in (10**14, 10**40):
            config = tiny_config(**keys, **{key: size})
            with pytest.raises(ConfigError, match="FreqD does not fit into memory.*freqd_experts"):
                Distiller(
                    config,
                    ["FreqD"],
                    model,
                    student_adapter(model),
                    loaders[0]._dataset,
                    tables(31, 41, 8),
                )


# --- what a config asks of the data ----------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"topk": [10, 41]}, r"topk: got \[10, 41\], but there are 40 items"),
        (
            {"metrics": "AUC", "valid_metric": "AUC", "eval_args": {"mode": "labeled"}},
            "mode labeled, but the data has no column 'label'",
        ),
        ({"train_neg_sample_args": None}, "got none, but BPR learns from pairs"),
        ({"eval_args": {"mode": "labeled"}}, "got mode labeled with metrics"),
    ],
)
def test_what_the_data_cannot_give_is_refused_before_anything_is_trained(
    host, tiny_keys, teacher_recipe, keys, words, tmp_path
):
    keys = {
        **tiny_keys,
        "trainer": "FreqD",
        "teacher": teacher_recipe,
        "valid_metric": "NDCG@10",
        **keys,
    }
    with pytest.raises(ConfigError, match=words):
        run_recbole_freqd("BPR", "tiny", config_dict=keys)
    assert not list(tmp_path.glob("saved/*.pth"))


def test_without_a_validation_set_the_last_model_is_taken(host, tiny_keys, teacher_recipe):
    for trainer in ("FreqD", None):
        keys = {**tiny_keys, "trainer": trainer, "teacher": teacher_recipe}
        keys.update(valid_metric="NDCG@10", eval_args={"split": {"LS": "test_only"}})
        result = run_recbole_freqd("BPR", "tiny", config_dict=keys)
        assert result["best_valid_result"] == {} and "ndcg@10" in result["test_result"]


def test_a_key_that_is_nearly_one_of_recboles_is_mentioned(tiny_config, teacher_recipe, caplog):
    with caplog.at_level(logging.WARNING):
        tiny_config(trainer="FreqD", teacher=teacher_recipe, embeding_size=8)
    assert "Unknown key 'embeding_size': RecBole ignores it" in caplog.text
    assert "Did you mean 'embedding_size'?" in caplog.text


def test_such_a_key_is_mentioned_once_however_many_configs_have_it(
    tiny_config, teacher_recipe, caplog
):
    with caplog.at_level(logging.WARNING):
        for seed in (1, 2):
            config = tiny_config(
                trainer="FreqD", teacher=teacher_recipe, embeding_size=8, seed=seed
            )
        make.config_with(config, ["FD"], lerning_rate=0.1)
    assert caplog.text.count("Unknown key 'embeding_size'") == 1
    assert caplog.text.count("Unknown key 'lerning_rate'") == 1


@every_loss
def test_no_key_of_a_method_is_taken_for_an_unknown_one_of_recboles(name, tiny_config, caplog):
    defaults = {key: of_it.default for key, of_it in method_keys(name).items()}
    with caplog.at_level(logging.WARNING):
        tiny_config(trainer=name, teacher={"model": "BPR", "keep_every": 1}, **defaults)
    assert "Unknown key" not in caplog.text
