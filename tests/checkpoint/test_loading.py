"""checkpoint: nothing in a file runs, nothing half-written stays, equal content has one hash."""

import datetime
import io
import pickle
import sys
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import fingerprint
from tests.support.evil import NOTHING, PLACES, called, found, pickled, torch_file

random_inputs = settings(deadline=None, database=None)


# --- what RecBole writes ---------------------------------------------------------------------


# Their state, other parameters and configs hold every kind of object RecBole's checkpoints do.
@pytest.mark.parametrize("name", ["BPR", "LightGCN", "ItemKNN", "EASE", "NCL"])
def test_a_checkpoint_of_recbole_comes_back_whole(trained, name):
    path, model = trained(name)
    payload = load_checkpoint(path)
    assert payload["config"]["model"] == name
    assert payload["config"]["embedding_size"] == 4
    assert payload["epoch"] == 1
    state = model.state_dict()
    assert list(payload["state_dict"]) == list(state)
    assert all(torch.equal(payload["state_dict"][key], state[key]) for key in state)
    others = model.other_parameter() or {}
    assert {key: type(value) for key, value in (payload["other_parameter"] or {}).items()} == {
        key: type(value) for key, value in others.items()
    }


def test_no_module_of_a_model_is_imported_to_load_its_checkpoint(trained, monkeypatch):
    path, model = trained("BPR")
    monkeypatch.setitem(sys.modules, type(model).__module__, None)  # forbids the import
    stand_in = load_checkpoint(path)["config"].model_class
    assert stand_in.__name__ == "BPR"
    assert stand_in is not type(model)
    assert not hasattr(stand_in, "calculate_loss")


def test_the_tensors_land_on_the_device_asked_for(trained):
    path, _ = trained("BPR")
    payload = load_checkpoint(path, map_location="meta")
    assert {tensor.device.type for tensor in payload["state_dict"].values()} == {"meta"}


# --- what an attacker writes (more in test_unpickling.py) ----------------------------------------


def test_a_checkpoint_without_a_config_of_recbole_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"config": {"model": "BPR"}, "state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="holds a dict as its 'config', not a RecBole Config"):
        load_checkpoint(path)


def test_the_refusal_says_how_to_trust_a_file_of_ones_own(tmp_path):
    path = torch_file(tmp_path / "x.pth", PLACES["config"](found("os", "system")))
    with pytest.raises(CheckpointError, match=r"made it yourself.*teacher\.trust_checkpoint: true"):
        load_checkpoint(path)


class Own:
    """A class that only its owner can know."""


def test_a_trusted_checkpoint_may_hold_classes_of_its_owner(tmp_path):
    path = tmp_path / "own.pth"
    torch.save({"config": Own(), "state_dict": {}}, path)
    with pytest.raises(CheckpointError, match=rf"asks for {Own.__module__}\.Own"):
        load_checkpoint(path)
    assert isinstance(load_checkpoint(path, trust=True)["config"], Own)


def legacy(data):
    return data


def legacy_with_a_zip_behind(data):
    behind = io.BytesIO()
    torch.save({"config": {}, "state_dict": {}}, behind)
    return data + behind.getvalue()


@pytest.mark.parametrize("form", [legacy, legacy_with_a_zip_behind])
def test_a_bare_pickle_is_refused_unread_whatever_lies_behind_it(tmp_path, form):
    marker = tmp_path / "made"
    data = PLACES["config"](called(found("os", "system"), f"echo > {marker}"))
    path = tmp_path / "legacy.pth"
    path.write_bytes(form(data))
    with pytest.raises(
        CheckpointError, match=r"legacy\.pth (is no torch|cannot be read|is refused)"
    ):
        load_checkpoint(path)
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "the attack is none: this test could not fail"


def test_the_old_format_of_torch_is_refused_with_the_version_that_is_needed(tmp_path):
    path = tmp_path / "old.pth"
    content = {"config": {}, "state_dict": {}}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"not a zip file.*torch 1\.6 or later"):
        load_checkpoint(path)


@pytest.mark.parametrize("trust", [False, True])
def test_a_torchscript_archive_is_refused_before_torch_runs_its_code(tmp_path, monkeypatch, trust):
    ran = []
    monkeypatch.setattr(torch.jit, "load", lambda *args, **kwargs: ran.append(args))
    path = torch_file(tmp_path / "script.pth", pickled(config=NOTHING, state_dict=NOTHING))
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{folder}/constants.pkl", b"\x80\x02).")
    with pytest.raises(CheckpointError, match=r"script\.pth cannot be read: it is a TorchScript"):
        load_checkpoint(path, trust=trust)
    assert ran == []


# --- what is no checkpoint, or half of one ---------------------------------------------------


def test_a_missing_file_is_an_error_that_lists_the_checkpoints_that_are_there(tmp_path):
    for name in ("BPR-b.pth", "BPR-a.pth", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(
        CheckpointError, match=r"none\.pth does not exist\. There: .*BPR-a\.pth, .*BPR-b\.pth\.$"
    ):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"none\.pth does not exist\.$"):
        load_checkpoint(tmp_path / "nowhere" / "none.pth")


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_an_error(tmp_path, kept):
    path = tmp_path / "cut.pth"
    torch.save({"config": {}, "state_dict": {"weight": torch.ones(100)}}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"cut\.pth is no torch checkpoint.*or it is cut off"):
        load_checkpoint(path)


def test_a_zip_file_of_something_else_and_a_damaged_pickle_are_errors(tmp_path):
    other = tmp_path / "other.pth"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("notes.txt", "no model")
    with pytest.raises(CheckpointError, match=r"other\.pth cannot be read"):
        load_checkpoint(other)
    with pytest.raises(CheckpointError, match=r"damaged\.pth cannot be read"):
        load_checkpoint(torch_file(tmp_path / "damaged.pth", b"\x80\x04}(X"))


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"config": {}}, [1, 2], torch.ones(2)])
def test_a_torch_file_without_config_and_weights_is_not_one_of_recboles(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"has no 'config' and 'state_dict'"):
        load_checkpoint(tmp_path / "x.pth")


# --- fingerprints ----------------------------------------------------------------------------

arrays = st_numpy.arrays(
    st.sampled_from([np.int64, np.int32, np.float64, np.uint8]),
    st_numpy.array_shapes(min_dims=1, max_dims=2, max_side=4),
    elements=st.integers(0, 5),
)


@random_inputs
@given(array=arrays, place=st.integers(0, 15))
def test_an_array_has_another_fingerprint_once_a_value_its_type_or_its_shape_changes(array, place):
    own = fingerprint(array)
    assert fingerprint(np.asfortranarray(array)) == own
    assert fingerprint(array.copy()[::1]) == own
    changed = array.copy()
    changed.flat[place % array.size] += 1
    assert fingerprint(changed) != own
    for dtype in {np.int64, np.int32, np.float64, np.uint8} - {array.dtype.type}:
        assert fingerprint(array.astype(dtype)) != own
    assert fingerprint(array[None]) != own
    assert fingerprint(array.tolist()) != own


@random_inputs
@given(first=arrays, second=arrays)
def test_the_order_of_values_and_of_parts_counts(first, second):
    same = (first.dtype, first.shape, first.tobytes()) == (
        second.dtype, second.shape, second.tobytes(),
    )  # fmt: skip
    assert (fingerprint(first, second) == fingerprint(second, first)) == same
    backwards = first[::-1]
    assert (fingerprint(first) == fingerprint(backwards)) == np.array_equal(first, backwards)
    assert fingerprint(first, second) != fingerprint(first)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array(["a", "bc"]), np.array(["ab", "c"])),
        (np.array(["a", "b"], dtype=object), np.array(["b", "a"], dtype=object)),
        (np.array(["[PAD]", "u1"]), np.array(["[PAD]", "u2"])),
        ("ab", ["a", "b"]),
        (1, "1"),
        (1, True),
        (None, "None"),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ([1, [2]], [[1], 2]),
    ],
)
def test_tokens_and_json_values_that_differ_have_fingerprints_that_differ(one, other):
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(pickle.loads(pickle.dumps(one)))


def test_every_token_of_a_large_table_counts():
    table = np.array([[f"u{i}" for i in range(3000)]] * 2)
    changed = table.copy()
    changed[1, 1500] = "x"  # where NumPy's own words for an array have dots
    assert fingerprint(table) != fingerprint(changed)


def test_the_order_of_the_keys_of_a_config_does_not_count():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Path("/data") / "set one", "/data/set one"),
        (PureWindowsPath("C:/data/x"), "C:\\data\\x"),
        (Path("."), "."),
        (PurePosixPath("a", "b.yaml"), "a/b.yaml"),
        ({"files": [Path("a.yaml")]}, {"files": ["a.yaml"]}),
        (datetime.date(2026, 1, 31), datetime.date(2026, 1, 31)),
        (datetime.datetime(2026, 1, 31, 12), datetime.datetime(2026, 1, 31, 12)),
    ],
)
def test_what_else_a_stock_config_may_hold_is_read_paths_as_text(trained, value, read, protocol):
    path, _ = trained("BPR")
    payload = torch.load(path, weights_only=False)
    payload["config"]["my_key"] = value
    torch.save(payload, path, pickle_protocol=protocol)
    assert load_checkpoint(path)["config"]["my_key"] == read
