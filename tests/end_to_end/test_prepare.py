"""The scripts that make the fixed splits: what they make of a source, and what they refuse."""

import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recbole_freqd.core.errors import CheckpointError, ConfigError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DATA = os.environ.get("RECBOLE_FREQD_DATA", "")
HEAD = "user_id:token\titem_id:token\n"
NAMES = ["citeulike", "gowalla"]
each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def splits(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("splits")


@pytest.fixture
def scripted(splits):
    def get(name):
        return getattr(importlib.import_module(f"prepare_{name}"), name.upper())

    return get


def write_source(name, folder, lists):
    """Lists of items by user as the public files have them."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "citeulike":
        lines = [f"{len(items)} {' '.join(map(str, items))}" for items in lists]
        (folder / "users.dat").write_text("\n".join(lines) + "\n")
        return
    for file, part in (("train.txt", slice(0, None, 2)), ("test.txt", slice(1, None, 2))):
        lines = [" ".join(map(str, [user, *items[part]])) for user, items in enumerate(lists)]
        (folder / file).write_text("\n".join(lines) + "\n")


def known(splits, split, lists):
    """A split whose checksums are those of made-up lists."""
    pairs = np.array([(user, item) for user, items in enumerate(lists) for item in items])
    pairs = np.unique(pairs, axis=0)
    texts = {part: HEAD + splits._lines(rows) for part, rows in splits.parts_of(pairs).items()}
    sums = {part: splits._checksum(text) for part, text in texts.items()}
    return replace(split, pairs=splits._checksum(splits._lines(pairs)), results=sums)


def made_up():
    rng = np.random.default_rng(0)
    sizes = [9, 5, 14, 15, 24, 26, 30]
    return [rng.choice(60, size, replace=False).tolist() for size in sizes]


def test_a_tenth_of_every_user_is_test_and_a_tenth_validation_and_nothing_is_lost(splits):
    lists = made_up()
    pairs = np.array([(user, item) for user, items in enumerate(lists) for item in items])
    parts = splits.parts_of(np.random.default_rng(1).permutation(np.concatenate([pairs, pairs])))
    together = np.concatenate(list(parts.values()))
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, pairs.tolist()))
    for part in ("valid", "test"):  # 1.5 and 2.4 become 2, 2.6 and 3 become 3
        assert np.bincount(parts[part][:, 0]).tolist() == [1, 1, 1, 2, 2, 3, 3]
    assert len({tuple(rows[0]) for rows in parts.values()}) == 3


@each
def test_the_files_are_made_from_a_local_source_and_recbole_reads_them(
    splits, scripted, name, tmp_path, monkeypatch, host
):
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    lists = made_up()
    kept = [items if name == "gowalla" or len(items) >= 5 else [] for items in lists]
    write_source(name, tmp_path / "public", lists)
    monkeypatch.setenv("RECBOLE_FREQD_SOURCE", str(tmp_path / "public"))
    files = splits.prepare(known(splits, scripted(name), kept), tmp_path / "made")
    assert [file.name for file in files] == [
        f"{name}.{p}.inter" for p in ("train", "valid", "test")
    ]
    keys = {"data_path": str(tmp_path / "made"), "benchmark_filename": ["train", "valid", "test"]}
    keys["load_col"] = {"inter": ["user_id", "item_id"]}
    config = Config("BPR", name, config_dict={**keys, "state": "ERROR"})
    loaders = data_preparation(config, create_dataset(config))
    sizes = [loader._dataset.inter_num for loader in loaders]
    assert sizes == [123 - 2 * 13, 13, 13] and sum(map(len, kept)) == 123


def test_users_of_citeulike_with_fewer_than_five_items_are_left_out(scripted, tmp_path):
    write_source("citeulike", tmp_path, [[1, 2, 3, 4], [5, 6, 7, 8, 9], [1, 1, 2, 3, 4]])
    assert scripted("citeulike").read(tmp_path / "users.dat").tolist() == [
        [1, item] for item in range(5, 10)
    ]


@each
def test_another_source_is_refused_by_its_checksum_and_nothing_is_written(
    splits, scripted, name, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECBOLE_FREQD_SOURCE", str(tmp_path))
    write_source(name, tmp_path / name, made_up())
    with pytest.raises(ConfigError, match="The 123 pairs in .* have the SHA-256 .* allowed: "):
        splits.prepare(scripted(name), tmp_path / "made")
    split = known(splits, scripted(name), made_up())
    drawn_otherwise = replace(split, results={**split.results, "valid": "0" * 64})
    with pytest.raises(CheckpointError, match=f"{name}.valid.inter has the SHA-256 .* draws other"):
        splits.prepare(drawn_otherwise, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_without_a_source_it_is_said_where_it_is_and_how_to_name_a_copy(
    splits, scripted, tmp_path, monkeypatch
):
    import urllib.error

    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(splits.urllib.request, "urlopen", no_network)
    monkeypatch.delenv("RECBOLE_FREQD_SOURCE", raising=False)
    with pytest.raises(ConfigError, match="users.dat cannot be downloaded.*RECBOLE_FREQD_SOURCE"):
        splits.prepare(scripted("citeulike"), tmp_path)
    monkeypatch.setenv("RECBOLE_FREQD_SOURCE", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="neither .*nowhere nor its folder gowalla holds train.t"):
        splits.prepare(scripted("gowalla"), tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare"])
    with pytest.raises(SystemExit, match="gowalla: RECBOLE_FREQD_SOURCE"):
        splits.main(scripted("gowalla"))


def test_a_source_that_holds_words_is_refused(splits, tmp_path):
    (tmp_path / "users.dat").write_text("2 5 <html>\n")
    with pytest.raises(ConfigError, match="users.dat is not as expected, whole numbers"):
        splits.lists(tmp_path / "users.dat")


@pytest.mark.skipif(not DATA, reason="RECBOLE_FREQD_DATA names no folder")
@each
def test_the_published_files_come_out_byte_by_byte(splits, scripted, name, tmp_path, monkeypatch):
    """The source is put together from the files themselves: their union is what it has to hold."""
    folder = Path(DATA) / name
    if not folder.is_dir():
        pytest.skip(f"no {name} there")
    lists = []
    for file in sorted(folder.glob("*.inter")):
        for line in file.read_text().splitlines()[1:]:
            user, item = map(int, line.split("\t"))
            lists.extend([] for _ in range(user + 1 - len(lists)))
            lists[user].append(item)
    write_source(name, tmp_path, lists)
    monkeypatch.setenv("RECBOLE_FREQD_SOURCE", str(tmp_path))
    for made in splits.prepare(scripted(name), tmp_path / "made"):
        assert made.read_bytes() == (folder / made.name).read_bytes()
