"""Teachers from files: what they know, what they score, and what is said of what they have seen."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import recbole_freqd
from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.core.rankers import FeatureRanker, top_items
from recbole_freqd.core.rows import is_mapped
from recbole_freqd.features import extract_features
from recbole_freqd.features.data import tokens, training_matrix
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.rows import teacher_rows
from recbole_freqd.teacher.files.files import from_lists, from_vectors


@pytest.fixture
def taught(tiny_config):
    """A finished run of a model, and its export and lists: ``taught("BPR")``."""

    def train(model="BPR", **keys):
        run = runs.run(tiny_config(model, **keys))
        recbole_freqd.export(run.trainer.saved_model_file, "vectors", overwrite=True)
        recbole_freqd.recommend(run.trainer.saved_model_file, "lists.csv", top=10)
        return run

    return train


def vectors_teacher(run, folder="vectors", **spec):
    return from_vectors(run.config, {"vectors": folder, **spec}, *run.data[:2])


def lists_teacher(run, path="lists.csv", **spec):
    return from_lists(run.config, {"lists": path, **spec}, *run.data[:2])


def edit(path, change):
    """Rewrites a file of lists line by line; ``change`` gives lines for a line."""
    head, *lines = Path(path).read_text().splitlines()
    kept = [other for line in lines for other in change(*line.split(","))]
    Path("edited.csv").write_text("\n".join([head, *(",".join(line) for line in kept)]) + "\n")
    return "edited.csv"


# --- vectors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "FISM", "MultiVAE"])
def test_an_exported_student_is_the_teacher_that_it_was(taught, model, caplog):
    run = taught(model)
    teacher, dataset = vectors_teacher(run), run.data[0]._dataset
    for found, own in zip(teacher.features, extract_features(run.model, with_bias=False)):
        assert torch.equal(found[1:], own[1:])
    users, items = extract_features(run.model, with_bias=True)
    everybody = torch.arange(1, len(users))
    torch.testing.assert_close(
        teacher.ranker(dataset).block(everybody)[:, 1:], (users @ items.T)[1:, 1:]
    )
    assert teacher.known is None and "cannot be checked" not in caplog.text


def test_its_metrics_are_those_that_the_student_had(taught):
    run = taught()
    recbole_freqd.recommend(run.trainer.saved_model_file, "lists.csv", top=40)
    for teacher in (vectors_teacher(run), lists_teacher(run)):
        model, (test,) = runs.evaluate_on(run.data, teacher, 2)
        assert test == pytest.approx(run.test_result, abs=1e-4)
        assert model.n_items == run.model.n_items


def test_users_and_items_are_matched_by_token_and_the_unknown_are_not_taught(taught, caplog):
    run = taught()
    own = extract_features(run.model, with_bias=False)
    names = [side[1:].astype(str) for side in tokens(run.data[0]._dataset)]
    order = [np.random.default_rng(0).permutation(len(side)) for side in names]
    order[1] = order[1][:25]
    Path("other").mkdir()
    for side, rows, tokens_, table in zip(("users", "items"), order, names, own):
        np.savez(f"other/{side}.npz", tokens=tokens_[rows], vectors=table[1:][rows].numpy())
    teacher = vectors_teacher(run, "other")
    assert teacher.known[0][1:].all() and teacher.known[1].sum() == 25
    assert torch.equal(teacher.features[0][1:], own[0][1:])
    known = torch.from_numpy(teacher.known[1])
    assert torch.equal(teacher.features[1][known], own[1][known])
    assert not teacher.features[1][~known].any()
    scores = teacher.ranker(None).block(torch.tensor([3, 8]))
    assert scores[:, ~known].isneginf().all() and scores[:, known].isfinite().all()
    assert "cannot be checked" in caplog.text
    with pytest.raises(TeacherError, match=r"25 of the student's 40 items \(62.5%\).*min_overlap"):
        vectors_teacher(run, "other", min_overlap=0.7)


def test_vectors_of_another_split_are_refused_and_allowed(taught, tiny_config):
    taught(seed=1)
    run = runs.run(tiny_config())
    with pytest.raises(TeacherError, match="other pairs.*allow_leakage"):
        vectors_teacher(run)
    with pytest.raises(TeacherError, match="other pairs.*allow_leakage"):
        lists_teacher(run)
    assert vectors_teacher(run, allow_leakage=True).known is None


def test_half_precision_halves_the_features_and_a_rank_is_refused(taught):
    run = taught()
    assert vectors_teacher(run, precision="float16").features[0].dtype == torch.float16
    for kind in ("float32", "float16"):
        mapped = vectors_teacher(run, precision=kind, memory_map=True)
        tables = *mapped.features, *mapped.ranker(None).factors()
        assert all(map(is_mapped, tables))
        plain = vectors_teacher(run, precision=kind)
        assert all(map(torch.equal, mapped.features, plain.features))
    assert all(map(is_mapped, lists_teacher(run, memory_map=True).features))
    with pytest.raises(ConfigError, match="teacher.spectral_rank: got 3, but vectors are taught"):
        vectors_teacher(run, spectral_rank=3)


def test_the_hash_of_its_weights_is_that_of_its_files(taught):
    run = taught()
    before = vectors_teacher(run).weights(), lists_teacher(run).weights()
    shutil.copytree("vectors", "copy")
    assert vectors_teacher(run, "copy").weights() == before[0]
    other = lists_teacher(run, edit("lists.csv", lambda *line: [line][line[2] == "10" :]))
    assert other.weights() != before[1]


# --- lists ------------------------------------------------------------------------------------


def test_of_lists_scores_ids_and_where_a_user_begins_are_kept(taught):
    run = taught()
    (row,) = teacher_rows(run.data, lists_teacher(run))
    lines = 10 * 30
    # 31 users and 41 items, the padding included; ids and places are int32
    assert row.values["bytes_per_entity"] * 72 == 4 * lines + 4 * lines + 4 * 32
    assert row.values["parameters"] == lines  # an id is not learned


def test_the_lists_of_a_student_are_a_teacher_with_its_tops(taught):
    run = taught()
    dataset = run.data[0]._dataset
    teacher = lists_teacher(run)
    student = FeatureRanker(*extract_features(run.model, with_bias=True))
    own, found = (
        top_items(ranker, 10, exclude=training_matrix(dataset))
        for ranker in (student, teacher.ranker(dataset))
    )
    assert torch.equal(found.ids[1:], own.ids[1:])
    torch.testing.assert_close(found.scores[1:], own.scores[1:], atol=1e-6, rtol=1e-5)


def test_ranks_alone_give_the_same_order_and_features_of_the_lists(taught):
    run = taught()
    path = edit("lists.csv", lambda user, item, rank, _score: [(user, item, rank)])
    Path(path).write_text(Path(path).read_text().replace("rank,score", "rank"))
    teacher = lists_teacher(run, path, spectral_rank=30)
    by_score = lists_teacher(run)
    everybody = torch.arange(1, 31)
    best = [each.ranker(None).block(everybody).topk(10).indices for each in (teacher, by_score)]
    assert torch.equal(*best)
    user, item = teacher.features
    assert user.shape[1] == item.shape[1] <= 30
    products = (user[1:] @ item[1:].T).topk(10).indices + 1
    assert torch.equal(products, best[0])


def test_who_has_no_list_and_what_is_in_none_is_not_known(taught, caplog):
    run = taught()
    path = edit(
        "lists.csv", lambda user, item, *rest: [] if user == "u3" else [(user, item, *rest)]
    )
    teacher = lists_teacher(run, path)
    users, items = tokens(run.data[0]._dataset)
    listed = {line.split(",")[1] for line in Path(path).read_text().splitlines()[1:]}
    assert users[1:][~teacher.known[0][1:]].tolist() == ["u3"]
    assert set(items[teacher.known[1]]) == listed
    assert "has lists of 29 of the student's 30 users (96.7%)" in caplog.text
    assert not teacher.features[0][~torch.from_numpy(teacher.known[0])].any()


def test_lists_of_other_users_or_of_another_catalogue_are_refused(taught):
    run = taught()
    strangers = edit("lists.csv", lambda user, *rest: [(f"x{user}", *rest)])
    with pytest.raises(TeacherError, match=r"lists of 0 of the student's 30 users"):
        lists_teacher(run, strangers)
    foreign = edit(
        "lists.csv",
        lambda user, item, *rest: [(user, item if int(item[1:]) < 3 else f"x{item}", *rest)],
    )
    with pytest.raises(TeacherError, match=r"items in them \d are the student's"):
        lists_teacher(run, foreign)


def test_unknown_tokens_among_others_are_counted_and_left_out(taught, caplog):
    run = taught()
    path = edit(
        "lists.csv",
        lambda user, item, *rest: [(user, "gone" if item == "i7" else item, *rest)],
    )
    lists_teacher(run, path)
    assert "items in them" in caplog.text and "The others are not taught" in caplog.text


# --- leakage ----------------------------------------------------------------------------------


def test_lists_without_any_held_out_pair_are_warned_about(taught, caplog):
    run = taught()
    lists_teacher(run)
    assert "as wrong" not in caplog.text and "is wrong" not in caplog.text
    recbole_freqd.recommend(run.trainer.saved_model_file, "serving.csv", top=10, leave_out="all")
    Path("serving.csv.json").unlink()
    lists_teacher(run, "serving.csv")
    assert "lists contain 0 of the" in caplog.text and "each of these is wrong" in caplog.text
    assert "cannot be checked" in caplog.text  # nothing is known of its data any more


def test_lists_that_say_that_held_out_pairs_were_left_out_are_believed(taught, caplog):
    run = taught()
    recbole_freqd.recommend(run.trainer.saved_model_file, "serving.csv", top=10, leave_out="all")
    lists_teacher(run, "serving.csv")
    assert "they were made with --leave_out all" in caplog.text
    assert "cannot be checked" not in caplog.text


# --- by their keys ----------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", ["FreqRank", "FreqD"])
@pytest.mark.parametrize("form", ["vectors", "lists"])
def test_a_student_learns_from_files_and_the_teacher_is_in_its_table(
    taught, tiny_config, form, trainer
):
    taught(embedding_size=8)
    path = {"vectors": "vectors", "lists": "lists.csv"}[form]
    run = runs.run(tiny_config(trainer=trainer, teacher={form: path}))
    (found,) = teacher_rows(run.data, run.trainer.teacher)
    row = found.values
    assert (row["role"], row["model"], row["checkpoint"]) == ("teacher", form, path)
    assert row["size_mb"] > 0 and row["test"]
    assert run.trainer.teacher.weights()


def test_files_are_members_of_a_team(taught, tiny_config, teacher_recipe):
    taught(embedding_size=8)
    members = [teacher_recipe, {"vectors": "vectors"}, {"lists": "lists.csv"}]
    run = runs.run(
        tiny_config(trainer="FreqRank", teacher=members, teacher_weights=[0.5, 0.3, 0.2])
    )
    assert {member.model for member in run.trainer.teacher.members} == {"BPR", "vectors", "lists"}


def test_the_scores_of_files_are_given_a_spread_for_freqrank_alone(taught, tiny_config):
    taught()
    keys = {"teacher": {"vectors": "vectors"}, "warm_start": "none", "teacher_filter": "none"}
    spreads = {
        name: runs.run(tiny_config(trainer=name, **keys)).trainer.teacher.ranker(None)
        for name in ("FreqRank", "RCE-KD")
    }
    scaled, plain = (spreads[name].block(torch.tensor([3]))[0, 1:] for name in spreads)
    torch.testing.assert_close(scaled / scaled.norm(), plain / plain.norm())
    assert scaled.std() > 2 * plain.std()


def test_another_file_under_the_same_name_is_another_teacher(taught, tiny_config):
    from recbole_freqd.config.identity import planned_identity

    taught()
    for form, path in (("vectors", "vectors"), ("lists", "lists.csv")):
        config = tiny_config(trainer="FreqD", teacher={form: path})
        before = planned_identity(config)
        assert planned_identity(config) == before
        if form == "vectors":
            taught(seed=5)
        else:
            shutil.copy(edit(path, lambda *line: [line][line[2] == "10" :]), path)
        assert planned_identity(config) != before


def test_files_are_compared_beside_their_students(taught, tiny_config, tiny_keys):
    run = taught(embedding_size=8)
    results = recbole_freqd.compare(
        ["FreqD"], "BPR", "tiny", seeds=[run.config["seed"]], output_dir="results",
        config_dict={**tiny_keys, "teacher": {"vectors": "vectors"}},
    )  # fmt: skip
    assert results["teacher_model"] == "vectors"


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"vectors": "a", "lists": "b.csv"}, "two forms: teacher.vectors='a' and teacher.lists"),
        ({"lists": "b.csv", "model": "BPR"}, "two forms: .* a recipe"),
        ({"vector": "a"}, "did you mean 'teacher.vectors'"),
        ({"vectors": 3}, "teacher.vectors"),
        ({"lists_user": "u"}, "neither teacher.checkpoint nor .*teacher.vectors or teacher.lists"),
    ],
)
def test_a_teacher_has_one_form(tiny_config, teacher, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(trainer="FreqD", teacher=teacher)
