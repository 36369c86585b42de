"""Vectors of an export, or of another system in the same layout, read back."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.vector_files import hash_of_export, read_export

USERS = {"tokens": np.array(["a", "b"]), "vectors": np.eye(2, 3, dtype=np.float32)}
ITEMS = {"tokens": np.array([7, 8, 9]), "vectors": np.ones((3, 3), np.float16)}


def write(folder="vectors", users=(), items=()):
    """Both files, with other arrays than :data:`USERS` and :data:`ITEMS` where given."""
    Path(folder).mkdir(exist_ok=True)
    for side, arrays, other in (("users", USERS, users), ("items", ITEMS, items)):
        kept = {
            name: value for name, value in {**arrays, **dict(other)}.items() if value is not None
        }
        np.savez(f"{folder}/{side}.npz", **kept)
    return Path(folder)


def read(folder="vectors"):
    return read_export(Path(folder), "teacher.vectors")


def test_vectors_of_another_system_need_no_manifest():
    write()
    found = read()
    assert [names.tolist() for names in found.tokens] == [["a", "b"], ["7", "8", "9"]]
    assert all(rows.dtype == np.float32 for rows in found.vectors)
    assert (found.width, found.n_biases, found.manifest) == (3, 0, None)


def test_the_hash_is_that_of_the_content():
    write("one"), write("two"), write("three", users={"vectors": np.zeros((2, 3))})
    hashes = [hash_of_export(Path(name), "teacher.vectors") for name in ("one", "two", "three")]
    assert hashes[0] == hashes[1] != hashes[2]


def test_parquet_is_read_as_well_with_lists_of_any_kind():
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder = write()
    expected = read().vectors
    for side, arrays in (("users", USERS), ("items", ITEMS)):
        table = {"token": arrays["tokens"].astype(str), "vector": arrays["vectors"].tolist()}
        pq.write_table(pa.table(table), folder / f"{side}.parquet")
        (folder / f"{side}.npz").unlink()
    for one, other in zip(read().vectors, expected):
        np.testing.assert_array_equal(one, other)
    pq.write_table(
        pa.table({"token": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}), "vectors/users.parquet"
    )
    with pytest.raises(CheckpointError, match=r"users\.parquet: vectors have 1, 2 numbers"):
        read()


def test_without_pyarrow_parquet_is_an_error_that_gives_the_command(monkeypatch):
    Path("vectors").mkdir()
    for side in ("users", "items"):
        Path(f"vectors/{side}.parquet").write_text("whatever")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r'pip install "recbole_freqd\[parquet\]"'):
        read()


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ({"vectors": np.ones((2, 4))}, "user vectors of 4 numbers and item vectors of 3"),
        ({"vectors": np.ones((3, 3))}, r"shape \(3, 3\); allowed: \(2, d\)"),
        ({"vectors": np.ones(2)}, r"shape \(2,\)"),
        ({"vectors": np.full((2, 3), np.nan)}, r"2 of 2 vectors hold NaN .*\(a, b\)"),
        ({"vectors": None}, "holds tokens; missing: vectors"),
        ({"tokens": np.array(["a", "a"])}, r"1 tokens occur twice \(a\)"),
        ({"tokens": np.array(["a", None])}, "cannot be read: ValueError"),
        ({"tokens": np.array([["a", "b"]])}, r"shape \(1, 2\); allowed: \(n,\) texts"),
        ({"vectors": np.ones((2, 3), np.int8)}, "int8 without scales"),
    ],
)
def test_what_are_no_vectors_is_refused_in_words(users, message):
    write(users=users)
    with pytest.raises(CheckpointError, match=message):
        read()


def test_damaged_and_missing_files_are_our_errors():
    folder = write()
    whole = (folder / "users.npz").read_bytes()
    for content in (whole[:50], b"", b"hello"):
        (folder / "users.npz").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"users\.npz cannot be read"):
            read()
    (folder / "users.npz").unlink()
    with pytest.raises(
        ConfigError, match=r"teacher\.vectors: vectors .* holds items\.npz; allowed"
    ):
        read()


def test_files_that_are_not_those_of_the_manifest_are_refused():
    folder = write()
    manifest = {"sha256": {"users.npz": "0", "items.npz": "0"}, "biases": {"of": []}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"users\.npz is not the file that .*manifest"):
        read()
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no manifest of this package"):
        read()
