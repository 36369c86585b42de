"""Teachers of other data: every row is the right user's or item's, or the teacher is refused.

The tiny data is split by files, so that what a teacher has seen is told by the test and not by a
seed. A world is three lists of pairs of tokens: train, valid, test.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_freqd.checkpoint.loading import sidecar_path
from recbole_freqd.config import make
from recbole_freqd.core.errors import TeacherError
from recbole_freqd.features import extract_features
from recbole_freqd.jobs import run as runs
from recbole_freqd.teacher import find_teacher, read_fingerprint
from recbole_freqd.teacher.alignment import Alignment
from recbole_freqd.teacher.leakage import _codes, _held_out

PHASES = ["train", "valid", "test"]
KEYS = {"embedding_size": 6, "epochs": 1, "topk": [10], "valid_metric": "NDCG@10"}
MODELS = {
    "BPR": {},
    "LightGCN": {"n_layers": 2},
    "ItemKNN": {"k": 10},
    "MultiVAE": {"latent_dimension": 8, "mlp_hidden_size": [12]},
}


def write(folder, world, name="tiny"):
    """Writes a world as RecBole's atomic files; returns the data_path."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for phase, pairs in zip(PHASES, world):
        lines = ["user_id:token\titem_id:token", *(f"{user}\t{item}" for user, item in pairs)]
        (folder / name / f"{name}.{phase}.inter").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture(scope="module")
def world():
    """30 users, 40 items in two groups of tastes; 10, 1 and 1 pairs of each user."""
    rng, parts = np.random.default_rng(7), ([], [], [])
    for user in range(30):
        tastes = np.where(np.arange(40) % 2 == user % 2, 5.0, 1.0)
        liked = rng.choice(40, size=12, replace=False, p=tastes / tastes.sum())
        for part, items in zip(parts, (liked[:10], liked[10:11], liked[11:])):
            part += [(f"u{user}", f"i{item}") for item in items]
    return parts


def permuted(world):
    """The same data, written down in another order: every id is another."""
    rng = np.random.default_rng(1)
    return tuple([part[place] for place in rng.permutation(len(part))] for part in world)


def superset(world):
    """Five users and four items more, in front."""
    more = [(f"v{user}", f"i{item}") for user in range(5) for item in range(3, 20)]
    more += [(f"u{user}", f"j{user % 4}") for user in range(30)]
    return more + permuted(world)[0], world[1], world[2]


def without_items(world):
    """A smaller catalogue: no i0 … i9."""
    gone = {f"i{item}" for item in range(10)}
    return tuple([pair for pair in part if pair[1] not in gone] for part in permuted(world))


def partial(world):
    """A third of the users and a quarter of the items are others."""
    swap = {f"u{user}": f"w{user}" for user in range(10)}
    swap.update({f"i{item}": f"k{item}" for item in range(10)})
    return tuple(
        [(swap.get(user, user), swap.get(item, item)) for user, item in part]
        for part in permuted(world)
    )


def disjoint(world):
    return tuple([(f"x{user}", f"x{item}") for user, item in part] for part in world)


WORLDS = {
    "permuted": permuted,
    "superset": superset,
    "subset": without_items,
    "partial": partial,
}


@pytest.fixture
def make_config(host):
    from recbole.config import Config

    def make(data_path, model="BPR", dataset="tiny", **keys):
        base = {
            "data_path": data_path,
            "checkpoint_dir": "saved",
            "load_col": {"inter": ["user_id", "item_id"]},
            "benchmark_filename": PHASES,
            "metrics": ["NDCG", "Recall"],
            "show_progress": False,
            "state": "ERROR",
            "train_batch_size": 128,
        }
        return Config(model, dataset, config_dict={**base, **KEYS, **keys})

    return make


@pytest.fixture
def trained(make_config):
    """The checkpoint of a model that RecBole trained without us."""
    from recbole_freqd.jobs import run as runs

    def train(data_path, model="BPR", **keys):
        config = make_config(data_path, model, **{**MODELS.get(model, {}), **keys})
        return runs.run(config, test=False).trainer.saved_model_file

    return train


@pytest.fixture
def find(make_config):
    """Finds the teacher of a student on some data; returns it and the student's dataset."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    def find(data_path, teacher, model="BPR", **keys):
        config = make_config(data_path, model, trainer="FreqD", teacher=teacher, **keys)
        init_seed(config["seed"], True)
        train_data, valid_data, _ = data_preparation(config, create_dataset(config))
        return find_teacher(config, train_data, valid_data), train_data._dataset

    return find


def rows_by_token(features, dataset):
    """({user token: row}, {item token: row})."""
    tokens = dataset.field2id_token["user_id"], dataset.field2id_token["item_id"]
    return tuple(dict(zip(names[1:], part[1:])) for names, part in zip(tokens, features))


def own_features(path):
    """A teacher's features by token, by RecBole's own way of loading it."""
    from recbole.quick_start import load_data_and_model

    _, model, dataset, *_ = load_data_and_model(path)
    rank = {"rank": 8} if type(model).__name__ == "ItemKNN" else {}
    return rows_by_token(extract_features(model.eval(), with_bias=False, **rank), dataset)


# --- which row is whose ----------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", WORLDS)
def test_every_shared_token_has_the_features_that_the_teachers_own_model_has_for_it(
    world, trained, find, tmp_path, kind, model
):
    path = trained(write(tmp_path / "teacher", WORLDS[kind](world)), model)
    spec = {"checkpoint": path, **({"spectral_rank": 8} if model == "ItemKNN" else {})}
    teacher, dataset = find(write(tmp_path / "student", world), spec)
    counts = [0, 0]
    for side, (ours, theirs) in enumerate(
        zip(rows_by_token(teacher.features, dataset), own_features(path))
    ):
        for token, row in ours.items():
            counts[side] += token in theirs
            expected = theirs.get(token, torch.zeros_like(row))
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-6)
    shared = {"permuted": [30, 40], "superset": [30, 40], "subset": [30, 30], "partial": [20, 30]}
    assert counts == shared[kind]
    if teacher.known is None:
        assert counts == [30, 40]
    else:
        assert [int(mask.sum()) for mask in teacher.known] == counts
        assert not teacher.known[0][0] and not teacher.known[1][0]


def test_what_fits_is_logged_at_info_and_a_partial_overlap_warns_with_counts(
    world, trained, find, tmp_path, caplog
):
    caplog.set_level("INFO")
    student = write(tmp_path / "student", world)
    find(student, {"checkpoint": trained(write(tmp_path / "a", superset(world)))})
    assert "40 of the student's 40 items (100.0%), under other ids: re-mapped" in caplog.text
    path = trained(write(tmp_path / "b", partial(world)))
    caplog.clear()
    find(student, {"checkpoint": path})
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "20 of the student's 30 users (66.7%) and 30 of the student's 40" in record.getMessage()


@pytest.mark.parametrize(("least", "fits"), [(None, True), (0.6, True), (0.7, False), (1.0, False)])
def test_the_least_overlap_is_a_key(world, trained, find, tmp_path, least, fits):
    path = trained(write(tmp_path / "teacher", partial(world)))
    spec = {"checkpoint": path, **({} if least is None else {"min_overlap": least})}
    student = write(tmp_path / "student", world)
    if fits:
        assert find(student, spec)[0].known is not None
    else:
        with pytest.raises(TeacherError, match=r"20 of .* 30 users \(66.7%\).*teacher.min_overlap"):
            find(student, spec)


@pytest.mark.parametrize("least", [0.5, 0.0])
def test_a_teacher_of_other_users_and_items_is_always_refused(
    world, trained, find, tmp_path, least
):
    path = trained(write(tmp_path / "teacher", disjoint(world)))
    with pytest.raises(TeacherError, match=r"knows 0 of .* users \(0.0%\) and 0 .*teacher.model"):
        find(write(tmp_path / "student", world), {"checkpoint": path, "min_overlap": least})


def test_identical_data_is_the_students_own(world, trained, find, tmp_path):
    data = write(tmp_path / "student", world)
    teacher, _ = find(data, {"checkpoint": trained(data)})
    assert teacher.other_data is None and teacher.known is None


@pytest.mark.parametrize("kind", ["permuted", "subset"])
@pytest.mark.parametrize("mapped", [False, True])
def test_half_precision_and_a_mapped_file_stay(world, trained, find, tmp_path, kind, mapped):
    from recbole_freqd.core.rows import is_mapped

    spec = {"checkpoint": trained(write(tmp_path / "teacher", WORLDS[kind](world)))}
    student = write(tmp_path / "student", world)
    plain, _ = find(student, spec)
    small, _ = find(student, {**spec, "precision": "float16", "memory_map": mapped})
    for half, single in zip(small.features, plain.features):
        assert half.dtype == torch.float16 and is_mapped(half) is mapped
        assert torch.equal(half, single.half())


@pytest.mark.parametrize(
    ("rows", "sizes", "in_order", "complete"),
    [
        ([0, 1, 2], 3, True, True),
        ([0, 2, 1], 3, False, True),
        ([0, 1, 2], 4, False, True),
        ([0, 1, 0], 3, False, False),
    ],
)
def test_an_alignment_knows_its_kind(rows, sizes, in_order, complete):
    alignment = Alignment((np.array(rows), np.array([0, 1])), (sizes, 2))
    assert (alignment.is_in_order, alignment.is_complete) == (in_order, complete)
    back = alignment.student_ids(0)
    assert all(rows[student] == theirs for theirs, student in enumerate(back) if student)


def test_finding_a_teacher_of_other_data_moves_no_random_stream(world, trained, find, tmp_path):
    path = trained(write(tmp_path / "teacher", superset(world)))
    student = write(tmp_path / "student", world)
    find(student, {"checkpoint": path})
    torch.manual_seed(3)
    np.random.seed(3)
    after = []
    for spec in ({"checkpoint": path}, {"model": "BPR", "epochs": 1}):
        find(student, spec)  # sets the seed of the config first
        after.append((torch.rand(1).item(), np.random.rand()))
    assert after[0] == after[1]


# --- a permuted teacher teaches the same -----------------------------------------------------


@pytest.fixture
def twins(world, trained, tmp_path):
    """A teacher, and itself with its rows in the order of data written down otherwise."""

    def make(model):
        data = [write(tmp_path / "one", world), write(tmp_path / "other", permuted(world))]
        one, trained_on_other = (trained(folder, model) for folder in data)
        own, other = (torch.load(path, weights_only=False) for path in (one, trained_on_other))
        from recbole.data import create_dataset

        ids = [create_dataset(payload["config"]) for payload in (own, other)]
        for side in ("user", "item"):
            tokens = ids[1].field2id_token[f"{side}_id"]
            order = [ids[0].field2token_id[f"{side}_id"][token] for token in tokens]
            name = f"{side}_embedding.weight"
            other["state_dict"][name] = own["state_dict"][name][order]
        other["other_parameter"] = {}
        other["best_valid_score"] = own["best_valid_score"]
        torch.save(other, trained_on_other, pickle_protocol=4)
        return data[0], one, trained_on_other

    return make


def test_a_permuted_teacher_makes_bit_for_bit_the_same_student(twins, make_config):
    from recbole_freqd.jobs import run as runs

    data, *paths = twins("BPR")
    ends = []
    for path in paths:
        config = make_config(data, epochs=2, trainer="FreqD", teacher={"checkpoint": path})
        run = runs.run(config)
        model, results = runs.evaluate_teacher(run, 1, 2)
        assert type(model).__name__ == "BPR"
        ends.append((run.model.state_dict(), run.test_result, results))
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in ends[0][0])
    assert ends[0][1:] == ends[1][1:]  # and the teachers' own metrics


def test_a_permuted_graph_teacher_has_the_same_features(twins, find):
    data, *paths = twins("LightGCN")
    one, other = (find(data, {"checkpoint": path})[0].features for path in paths)
    for ours, theirs in zip(one, other):
        torch.testing.assert_close(ours[1:], theirs[1:], rtol=1e-5, atol=1e-6)


# --- what the teacher does not know contributes nothing --------------------------------------


@pytest.mark.parametrize("student", ["BPR", "MultiVAE", "LightGCN"])
@pytest.mark.parametrize("method", ["FreqD", "FD"])
def test_an_unknown_entity_has_no_part_in_value_gradient_or_graph(
    world, make_config, tmp_path, method, student
):
    from recbole.data import create_dataset, data_preparation

    from recbole_freqd.core.rows import FeatureRows
    from recbole_freqd.features import EmbeddingTables
    from recbole_freqd.trainer.distiller import Distiller

    config = make_config(
        write(tmp_path / "student", world), student, trainer=method, teacher={"model": "BPR"},
    )  # fmt: skip
    train_data, *_ = data_preparation(config, create_dataset(config))
    dataset, unknown = train_data._dataset, (np.arange(1, 31, 3), np.arange(1, 41, 4))
    known = np.arange(31) > 0, np.arange(41) > 0
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(n, 8, generator=generator) for n in (31, 41)]
    tables = [torch.randn(n, 6, generator=generator, requires_grad=True) for n in (31, 41)]
    for mask, part, ids in zip(known, features, unknown):
        mask[ids] = False
        part[ids] = 0.0

    class Widths(EmbeddingTables):
        def rows(self, model):
            return FeatureRows.of_tables(*tables)

    def terms(teacher):
        torch.manual_seed(0)
        np.random.seed(0)
        train_data.generator.manual_seed(0)
        model = torch.nn.Linear(1, 1)
        model.device = torch.device("cpu")
        distiller = Distiller(config, [method], model, Widths(), dataset, tuple(teacher), known)
        total = sum(
            distiller(FeatureRows.of_tables(*tables), batch)[method] for batch in train_data
        )
        return total, distiller.losses[method]

    value, loss = terms(features)
    gradients = torch.autograd.grad(value, tables)
    for gradient, ids in zip(gradients, unknown):
        assert (gradient[ids] == 0).all() and gradient.abs().sum() > 0
    if method == "FreqD":
        for side, ids in zip(("user", "item"), unknown):
            graph = loss.graphs[side]
            assert (np.diff(graph.indptr)[ids] == 0).all() and not np.isin(graph.indices, ids).any()
    for part, ids in zip(features, unknown):
        part[ids] = 99.0
    assert terms(features)[0] == value


def test_a_student_is_distilled_from_a_teacher_that_knows_a_part(
    world, trained, make_config, tmp_path, caplog
):
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.jobs.rows import Row, int8_row, teacher_rows

    path = trained(write(tmp_path / "teacher", partial(world)))
    config = make_config(
        write(tmp_path / "student", world), trainer="FreqD", teacher={"checkpoint": path},
    )  # fmt: skip
    run = runs.run(config)
    assert run.test_result["ndcg@10"] > 0
    assert runs.evaluate_teacher(run, 1, 2)[1] == [{}, {}]
    assert "is not evaluated: it does not know 10 of the users and 10 of the items" in caplog.text
    (row,) = teacher_rows(run.data, run.trainer.teacher)
    assert row.values["test"] == {} and row.values["size_mb"] > 0
    assert isinstance(int8_row(run.data, run.trainer.teacher), Row)


def test_in_a_step_an_unknown_user_learns_what_it_would_learn_alone(
    world, trained, make_config, tmp_path
):
    from recbole_freqd.jobs import run as runs

    path = trained(write(tmp_path / "teacher", partial(world)))
    student = write(tmp_path / "student", world)
    config = make_config(
        student, trainer="FreqD", teacher={"checkpoint": path}, train_batch_size=10**4
    )
    distilled, alone = runs.run(config, test=False), runs.run(make.alone_config(config), test=False)
    known = distilled.trainer.teacher.known
    for side, mask in zip(("user", "item"), known):
        name = f"{side}_embedding.weight"
        same = (distilled.model.state_dict()[name] == alone.model.state_dict()[name]).all(1).numpy()
        assert same[~mask].all() and not same[mask].any()


def test_a_teacher_of_other_users_can_teach_the_items_alone(world, trained, make_config, tmp_path):
    from recbole_freqd.jobs import run as runs

    strangers = tuple([(f"x{user}", item) for user, item in part] for part in world)
    path = trained(write(tmp_path / "teacher", strangers))
    teacher = {"checkpoint": path, "min_overlap": 0.0}
    for model in ("BPR", "MultiVAE"):
        keys = {**MODELS[model], "trainer": "FreqD", "teacher": teacher}
        run = runs.run(make_config(write(tmp_path / "student", world), model, **keys), test=False)
        assert np.isfinite(run.best_valid_score)


# --- evaluation of a teacher of other data ---------------------------------------------------


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:recbole")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["superset", "subset"])
def test_a_teacher_of_other_data_scores_the_students_pairs_as_its_own_model_does(
    world, trained, find, tmp_path, kind, model
):
    from recbole.data.interaction import Interaction
    from recbole.quick_start import load_data_and_model

    path = trained(write(tmp_path / "teacher", WORLDS[kind](world)), model)
    spec = {"checkpoint": path, **({"spectral_rank": 8} if model == "ItemKNN" else {})}
    teacher, dataset = find(write(tmp_path / "student", world), spec)
    _, own, own_data, *_ = load_data_and_model(path)
    own.eval()
    translated = teacher.model(dataset)
    with torch.no_grad():
        scores = translated.full_sort_predict(Interaction({"user_id": torch.arange(1, 31)}))
    scores = scores.view(30, 41)
    for user in ("u0", "u7", "u29"):
        own_id = torch.tensor([own_data.token2id("user_id", user)])
        with torch.no_grad():
            expected = own.full_sort_predict(Interaction({"user_id": own_id})).view(-1)
        row = scores[dataset.token2id("user_id", user) - 1]
        ids = torch.arange(1, 41)
        users = torch.full((40,), dataset.token2id("user_id", user))
        with torch.no_grad():
            pairwise = translated.predict(Interaction({"user_id": users, "item_id": ids}))
        for item in ids.tolist():
            token = dataset.field2id_token["item_id"][item]
            if token not in own_data.field2token_id["item_id"]:
                assert row[item] == pairwise[item - 1] == -torch.inf
                continue
            score = expected[own_data.token2id("item_id", token)]
            torch.testing.assert_close(row[item], score, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(pairwise[item - 1], score, rtol=1e-4, atol=1e-5)


def test_other_names_of_fields_do_not_matter(world, trained, make_config, tmp_path):
    from recbole_freqd.jobs import run as runs

    data = write(tmp_path / "teacher", superset(world))
    for file in (tmp_path / "teacher" / "tiny").iterdir():
        file.write_text(file.read_text().replace("user_id:token\titem_id", "uid:token\tiid"))
    names = {"USER_ID_FIELD": "uid", "ITEM_ID_FIELD": "iid", "load_col": {"inter": ["uid", "iid"]}}
    student = write(tmp_path / "student", world)
    tests = []
    for keys in (names, {}):
        path = trained(data, **keys)
        config = make_config(student, trainer="FreqD", teacher={"checkpoint": path})
        run = runs.run(config)
        tests.append((run.test_result, runs.evaluate_teacher(run, 2)[1]))
        write(tmp_path / "teacher", superset(world))
    assert tests[0] == tests[1]


def test_unknown_items_are_ranked_last_and_the_log_says_so(
    world, trained, make_config, tmp_path, caplog
):
    from recbole_freqd.jobs import run as runs

    path = trained(write(tmp_path / "teacher", without_items(world)))
    config = make_config(
        write(tmp_path / "student", world), trainer="FreqD", teacher={"checkpoint": path},
    )  # fmt: skip
    _, (test,) = runs.evaluate_teacher(runs.run(config), 2)
    assert 0 <= test["ndcg@10"] <= 1
    assert "10 of the items, which are ranked last" in caplog.text


def test_the_run_function_gives_no_result_of_a_teacher_it_cannot_evaluate(
    world, trained, tmp_path, monkeypatch
):
    from recbole_freqd import run_recbole_freqd

    path = trained(write(tmp_path / "teacher", partial(world)))
    result = run_recbole_freqd(
        "BPR", "tiny",
        config_dict={
            "data_path": write(tmp_path / "student", world), "benchmark_filename": PHASES,
            "load_col": {"inter": ["user_id", "item_id"]}, "show_progress": False,
            "state": "ERROR", "epochs": 1, "embedding_size": 4, "trainer": "FreqD",
            "teacher": {"checkpoint": path},
        },
    )  # fmt: skip
    assert result["teacher_test_result"] is None and result["test_result"]["ndcg@10"] >= 0


# --- leakage ---------------------------------------------------------------------------------


def leaking(world, n_valid, n_test):
    return world[0] + world[1][:n_valid] + world[2][:n_test], world[1], world[2]


@pytest.mark.parametrize("model", ["BPR", "MultiVAE"])
@pytest.mark.parametrize(
    ("n_valid", "n_test", "words"),
    [
        (3, 0, [r"3 of the student's 30 validation pairs \(10.0%\)"]),
        (0, 6, [r"6 of the student's 30 test pairs \(20.0%\)"]),
        (30, 1, [r"30 validation pairs \(100.0%\) and 1 of .* test pairs \(3.3%\)"]),
    ],
)
def test_any_leak_is_refused_with_its_exact_figure_unless_allowed(
    world, trained, find, tmp_path, caplog, n_valid, n_test, words, model
):
    path = trained(write(tmp_path / "teacher", leaking(world, n_valid, n_test)))
    student = write(tmp_path / "student", world)
    for pattern in words:
        with pytest.raises(TeacherError, match=f"{pattern}.*teacher.allow_leakage: true"):
            find(student, {"checkpoint": path}, model)
        teacher, _ = find(student, {"checkpoint": path, "allow_leakage": True}, model)
        assert teacher.origin == "checkpoint" and "metrics are too good" in caplog.text


def test_a_leak_is_inherited_by_the_students_of_a_teacher_that_had_one(
    world, trained, make_config, find, tmp_path, caplog
):
    path = trained(write(tmp_path / "teacher", leaking(world, 0, 6)))
    student = write(tmp_path / "student", world)
    lax = {"checkpoint": path, "allow_leakage": True}
    run = runs.run(make_config(student, trainer="FreqD", teacher=lax), test=False)
    taught = run.trainer.saved_model_file
    with pytest.raises(TeacherError, match="was itself taught with teacher.allow_leakage: true"):
        find(student, {"checkpoint": taught})
    caplog.clear()
    assert find(student, {**lax, "checkpoint": taught})[0].origin == "checkpoint"
    assert "was itself taught" in caplog.text and "metrics are too good" in caplog.text
    idle = {"model": "BPR", "embedding_size": 8, "epochs": 1, "allow_leakage": True}
    run = runs.run(make_config(student, trainer="FreqD", teacher=idle), test=False)
    assert find(student, {"checkpoint": run.trainer.saved_model_file})[0].origin == "checkpoint"


def test_pairs_that_the_student_is_trained_on_are_no_leak(world, trained, find, tmp_path):
    twice = (world[0] + world[2][:5], world[1], world[2])  # tested, but the student knows them too
    path = trained(write(tmp_path / "teacher", (permuted(twice)[0], world[1], world[2])))
    assert find(write(tmp_path / "student", twice), {"checkpoint": path})[0].origin == "checkpoint"


def test_another_seed_with_the_same_split_is_no_leak(world, trained, find, tmp_path):
    data = write(tmp_path / "student", world)
    teacher, _ = find(data, {"checkpoint": trained(data, seed=5)})
    assert teacher.other_data is None


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("mode", ["full", "uni5"])
@pytest.mark.parametrize("model", ["BPR", "MultiVAE", "EASE", "ENMF", "CDAE"])
def test_test_pairs_are_found_through_the_loaders_that_a_trainer_sees(
    tiny_config, model, mode, repeatable
):
    from recbole.data import create_dataset, data_preparation

    config = tiny_config(model, eval_args={"mode": mode}, repeatable=repeatable)
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    held = _held_out(train_data, valid_data, 41)
    assert sorted(held["test"]) == sorted(_codes(test_data._dataset, 41))
    assert sorted(held["validation"]) == sorted(_codes(valid_data._dataset, 41))


def test_where_the_test_pairs_cannot_be_read_all_that_may_be_one_is_refused(
    world, trained, make_config, tmp_path
):
    from recbole.data import create_dataset, data_preparation

    path = trained(write(tmp_path / "teacher", leaking(world, 0, 4)))
    config = make_config(
        write(tmp_path / "student", world), trainer="FreqD", teacher={"checkpoint": path},
    )  # fmt: skip
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    train_data._sampler = valid_data._sampler = None
    with pytest.raises(TeacherError, match="4 pairs that are not in .* may be among its test pai"):
        find_teacher(config, train_data, valid_data)
    with pytest.raises(TeacherError, match="4 pairs .* its validation and test pairs"):
        find_teacher(config, train_data, None)


@pytest.mark.parametrize("eval_args", [{}, {"split": {"LS": "valid_and_test"}}])
def test_a_random_split_of_recbole_is_made_again_from_its_seed(tiny_config, eval_args):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    from recbole_freqd.jobs import run as runs

    keys = {"eval_args": eval_args} if eval_args else {}
    own = runs.run(tiny_config(seed=1, **keys), test=False)
    path = own.trainer.saved_model_file
    config = tiny_config(trainer="FreqD", teacher={"checkpoint": path}, **keys)
    init_seed(config["seed"], True)
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    seen = set(_codes(own.data[0]._dataset, 41))
    count = sum(code in seen for code in _codes(test_data._dataset, 41))
    total = len(test_data._dataset)
    words = rf"{count} of the student's {total} test pairs \({count / total:.1%}\).*seed 1 there"
    with pytest.raises(TeacherError, match=words):
        find_teacher(config, train_data, valid_data)


# --- data gone, data changed, sidecar gone ---------------------------------------------------


@pytest.fixture
def ours(make_config):
    """A student of ours, which is the teacher to be, and the recipe teacher it learned from."""
    from recbole_freqd.jobs import run as runs

    def distil(data_path, **keys):
        teacher = {"model": "BPR", "embedding_size": 8, "epochs": 1}
        run = runs.run(make_config(data_path, trainer="FreqD", teacher=teacher, **keys), test=False)
        return {
            "student": run.trainer.saved_model_file,
            "recipe": run.trainer.teacher.checkpoint,
        }

    return distil


def test_a_checkpoint_of_recbole_without_its_data_is_refused(world, trained, find, tmp_path):
    path = trained(write(tmp_path / "teacher", world))
    shutil.rmtree(tmp_path / "teacher")
    student = write(tmp_path / "student", world, name="other")
    with pytest.raises(TeacherError, match=r"tiny.train.inter.* is not there.*teacher.model"):
        find(student, {"checkpoint": path}, dataset="other")


@pytest.mark.parametrize("kind", ["student", "recipe"])
def test_a_checkpoint_of_ours_needs_its_data_only_where_it_differs(
    world, ours, find, tmp_path, kind
):
    path = ours(write(tmp_path / "teacher", world))[kind]
    shutil.rmtree(tmp_path / "teacher")
    same = write(tmp_path / "same", world, name="other")
    teacher, _ = find(same, {"checkpoint": path}, dataset="other")
    assert teacher.other_data is None
    other = write(tmp_path / "other", permuted(world), name="other")
    with pytest.raises(TeacherError, match=r"is not there.*teacher.model"):
        find(other, {"checkpoint": path}, dataset="other")


@pytest.mark.parametrize("kind", ["student", "recipe"])
@pytest.mark.parametrize("sidecar", [True, False])
def test_a_checkpoint_of_ours_is_mapped_with_and_without_its_sidecar(
    world, ours, find, tmp_path, kind, sidecar
):
    path = ours(write(tmp_path / "teacher", superset(world)))[kind]
    beside = Path(sidecar_path(path)) if kind == "student" else Path(path).with_suffix(".json")
    assert beside.is_file()
    if not sidecar:
        beside.unlink()
    teacher, dataset = find(write(tmp_path / "student", world), {"checkpoint": path})
    for part, theirs in zip(rows_by_token(teacher.features, dataset), own_features(path)):
        assert all(torch.equal(row, theirs[token]) for token, row in part.items())


def test_sidecars_say_what_the_data_was_and_need_no_pickle(world, ours, find, tmp_path):
    paths = ours(write(tmp_path / "teacher", world))
    state = torch.load(sidecar_path(paths["student"]), weights_only=True)
    assert sorted(state["data"]) == ["filters", "split", "tokens", "train"]
    identity = json.loads(Path(paths["recipe"]).with_suffix(".json").read_text())["identity"]
    assert {"tokens", "train", "valid", "columns"} == set(identity["data"])
    assert {"seed", "eval_args", "user_inter_num_interval"} <= set(identity["config"])
    assert len({tuple(read_fingerprint(path).values()) for path in paths.values()}) == 1


@pytest.mark.parametrize("change", [permuted, superset])
def test_data_that_changed_since_a_teacher_of_ours_was_trained_is_refused(
    world, ours, find, tmp_path, change
):
    data = write(tmp_path / "teacher", world)
    path = ours(data)["student"]
    write(tmp_path / "teacher", change(world))
    with pytest.raises(TeacherError, match="has changed since it was trained.*teacher.model"):
        find(write(tmp_path / "student", permuted(world)), {"checkpoint": path})


def test_other_interactions_of_the_same_tokens_are_refused_unless_leakage_is_allowed(
    world, ours, find, tmp_path, caplog
):
    data = write(tmp_path / "teacher", world)
    path = ours(data)["recipe"]
    write(tmp_path / "teacher", (world[0] + world[0][:1], world[1], world[2]))
    student = write(tmp_path / "student", permuted(world))
    with pytest.raises(TeacherError, match="other training interactions.*teacher.allow_leakage"):
        find(student, {"checkpoint": path})
    teacher, _ = find(student, {"checkpoint": path, "allow_leakage": True})
    assert teacher.other_data is not None and "test pairs is unknown" in caplog.text


def test_data_that_changed_since_recbole_trained_is_told_by_the_validation_score(
    world, trained, find, tmp_path, caplog
):
    caplog.set_level("INFO")
    data = write(tmp_path / "teacher", world)
    path = trained(data, epochs=30, learning_rate=0.01)
    student = write(tmp_path / "student", world)
    find(student, {"checkpoint": path})
    assert "has its validation NDCG@10 again" in caplog.text
    write(tmp_path / "teacher", permuted(world))  # the same sizes: nothing else would tell
    with pytest.raises(TeacherError, match="had a validation NDCG@10 of .*teacher.model"):
        find(student, {"checkpoint": path})


@pytest.mark.parametrize(("score", "now"), [(0.0005, 0.0004), (0.0005, 0.0012), (0.0030, 0.0012)])
def test_a_score_so_low_that_other_data_would_have_it_is_no_proof(
    world, trained, find, tmp_path, monkeypatch, caplog, score, now
):
    path = trained(write(tmp_path / "teacher", world))
    student = write(tmp_path / "student", permuted(world))
    monkeypatch.setattr("recbole_freqd.teacher.unchanged._score_of_old", lambda stored: score)
    monkeypatch.setattr("recbole_freqd.teacher.unchanged._validation_score", lambda *_: now)
    if now == 0.0004:
        words = "cannot be checked, since its checkpoint has a validation NDCG@10 of"
        with pytest.raises(TeacherError, match=f"{words}.*teacher.trust_data: true"):
            find(student, {"checkpoint": path})
        find(student, {"checkpoint": path, "trust_data": True})
        assert words in caplog.text
    else:
        with pytest.raises(TeacherError, match="had a validation NDCG@10 of"):
            find(student, {"checkpoint": path})


def test_a_split_that_is_not_that_of_the_seed_is_told_by_the_validation_score(tiny_config, host):
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    keys = {"epochs": 40, "learning_rate": 0.02}
    stock = tiny_config(seed=3, **keys)
    init_seed(99, True)  # a script that forgot, or had drawn numbers before
    train_data, valid_data, _ = data_preparation(stock, create_dataset(stock))
    trainer = Trainer(stock, stock.model_class(stock, train_data._dataset))
    trainer.fit(train_data, valid_data, verbose=False)
    config = tiny_config(trainer="FreqD", seed=3, teacher={"checkpoint": trainer.saved_model_file})
    init_seed(3, True)
    loaders = data_preparation(config, create_dataset(config))[:2]
    with pytest.raises(TeacherError, match="files or split have changed"):
        find_teacher(config, *loaders)


UNPROVEN = {
    "validated by sampled items": {"eval_args": {"mode": {"valid": "uni5", "test": "full"}}},
    "validated by the popular": {"eval_args": {"mode": {"valid": "pop5", "test": "full"}}},
    "never validated": {"eval_step": 0},
    "scored by chance": {"model": "Random"},
}


@pytest.mark.parametrize("change", [None, permuted, superset])
@pytest.mark.parametrize("keys", UNPROVEN.values(), ids=UNPROVEN)
def test_a_teacher_whose_data_nothing_proves_is_refused_unless_the_user_trusts_it(
    world, trained, find, tmp_path, caplog, keys, change
):
    path = trained(write(tmp_path / "teacher", world), **keys)
    student = write(tmp_path / "student", world)
    if change is not None:
        write(tmp_path / "teacher", change(world))
    spec = {"checkpoint": path, **({"spectral_rank": 5} if "model" in keys else {})}
    for lax in ({}, {"allow_leakage": True}):  # that is another question
        words = "cannot be checked.*teacher.trust_data: true"
        if change is superset:
            words = f"{words}|does not fit its data"  # of Random there is nothing that could
        with pytest.raises(TeacherError, match=words):
            find(student, {**spec, **lax})
    if change is superset and keys.get("model") != "Random":
        return
    teacher, _ = find(student, {**spec, "trust_data": True})
    assert teacher.origin == "checkpoint" and "cannot be checked" in caplog.text


def test_a_key_takes_no_data_that_is_known_to_be_another(world, trained, ours, find, tmp_path):
    data = write(tmp_path / "teacher", world)
    stock, own = trained(data, epochs=30, learning_rate=0.01), ours(data)["student"]
    write(tmp_path / "teacher", permuted(world))
    student = write(tmp_path / "student", permuted(world))
    for path, words in ((stock, "had a validation NDCG@10 of"), (own, "has changed since")):
        with pytest.raises(TeacherError, match=words):
            find(student, {"checkpoint": path, "trust_data": True, "allow_leakage": True})


def test_a_fingerprint_proves_what_no_score_can(world, ours, find, tmp_path):
    data = write(tmp_path / "teacher", world)
    for path in ours(data, eval_args={"mode": "uni5"}).values():
        teacher, _ = find(write(tmp_path / "student", permuted(world)), {"checkpoint": path})
        assert teacher.origin == "checkpoint"


def test_data_that_moved_is_read_where_the_student_has_it(world, trained, find, tmp_path):
    data = write(tmp_path / "teacher", world)
    path = trained(data, epochs=30, learning_rate=0.01)
    shutil.rmtree(tmp_path / "teacher")
    teacher, _ = find(write(tmp_path / "student", world), {"checkpoint": path})
    assert teacher.other_data is None
    with pytest.raises(TeacherError, match="had a validation NDCG@10 of"):
        find(write(tmp_path / "otherwise", permuted(world)), {"checkpoint": path})


def test_a_stored_config_makes_nothing_be_unpickled(world, trained, find, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    import pickle

    path = trained(write(tmp_path / "teacher", permuted(world)))
    bomb = tmp_path / "bomb.pth"
    bomb.write_bytes(pickle.dumps(Bomb()))
    payload = torch.load(path, weights_only=False)
    for key in ("dataset_save_path", "dataloaders_save_path"):
        payload["config"][key] = str(bomb)
    torch.save(payload, path, pickle_protocol=4)
    find(write(tmp_path / "student", world), {"checkpoint": path})
    assert not (tmp_path / "exploded").exists()


# --- real data: subsets of ml-100k -----------------------------------------------------------


@pytest.fixture(scope="module")
def ml_100k():
    """ml-100k as pairs of tokens in the order of the file, each with its split: 8 : 1 : 1."""
    import recbole

    folder = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
    lines = (folder / "ml-100k.inter").read_text().splitlines()[1:]
    pairs = [tuple(line.split("\t")[:2]) for line in lines]
    return pairs, np.random.default_rng(0).choice(3, size=len(pairs), p=[0.8, 0.1, 0.1])


def of_ml_100k(ml_100k, users, items, order=1):
    """The part of ml-100k with these users and items, as a world; ``order`` -1: from behind."""
    pairs, phases = ml_100k
    world = [[], [], []]
    for pair, phase in list(zip(pairs, phases))[::order]:
        if int(pair[0]) in users and int(pair[1]) in items:
            world[phase].append(pair)
    return world


STUDENT = range(1, 301), range(1, 401)
REAL = {  # users, items, order, shares of the student's 300 users and 400 items
    "permuted": (range(1, 301), range(1, 401), -1, (1.0, 1.0)),
    "superset": (range(1, 601), range(1, 1001), -1, (1.0, 1.0)),
    "subset": (range(1, 301), range(1, 301), 1, (1.0, 0.75)),
    "partial": (range(101, 500), range(101, 700), -1, (200 / 300, 0.75)),
    "disjoint": (range(301, 944), range(401, 1683), 1, None),
    "too little": (range(201, 944), range(1, 1683), 1, None),
}


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize(
    "model",
    ["BPR", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "BPR")],
)
def test_teachers_of_other_parts_of_ml_100k_fit_or_are_refused(
    ml_100k, trained, find, tmp_path, kind, model
):
    users, items, order, shares = REAL[kind]
    world = of_ml_100k(ml_100k, users, items, order)
    path = trained(write(tmp_path / "teacher", world), model, train_batch_size=2048)
    spec = {"checkpoint": path, **({"spectral_rank": 8} if model == "ItemKNN" else {})}
    student = write(tmp_path / "student", of_ml_100k(ml_100k, *STUDENT))
    if shares is None:
        with pytest.raises(TeacherError, match="knows .* of the student's 300 users"):
            find(student, spec)
        return
    teacher, dataset = find(student, spec)
    known = [np.arange(n) > 0 for n in (301, 401)] if teacher.known is None else teacher.known
    assert tuple(mask[1:].mean() for mask in known) == pytest.approx(shares, abs=0.01)
    for ours, theirs in zip(rows_by_token(teacher.features, dataset), own_features(path)):
        for token, row in ours.items():
            expected = theirs.get(token, torch.zeros_like(row))
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [2021])
def test_on_ml_100k_a_teacher_of_another_seed_has_seen_four_fifths_of_the_test(
    host, seed, tmp_path
):
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    from recbole_freqd.jobs import run as runs

    keys = {
        "embedding_size": 4, "epochs": 1, "train_batch_size": 8192, "show_progress": False,
        "state": "ERROR", "eval_batch_size": 10**6,
    }  # fmt: skip
    own = runs.run(Config("BPR", "ml-100k", config_dict={**keys, "seed": seed}), test=False)
    teacher = {"checkpoint": own.trainer.saved_model_file}
    config = Config("BPR", "ml-100k", config_dict={**keys, "trainer": "FreqD", "teacher": teacher})
    init_seed(config["seed"], True)
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    seen = set(_codes(own.data[0]._dataset, 1683).tolist())
    test = _codes(test_data._dataset, 1683).tolist()
    count = len(seen.intersection(test))
    assert 0.79 < count / len(test) < 0.82
    words = f"{count:,} of the student's {len(test):,} test pairs"
    with pytest.raises(TeacherError, match=words):
        find_teacher(config, train_data, valid_data)
    config["teacher"]["allow_leakage"] = True
    assert find_teacher(config, train_data, valid_data).origin == "checkpoint"


def test_a_model_asked_by_forward_answers_in_the_students_ids():
    from recbole_freqd.teacher.alignment import Translated

    class Own(torch.nn.Module):
        def forward(self, users, items):
            return 10.0 * users + items

    alignment = Alignment((np.array([0, 2, 1]), np.array([0, 3, 0, 1])), (3, 4))
    config = {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "device": "cpu"}
    users, items = torch.tensor([1, 1, 2, 2]), torch.tensor([1, 2, 3, 0])
    scores = Translated(Own(), alignment, config).forward(users, items)
    assert scores.tolist() == [23.0, -float("inf"), 11.0, -float("inf")]


def test_in_a_team_a_member_says_nothing_of_whom_it_does_not_know(world, trained, find, tmp_path):
    there = trained(write(tmp_path / "there", partial(world)))
    here = write(tmp_path / "here", world)
    stranger, knn = {"checkpoint": there, "min_overlap": 0.1}, {"model": "ShrunkKNN"}
    team, dataset = find(here, [stranger, knn], teacher_weights=[1, 1])
    (one, _), (other, _) = find(here, stranger), find(here, knn)
    users, items = one.known
    everyone = torch.arange(len(users))
    seen = dataset.inter_matrix(form="csr").toarray() != 0
    y = np.zeros((len(users), len(items)))
    for teacher, known in ((one, (users, items)), (other, None)):
        scores = teacher.ranker(dataset).block(everyone).double().numpy()
        user, item = known or (np.arange(len(users)) > 0, np.arange(len(items)) > 0)
        for u in np.flatnonzero(user):
            counts = item & ~seen[u]
            z = (scores[u] - scores[u][counts].mean()) / scores[u][counts].std()
            y[u] += 0.5 * np.where(item, z, 0.0)
    got = team.ranker(dataset).block(everyone).numpy()
    np.testing.assert_allclose(got[1:, 1:], (y * team.factor)[1:, 1:], atol=1e-4)
    width = one.features[0].shape[1]
    for table, mask in zip(team.features, one.known):
        strangers = torch.from_numpy(~mask)
        assert not table[strangers][:, :width].any() and table[strangers][1:].any()
    assert team.known is None  # the other one knows everybody
    alone, _ = find(here, [stranger, knn], teacher_weights=[1, 0])
    assert np.array_equal(alone.known[0], users) and np.array_equal(alone.known[1], items)
