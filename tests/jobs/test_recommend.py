"""Lists of a checkpoint: exact, for all users, some or new ones, and never half-written."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import recbole_freqd
from recbole_freqd.core import rankers
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.features import extract_features
from recbole_freqd.features.data import pairs, tokens
from recbole_freqd.features.fold_in import fold_in
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.recommend import top as module
from recbole_freqd.jobs.recommend.top import top_lists
from recbole_freqd.jobs.script import main
from tests.jobs.test_export import hidden


@pytest.fixture
def student(tiny_config):
    """A trained run: ``student("BPR")``."""

    def train(model="BPR", **keys):
        return runs.run(tiny_config(model, **keys))

    return train


def recommended(run, out="lists.csv", **options):
    return recbole_freqd.recommend(run.trainer.saved_model_file, out, **options)


def read(path="lists.csv"):
    """Lists of items by user, and all lines."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    lists = {}
    for line in lines:
        lists.setdefault(line["user_id"], []).append(line["item_id"])
        assert int(line["rank"]) == len(lists[line["user_id"]])
    return lists, lines


# --- the top of a block -----------------------------------------------------------------------


def test_blocks_of_any_size_give_the_same_lists(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    ranker = FeatureRanker(
        torch.randn(50, 3, generator=generator), torch.randn(60, 3, generator=generator)
    )

    def lists():
        blocks = list(top_lists(ranker, np.arange(1, 50), 7))
        return [np.concatenate(parts) for parts in zip(*blocks)], len(blocks)

    whole, _ = lists()
    monkeypatch.setattr(rankers, "_FEWEST_USERS", 1)
    monkeypatch.setattr(rankers, "_CACHED_BYTES", 4 * 60 * 3)
    monkeypatch.setattr(module, "_LINES", 7 * 6)
    parts, count = lists()
    assert count == 9
    for one, other in zip(whole[:2], parts[:2]):
        np.testing.assert_array_equal(one, other)
    assert (whole[1] > 0).all()


def test_beyond_the_size_lists_come_from_the_index_and_users_are_those_asked_for():
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    tables = (torch.randn(n, 3, generator=generator) for n in (50, 60))
    ranker, users = FeatureRanker(*tables), np.arange(1, 50, 3)
    exact, found = (
        [np.concatenate(parts) for parts in zip(*top_lists(ranker, users, 7, lists=maker))]
        for maker in (None, ListMaker(1))
    )
    for one, other in zip(exact[:2], found[:2]):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(exact[2], found[2], rtol=1e-5)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "FISM", "SimpleX", "NeuMF", "EASE"])
def test_the_lists_of_all_users_are_recboles_top_without_what_was_trained_on(student, model):
    run = student(model)
    metadata = recommended(run, top=10)
    users, items = (names[1:] for names in tokens(run.data[0]._dataset))
    expected = items[hidden(run.model, run.data[0]._dataset)]
    lists, lines = read()
    assert list(lists) == users.tolist()
    assert [lists[user] for user in users] == expected.tolist()
    assert list(lines[0]) == ["user_id", "item_id", "rank", "score"]
    assert metadata["left_out"] == "train" and metadata["users"] == "all"
    assert json.loads(Path("lists.csv.json").read_text()) == metadata


def test_parquet_holds_the_same_and_its_metadata(student):
    pq = pytest.importorskip("pyarrow.parquet")
    run = student()
    metadata = recommended(run, "lists.parquet", top=3)
    recommended(run, top=3)
    table, lines = pq.read_table("lists.parquet"), read()[1]
    assert table.column_names == ["user_id", "item_id", "rank", "score"]
    for row, line in zip(table.to_pylist(), lines):
        assert (row["user_id"], row["item_id"]) == (line["user_id"], line["item_id"])
        assert row["rank"] == int(line["rank"]) and row["score"] == np.float32(line["score"])
    assert len(table) == len(lines) == 90
    assert json.loads(table.schema.metadata[b"recbole_freqd"]) == metadata


@pytest.mark.parametrize("leave_out", ["train", "all", "none"])
def test_what_is_left_out_is_what_was_asked_for(student, leave_out):
    run = student()
    recommended(run, top=100, leave_out=leave_out)
    users, items = tokens(run.data[0]._dataset)
    splits = [
        {(users[user], items[item]) for user, item in pairs(loader._dataset)} for loader in run.data
    ]
    found = {(user, item) for user, own in read()[0].items() for item in own}
    gone = {"train": splits[0], "all": set().union(*splits), "none": set()}[leave_out]
    assert found == {(user, item) for user in users[1:] for item in items[1:]} - gone


def test_some_users_get_the_lists_that_they_have_among_all(student, caplog):
    run = student()
    recommended(run)
    everybody = read()[0]
    Path("users.txt").write_text("u3\nnobody\nu11\nu3\n")
    recommended(run, "some.csv", users="users.txt")
    assert read("some.csv")[0] == {user: everybody[user] for user in ("u3", "u11")}
    assert "--users: 1 of 3 users are unknown and left out: nobody" in caplog.text
    recommended(run, "one.csv", users=["u5"])
    assert read("one.csv")[0] == {"u5": everybody["u5"]}
    with pytest.raises(ConfigError, match="none of its 1 users is known"):
        recommended(run, users=["nobody"])


@pytest.mark.parametrize("model", ["BPR", "FISM"])
def test_new_users_are_folded_in_and_do_not_get_what_they_have(student, caplog, model):
    run = student(model)
    Path("new.csv").write_text("user_id,item_id\nn1,i3\nn2,i4\nn1,i7\nn1,gone\nn3,gone\n")
    metadata = recommended(run, histories="new.csv", top=38)
    lists, lines = read()
    assert {user: len(own) for user, own in lists.items()} == {"n1": 38, "n2": 38}
    assert not {"i3", "i7"} & set(lists["n1"]) and "i4" not in lists["n2"]
    assert metadata["users"] == "2 new"
    assert "2 of 5 lines name an unknown item and are skipped; 1 of 3 users" in caplog.text
    names = tokens(run.data[0]._dataset)[1].tolist()
    items = extract_features(run.model, with_bias=True)[1]
    width = extract_features(run.model, with_bias=False)[0].shape[1]
    bias = items[1:, -1].numpy() if model == "FISM" else None
    vector = fold_in(items[1:, :width].numpy(), [[names.index("i4") - 1]], item_bias=bias)[0]
    for line in lines:
        if line["user_id"] == "n2":
            place = names.index(line["item_id"])
            score = vector @ items[place, :width].numpy() + (0 if bias is None else bias[place - 1])
            assert float(line["score"]) == pytest.approx(score, abs=1e-5)
    recommended(run, histories="new.csv", top=40, leave_out="none")
    assert {"i3", "i7"} < set(read()[0]["n1"])


def test_new_users_need_item_vectors_and_known_items(student):
    Path("new.csv").write_text("user_id,item_id\nn1,i3\n")
    with pytest.raises(ConfigError, match="NeuMF has no item vectors"):
        recommended(student("NeuMF"), histories="new.csv")
    Path("odd.csv").write_text("user_id,item_id\nn1,gone\n")
    run = student()
    with pytest.raises(ConfigError, match="none of the items in odd.csv is known"):
        recommended(run, histories="odd.csv")
    Path("odd.csv").write_text("user,item_id\nn1,gone\n")
    with pytest.raises(ConfigError, match="columns user, item_id; missing: user_id"):
        recommended(run, histories="odd.csv")
    assert not Path("lists.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "lists.txt"}, r"--out: got lists.txt; allowed: .*\.parquet or \.csv"),
        ({"top": 0}, "--top: got 0; allowed: a whole number of at least 1"),
        ({"leave_out": "some"}, "--leave_out: got 'some'; allowed: train, all, none"),
        ({"users": ["a"], "histories": "new.csv"}, "--users and --histories"),
    ],
)
def test_an_option_that_is_not_allowed_is_named_before_anything_is_read(options, message):
    with pytest.raises(ConfigError, match=message):
        recbole_freqd.recommend("student.pth", options.pop("out", "lists.csv"), **options)


def test_without_pyarrow_parquet_is_an_error_that_gives_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r'pip install "recbole_freqd\[parquet\]"'):
        recbole_freqd.recommend("student.pth", "lists.parquet")


def test_the_script_recommends_and_says_what_it_wrote(student, capsys):
    run = student()
    call = ["recommend", run.trainer.saved_model_file, "--top", "3", "--out", "own.csv"]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "BPR: top 3 of all users, without what they have trained on, in own.csv" in printed
    assert {len(own) for own in read("own.csv")[0].values()} == {3}
    Path("new.csv").write_text("user_id,item_id\nn1,i3\n")
    assert main([*call, "--histories", "new.csv", "--leave_out", "none"]) == 0
    assert "top 3 of 1 new ones users" not in capsys.readouterr().out
    assert list(read("own.csv")[0]) == ["n1"]
    assert main([*call, "--embedding_size=8"]) == 2
    assert "--embedding_size would change nothing" in capsys.readouterr().err


def test_lists_beyond_the_size_of_the_checkpoint_come_from_the_index_unless_exact_ones_are_asked_for(
    student, teacher_recipe, caplog, monkeypatch
):
    pytest.importorskip("faiss")
    keys = {"trainer": "FreqRank", "teacher": teacher_recipe, "teacher_filter": "none"}
    with caplog.at_level("INFO"):
        run = student(**keys, index_items=1, index_nprobe=99, warm_start="none")
    for title in ("Teacher's lists", "Student's lists"):
        assert f"{title}: from an index of 40 items in 1 cells" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        recommended(run, top=5)
    assert "Recommending: from an index of 40 items" in caplog.text
    approximate = read()[0]
    monkeypatch.setitem(sys.modules, "faiss", None)
    call = ["recommend", run.trainer.saved_model_file, "--top", "5", "--out", "exact.csv"]
    assert main([*call, "--exact"]) == 0
    assert read("exact.csv")[0] == approximate
    with pytest.raises(ConfigError, match=r"recbole_freqd\[scale\]"):
        recommended(run, "third.csv")
    assert not Path("third.csv").exists()


_WRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
import numpy as np
from recbole_freqd.core.pair_files import Columns
from recbole_freqd.jobs.recommend.lists import open_lists

with open_lists(Path(sys.argv[1]), Columns("user_id", "item_id"), {}) as write:
    write(np.array(["a"]), np.array([["x", "y"]]), np.ones((1, 2), np.float32))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["lists.csv", "lists.parquet"])
def test_a_killed_recommend_leaves_no_file_of_the_name_and_the_one_before_it_as_it_was(name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def killed():
        call = [sys.executable, "-c", _WRITES_AND_DIES, name]
        assert subprocess.run(call, env=environment).returncode == -signal.SIGKILL

    killed()
    assert not Path(name).exists()
    Path(name).write_text("of last month")
    killed()
    assert Path(name).read_text() == "of last month"


def test_an_error_on_the_way_leaves_the_file_of_last_month(student, monkeypatch):
    run = student()
    recommended(run)
    before = Path("lists.csv").read_bytes()
    monkeypatch.setattr(
        "recbole_freqd.jobs.recommend.recommend.top_lists",
        lambda *_, **__: (1 / 0 for _ in range(1)),
    )
    with pytest.raises(ZeroDivisionError):
        recommended(run, top=3)
    assert Path("lists.csv").read_bytes() == before
    assert sorted(path.name for path in Path().glob("*lists*")) == ["lists.csv", "lists.csv.json"]
