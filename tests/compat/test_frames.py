"""frames: RecBole reads data as it always did, whatever pandas does with columns and copies."""

import contextlib
import warnings

import pandas as pd
import pytest
import torch

from recbole_freqd import compat
from recbole_freqd.compat import frames

PANDAS = int(pd.__version__.split(".")[0])
MODES = ["as installed"]
if PANDAS < 3:
    MODES += ["copy on write", "copy on write, text as pandas 3 has it"]

INTER = """user_id:token\titem_id:token\trating:float\ttags:token_seq\tvec:float_seq
a\tx\t1\tred blue\t1 2
a\ty\t\t\t
b\tx\t3\tblue\t4
c\tz\t5\tgreen red\t3
"""
USER = """user_id:token\tage:token\theight:float\tlikes:token_seq
a\tyoung\t1.5\tp q
b\t\t\t
"""
ITEM = """item_id:token\tprice:float\tkind:token
x\t2\tbook
y\t\t
"""
KG = """head_id:token\trelation_id:token\ttail_id:token
X\tnear\tY
Y\tfar\tW
"""
LINK = "item_id:token\tentity_id:token\nx\tX\ny\tY\n"
SEQUENCES = """user_id:token\titem_id_list:token_seq\titem_id:token
a\tx\ty
a\tx y\tz
b\tz y x\ty
"""


@contextlib.contextmanager
def pandas_in(mode):
    """pandas as it is, or as near to pandas 3 as it goes."""
    with contextlib.ExitStack() as options, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "copy on write" in mode:
            options.enter_context(pd.option_context("mode.copy_on_write", True))
        if "text" in mode:
            options.enter_context(pd.option_context("future.infer_string", True))
        yield


@pytest.fixture(params=MODES)
def mode(request):
    with pandas_in(request.param):
        yield request.param


@pytest.fixture
def read(host, tmp_path):
    """Reads files of a dataset with one of RecBole's models: ``read("BPR", inter=..., **keys)``."""
    from recbole.config import Config
    from recbole.data import create_dataset

    def read_files(model="BPR", files=(), **keys):
        folder = tmp_path / "holes"
        folder.mkdir(exist_ok=True)
        for suffix, text in files:
            (folder / f"holes.{suffix}").write_text(text)
        defaults = {"data_path": str(tmp_path), "load_col": None, "state": "ERROR"}
        defaults["filter_inter_by_user_or_item"] = False
        return create_dataset(Config(model, "holes", config_dict={**defaults, **keys}))

    return read_files


def rows(dataset, feature, field):
    """A field's values as RecBole has read them; its tokens by name."""
    values = getattr(dataset, feature)[field]
    values = values.tolist()
    if field not in dataset.field2id_token:
        return values
    names = dataset.field2id_token[field]
    return [
        [str(names[int(i)]) for i in value] if isinstance(value, list) else str(names[int(value)])
        for value in values
    ]


ALL = [("inter", INTER), ("user", USER), ("item", ITEM)]


def test_missing_tokens_are_the_padding_and_missing_numbers_the_mean(mode, read):
    dataset = read(files=ALL)
    dataset._change_feat_format()
    assert rows(dataset, "user_feat", "user_id") == ["[PAD]", "a", "b", "c"]
    assert rows(dataset, "user_feat", "age") == ["[PAD]", "young", "[PAD]", "[PAD]"]
    assert rows(dataset, "user_feat", "height") == [1.5] * 4
    assert rows(dataset, "item_feat", "price") == [2.0] * 4
    assert rows(dataset, "item_feat", "kind") == ["[PAD]", "book", "[PAD]", "[PAD]"]
    assert rows(dataset, "inter_feat", "rating") == [1, 3, 3, 5]


def test_missing_lists_are_empty_and_each_list_keeps_its_length(mode, read):
    dataset = read(files=ALL)
    dataset._change_feat_format()
    assert rows(dataset, "inter_feat", "tags") == [
        ["red", "blue"], ["[PAD]", "[PAD]"], ["blue", "[PAD]"], ["green", "red"],
    ]  # fmt: skip
    assert rows(dataset, "inter_feat", "vec") == [[1, 2], [0, 0], [4, 0], [3, 0]]
    likes = rows(dataset, "user_feat", "likes")
    assert likes == [["[PAD]", "[PAD]"], ["p", "q"], ["[PAD]", "[PAD]"], ["[PAD]", "[PAD]"]]


def test_lists_are_normalised_and_cut_into_buckets_each_by_itself(mode, read):
    dataset = read(files=ALL, normalize_field=["vec", "rating"])
    vectors = [[round(value, 3) for value in vec] for vec in dataset.inter_feat["vec"]]
    assert vectors == [[0, 0.333], [], [1], [0.667]]
    assert dataset.inter_feat["rating"].tolist() == [0, 0.5, 0.5, 1]
    buckets = {"vec": {"method": "ED", "bucket": 2}, "rating": {"method": "LD"}}
    dataset = read(files=ALL, discretization=buckets, numerical_features=["vec", "rating"])
    assert [pair[1].tolist() for pair in dataset.inter_feat["vec"]] == [[1, 1], [], [2], [2]]
    assert dataset.inter_feat["rating"].tolist() == [[1, 0], [1, 1], [1, 1], [1, 2]]


def test_what_is_no_user_or_item_is_dropped_and_filters_see_the_same_rows(mode, read):
    holes = INTER + "\tz\t1\tred\t1\nd\tx\t2\tred\t1\n"
    dataset = read(files=[("inter", holes), *ALL[1:]], filter_inter_by_user_or_item=True)
    assert rows(dataset, "inter_feat", "user_id") == ["a", "a", "b"]
    dataset = read(files=[("inter", holes)], val_interval={"rating": "[2,inf)"})
    assert rows(dataset, "inter_feat", "user_id") == ["b", "c", "d"]
    dataset = read(files=[("inter", holes)], user_inter_num_interval="[2,inf)")
    assert rows(dataset, "inter_feat", "user_id") == ["a", "a"]
    doubled = INTER + "a\tx\t9\tred\t1\n"
    dataset = read(files=[("inter", doubled)], rm_dup_inter="last")
    assert dataset.inter_feat["rating"].tolist() == [5 + 2 / 3, 3, 5, 9]


def test_sequences_given_as_lists_have_each_its_own_length(mode, read):
    names = ["train", "valid", "test"]
    dataset = read(
        "SASRec",
        [(f"{name}.inter", SEQUENCES) for name in names],
        benchmark_filename=names,
        alias_of_item_id=["item_id_list"],
        train_neg_sample_args=None,
        load_col={"inter": ["user_id", "item_id_list", "item_id"]},
    )
    train = dataset.build()[0]
    assert train.inter_feat["item_length"].tolist() == [1, 2, 3]


def test_entities_of_a_knowledge_graph_are_those_of_its_items(mode, read):
    dataset = read("CKE", [*ALL, ("kg", KG), ("link", LINK)])
    dataset._change_feat_format()
    assert dataset.entity_num == 4 and dataset.relation_num == 4  # with padding and user-item
    heads = [str(dataset.field2id_token["entity_id"][i]) for i in dataset.kg_feat["head_id"]]
    assert heads == ["X", "Y"]
    assert rows(dataset, "item_feat", "price") == [2.0] * dataset.item_num


def test_by_itself_recbole_leaves_missing_tokens_unfilled_under_copy_on_write(mode, read):
    """The shim is needed as long as this holds."""
    if mode == "as installed" and PANDAS < 3:
        pytest.skip("the old way of pandas fills in place")
    dataset = read(files=ALL[:1])
    frame = pd.DataFrame({"age": [1.0, None]})
    dataset.user_feat, dataset.item_feat, dataset.inter_feat = frame, None, frame
    dataset.feat_name_list, dataset.field2type["age"] = ["user_feat"], dataset.field2type["user_id"]
    type(dataset)._fill_nan.__wrapped__(dataset)
    assert frame["age"].isna().any()
    type(dataset)._fill_nan(dataset)
    assert frame["age"].tolist() == [1, 0]


def test_pandas_does_not_warn_of_what_recbole_would_fill_and_does_warn_of_others(read):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", r"\s*A value is .* set on a copy")
        read(files=ALL)
    with pandas_in(MODES[-1]), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Warning, match="set on a copy"):
            pd.DataFrame({"age": [1.0, None]})["age"].fillna(0, inplace=True)


def test_the_length_of_a_column_is_asked_for_since_pandas_3(host):
    host.unregister()
    assert frames.agg_is_of_the_column() == (PANDAS >= 3)
    compat.install_shims()
    assert ("lengths-of-lists" in compat.shims_installed()) == (PANDAS >= 3)


def test_only_recbole_gets_the_length_of_each_value():
    patches, before = compat.Patches(), vars(pd.Series)["agg"]
    frames.apply_agg(patches)
    try:
        theirs = {"__name__": "recbole.data.dataset.dataset", "series": pd.Series([[1, 2], []])}
        assert eval("series.agg(len)", theirs).tolist() == [2, 0]
        assert eval("series.agg('count')", theirs) == 2
        named_alike = {**theirs, "__name__": "recbole_gnn.data"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = eval("series.agg(len)", named_alike)
        assert (plain == 2) if PANDAS >= 3 else (plain.tolist() == [2, 0])
    finally:
        patches.undo()
    assert vars(pd.Series)["agg"] is before


@pytest.mark.parametrize("mode", MODES[1:])
def test_data_with_holes_trains_the_same_student_whatever_pandas_does(mode, read, tmp_path):
    from recbole.quick_start import run_recbole

    read(files=ALL)
    keys = {"data_path": str(tmp_path), "epochs": 2, "state": "ERROR", "show_progress": False}
    keys |= {"eval_args": {"split": {"RS": [1, 0, 0]}, "mode": "labeled"}, "metrics": ["AUC"]}
    keys |= {"load_col": None, "embedding_size": 4, "threshold": {"rating": 2}}

    def train(folder):
        run_recbole("FM", "holes", config_dict={**keys, "checkpoint_dir": str(tmp_path / folder)})
        [checkpoint] = (tmp_path / folder).glob("FM-*.pth")
        return torch.load(checkpoint, weights_only=False)["state_dict"]

    plain = train("plain")
    with pandas_in(mode):
        other = train("other")
    assert all(bool(value.isfinite().all()) for value in plain.values())
    assert all(torch.equal(plain[name], other[name]) for name in plain)
