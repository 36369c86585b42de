"""archive: a file that is cut off or changed is found out, whoever reads it."""

import contextlib
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_freqd.checkpoint.loading import check_whole, load_checkpoint, load_plain
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import read_json, write_json

CUTS, FLIPS = 20, 60


def same(one, other):
    """Whether two loaded checkpoints or sidecars hold the same."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "final_config_dict"):
        return repr(one.final_config_dict) == repr(other.final_config_dict)
    return repr(one) == repr(other)


@pytest.fixture
def checkpoint(trained):
    path, _ = trained("LightGCN")
    return path, load_checkpoint


@pytest.fixture
def sidecar(tmp_path):
    """Of the form of the trainer's: projectors, streams of random numbers, optimizer state."""
    content = {
        "methods": ["FreqD"],
        "distiller": torch.nn.Linear(4, 8).state_dict(),
        "streams": {"mask": {"cpu": torch.get_rng_state()}},
        "optimizers": [{"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(8)}}}],
    }
    path = tmp_path / "x.distiller.pt"
    torch.save(content, path)
    return path, load_plain


@pytest.fixture
def trusted(trained):
    path, _ = trained("BPR")
    return path, lambda path: load_checkpoint(path, trust=True)


@pytest.fixture(params=["checkpoint", "sidecar", "trusted"])
def kind(request):
    """A whole file, and what reads it."""
    return request.getfixturevalue(request.param)


def test_a_file_that_is_cut_off_anywhere_is_an_error_that_names_it(kind):
    path, load = kind
    whole = path.read_bytes()
    for kept in np.linspace(0, len(whole) - 1, CUTS).astype(int):
        path.write_bytes(whole[:kept])
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load(path)
    path.write_bytes(whole)
    load(path)


def test_a_changed_byte_is_an_error_or_changes_nothing(kind):
    path, load = kind
    whole, content = path.read_bytes(), load(path)
    refused, rng = 0, np.random.default_rng(5)
    for position in rng.integers(len(whole), size=FLIPS):
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            assert same(load(path), content), position
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > FLIPS / 4  # the rest fell into what fills the gaps between records


def data_of(path, name):
    """Where the content of a record begins and how long it is."""
    with zipfile.ZipFile(path) as archive:
        (record,) = (one for one in archive.infolist() if one.filename.endswith(name))
    content = path.read_bytes()
    name_length, extra = struct.unpack("<HH", content[record.header_offset + 26 :][:4])
    return record.header_offset + 30 + name_length + extra, record.file_size


@pytest.mark.parametrize("name", ["data/0", "data.pkl"])
def test_no_changed_byte_of_a_weight_or_of_the_structure_goes_unnoticed(kind, name):
    path, load = kind
    whole = path.read_bytes()
    start, length = data_of(path, name)
    for position in np.unique(np.linspace(start, start + length - 1, 40).astype(int)):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"cannot be read: .*(CRC|checksum)"):
            load(path)


def test_a_changed_byte_where_zipfile_itself_stumbles_is_an_error(sidecar):
    """In the end of the file, the place of the directory: zipfile raises while it only looks."""
    path, load = sidecar
    whole = path.read_bytes()
    for position in range(len(whole) - 120, len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        for read in (load, load_checkpoint, check_whole):
            with contextlib.suppress(CheckpointError):
                read(path)


def test_torch_itself_takes_a_changed_weight_for_a_good_one(sidecar):
    """Why the sums are looked at here."""
    path, _ = sidecar
    content = bytearray(path.read_bytes())
    start, _ = data_of(path, "data/0")
    content[start] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


def test_the_best_model_that_recbole_reads_back_is_checked_as_well(built):
    from recbole.utils import get_trainer

    model, (train_data, valid_data, test_data) = built(epochs=1)
    config = train_data._dataset.config
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, model)
    trainer.fit(train_data, valid_data, show_progress=False)
    path = Path(trainer.saved_model_file)
    trainer.evaluate(test_data)
    content = bytearray(path.read_bytes())
    content[data_of(path, "data/0")[0]] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"\.pth cannot be read: its record .*data/0"):
        trainer.evaluate(test_data)
    with pytest.raises(CheckpointError, match="It is damaged"):
        trainer.resume_checkpoint(path)
    for kept in (0, 100, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(CheckpointError, match=r"\.pth cannot be read: "):
            trainer.evaluate(test_data)


def test_weights_that_a_config_has_a_model_of_recbole_read_are_read_safely(built, tmp_path):
    """A stranger's checkpoint may name such a file in its config; RecBole would unpickle it."""
    marker = tmp_path / "made"

    class Evil:
        def __reduce__(self):
            return open, (str(marker), "w")

    for name, content in (("mf", {"state_dict": {}}), ("mlp", {"state_dict": Evil()})):
        torch.save(content, tmp_path / f"{name}.pth")
    keys = {"mf_embedding_size": 4, "mlp_embedding_size": 4, "mlp_hidden_size": [4]}
    paths = {f"{name}_pretrain_path": str(tmp_path / f"{name}.pth") for name in ("mf", "mlp")}
    with pytest.raises(CheckpointError, match=r"mlp\.pth cannot be read: .*_?io\.open, which"):
        built("NeuMF", use_pretrain=True, **keys, **paths)
    assert not marker.exists()


def test_what_has_no_checksums_is_passed_over(tmp_path):
    torch.save({}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    check_whole(tmp_path / "old.pth")
    check_whole(tmp_path / "none.pth")
    with open(tmp_path / "old.pth", "rb") as file:
        check_whole(file)


@pytest.mark.parametrize("kept", [0, 1, 10, 30])
def test_json_that_is_cut_off_is_an_error_that_says_what_to_do(tmp_path, kept):
    path = tmp_path / "teacher.json"
    write_json(path, {"identity": {"data": "x"}, "facts": {}})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"teacher\.json cannot be read: .*or delete it"):
        read_json(path)
    with pytest.raises(CheckpointError, match=r"none\.json cannot be read"):
        read_json(tmp_path / "none.json")


def test_json_with_bytes_that_are_no_text_is_an_error(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path / "a.json")
