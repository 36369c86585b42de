"""Files of lists: what is read of them, what they score, and what is refused."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.pair_files import Columns
from recbole_freqd.teacher.files.listed import ListRanker, spectral_features
from recbole_freqd.teacher.files.lists import read_lists

COLUMNS = Columns("user_id", "item_id")


@pytest.fixture
def read(tmp_path):
    """Reads the lists that these lines are: ``read("user_id,item_id,rank", "a,x,1")``."""

    def from_lines(*lines, columns=COLUMNS):
        path = tmp_path / "lists.csv"
        path.write_text("\n".join(lines) + "\n")
        return read_lists(path, columns, "teacher.lists")

    return from_lines


def test_a_rank_scores_minus_the_logarithm_and_what_is_not_listed_comes_next(read):
    lists = read("user_id,item_id,rank", "a,x,2", "a,y,1", "b,x,1")
    assert lists.users.tolist() == ["a", "b"] and lists.items.tolist() == ["x", "y"]
    np.testing.assert_allclose(lists.scores, -np.log([3, 2, 2]))
    np.testing.assert_allclose(lists.floors, -np.log([4, 3]))  # the ranks after the last


def test_scores_go_before_ranks_and_the_floor_is_a_mean_step_below_the_last(read):
    lists = read(
        "rank,user_id,score,item_id", "1,a,5,x", "2,a,4,y", "3,a,1,z", "1,b,7,x", "1,c,2,x", "2,c,2,y"
    )  # fmt: skip
    np.testing.assert_allclose(lists.scores, [5, 4, 1, 7, 2, 2])
    # a: steps of 2 in the mean; b and c have no step of their own: the mean of all that have.
    np.testing.assert_allclose(lists.floors, [-1, 5, 0])


def test_tokens_are_text_whatever_they_look_like(read):
    lists = read("user_id,item_id,rank", "007,NA,1", "7,1e3,1")
    assert lists.users.tolist() == ["007", "7"] and lists.items.tolist() == ["NA", "1e3"]


def test_parquet_and_csv_are_read_alike_with_columns_of_any_name(read, tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    columns = Columns("who", "what", "score", "place")
    table = pd.DataFrame({"who": [1, 1, 2], "what": ["x", "y", "x"], "place": [1, 2, 1]})
    table.to_parquet(tmp_path / "lists.parquet")
    one = read_lists(tmp_path / "lists.parquet", columns, "teacher.lists")
    other = read("who,what,place", "1,x,1", "1,y,2", "2,x,1", columns=columns)
    for field in ("users", "items", "user", "item", "scores", "floors"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["user_id,item_id,rank", "a,x,1", "a,x,2"], CheckpointError, "1 pairs are there twice, a"),
        (["user_id,item_id,score", "a,x,nan"], CheckpointError, "1 of 1 numbers in score are NaN"),
        (["user_id,item_id,score", "a,x,inf"], CheckpointError, "infinite"),
        (["user_id,item_id,score", "a,x,good"], CheckpointError, r"none \(good\)"),
        (
            ["user_id,item_id,rank", "a,x,1", "a,y,3"],
            CheckpointError,
            "gaps .* those of a are 1, 3",
        ),
        (["user_id,item_id,rank", "a,x,0", "a,y,1"], CheckpointError, "those of a are 0, 1"),
        (["user_id,item_id,rank", "a,x,1", "a,y,1"], CheckpointError, "those of a are 1, 1"),
        (["user_id,item_id", "a,x"], ConfigError, "columns user_id, item_id; missing: rank"),
        (["user_id,rank", "a,1"], ConfigError, "missing: item_id.*teacher.lists_user"),
        (["user_id,item_id,rank"], CheckpointError, "there is no line"),
        (["user_id,item_id,rank", ",x,1"], CheckpointError, "user_id is empty in some lines"),
    ],
)
def test_what_is_no_list_is_refused_in_words(read, lines, error, message):
    with pytest.raises(error, match=message):
        read(*lines)


def test_a_file_that_is_not_there_or_of_another_kind_is_named(tmp_path):
    (tmp_path / "lists.txt").write_text("user_id\n")
    (tmp_path / "bad.parquet").write_text("no parquet")
    for name in ("missing.csv", "lists.txt"):
        with pytest.raises(ConfigError, match=rf"teacher.lists: got .*{name}.*\.parquet or \.csv"):
            read_lists(tmp_path / name, COLUMNS, "teacher.lists")
    with pytest.raises(CheckpointError, match=r"bad\.parquet cannot be read"):
        read_lists(tmp_path / "bad.parquet", COLUMNS, "teacher.lists")


def test_without_pyarrow_parquet_is_an_error_that_gives_the_command(tmp_path, monkeypatch):
    (tmp_path / "lists.parquet").write_text("whatever")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r'pip install "recbole_freqd\[parquet\]"'):
        read_lists(tmp_path / "lists.parquet", COLUMNS, "teacher.lists")


# --- the ranker -------------------------------------------------------------------------------


@pytest.fixture
def ranker():
    """User 1 has items 3 and 1, user 2 has item 4, user 3 has none; item 2 is in no list."""
    above = sp.csr_array(
        (np.array([2.0, 0.5, 1.0], np.float32), ([1, 1, 2], [3, 1, 4])), shape=(4, 5)
    )
    known = np.array([False, True, False, True, True])
    return ListRanker(above, np.array([0, -1, -2, 0], np.float32), known)


def test_a_listed_item_has_its_score_a_known_one_the_floor_an_unknown_one_none(ranker):
    inf = -np.inf
    expected = [[inf, -0.5, inf, 1, -1], [inf, -2, inf, -2, -1], [inf, 0, inf, 0, 0]]
    np.testing.assert_array_equal(ranker.block(torch.tensor([1, 2, 3])), expected)
    assert ranker.known_items().tolist() == [False, True, False, True, True]
    assert ranker.factors() is None


def test_chosen_pairs_score_as_in_whole_rows(ranker):
    users = torch.tensor([2, 3, 1, 1, 0])
    items = torch.randint(0, 5, (5, 7), generator=torch.Generator().manual_seed(0))
    assert torch.equal(ranker.at(users, items), ranker.block(users).gather(1, items))
    assert ranker.at(users[:0], items[:0]).shape == (0, 7)


def test_spectral_features_rank_as_the_lists_do_and_are_zero_where_nothing_is_known():
    rng = np.random.default_rng(0)
    above = sp.random_array((9, 12), density=0.3, rng=rng, dtype=np.float32, format="csr")
    above = sp.csr_array(above.multiply(np.arange(9)[:, None] != 4).multiply(np.arange(12) != 7))
    above.eliminate_zeros()
    (user, item), share = spectral_features(above, 8, "cpu")
    np.testing.assert_allclose(user @ item.T, above.toarray(), atol=1e-5)
    assert share > 0.999 and not user[4].any() and not item[7].any()
