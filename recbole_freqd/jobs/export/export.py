"""Exports a checkpoint's user and item vectors under their own names."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.files import sha256, write_json
from recbole_freqd.core.rankers import user_blocks
from recbole_freqd.core.vector_files import MANIFEST, SIDES
from recbole_freqd.features.data import pairs, tokens
from recbole_freqd.jobs.export.files import FORMATS, Form, check_formats, open_table, write_csr
from recbole_freqd.jobs.export.turn import turn_vectors
from recbole_freqd.jobs.export.vectors import Vectors, vectors_of
from recbole_freqd.jobs.stored import describe_source, pair_matrix, restore_for_job, shape_of
from recbole_freqd.teacher.restore import Restored

HISTORIES = "histories.npz"
_NAMES = (*(f"{side}.{kind}" for side in SIDES for kind in FORMATS), HISTORIES, MANIFEST)
PRECISIONS = ("float32", "float16", "int8")


def export(
    checkpoint: Union[str, Path],
    out: Union[str, Path],
    *,
    formats: Union[str, Sequence[str]] = ("npz",),
    precision: str = "float32",
    histories: bool = False,
    spectral: Optional[int] = None,
    align: Union[str, Path, None] = None,
    overwrite: bool = False,
    data_path: Optional[str] = None,
    trust: bool = False,
    trust_data: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Writes the vectors of a checkpoint; their inner products order the items as the model does.

    ``users.npz`` and ``items.npz`` (or ``.parquet``, or both) hold the original tokens and the
    vectors, row for row, without RecBole's padding; biases are extra columns. They are written in
    blocks, whole or not at all, and ``manifest.json`` last of all: a folder without it is not
    finished. The checkpoint's data is read again, and must be what it was trained on.

    Args:
        checkpoint: A ``.pth`` file of RecBole or of this package: student or teacher.
        out: The folder, made where it does not exist.
        formats: ``npz``, ``parquet`` (needs pyarrow), or both.
        precision: ``float32``, ``float16``, or ``int8`` with a scale for each row; there, columns
            of biases stay float32.
        histories: Also write ``histories.npz``, a sparse matrix with a row for each row of users
            and a column for each row of items: 1 for a training interaction, 2 for one of
            validation, 3 for any other. ``scipy.sparse.load_npz`` reads it.
        spectral: Dimensions, for a model whose scores are no inner products: a truncated SVD of
            its scores, and the manifest says how well that ranks.
        align: The folder of an older export: the vectors are turned onto its, before anything is
            rounded. No score changes; the manifest says how far the vectors of shared tokens have
            moved, before the turn and after it.
        overwrite: Whether files of an earlier export may be replaced; without it they stay.
        data_path: Where the datasets are now, as RecBole's key, if they have moved.
        trust: Load a checkpoint with classes of your own, which can run code.
        trust_data: Take data that nothing shows to be what the checkpoint was trained on.
        progress: Whether to show bars.

    Returns:
        The manifest.

    Raises:
        ConfigError: An option is not allowed, files are there already, pyarrow is missing, the
            model's scores are no inner products and ``spectral`` is not given, or the export to
            align with has another width, or shares no token.
        CheckpointError: The checkpoint or its data cannot be read, do not fit, or hold what is no
            number; a file cannot be written.

    Example:
        >>> recbole_freqd.export("saved/BPR-FreqD-....pth", "embeddings")  # doctest: +SKIP
    """
    kinds, folder, path = check_formats(formats), Path(out), Path(checkpoint)
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision: got {precision!r}; allowed: {', '.join(PRECISIONS)}.")
    if not overwrite:
        _refuse_to_replace(folder)
    source = restore_for_job(path, data_path, trust=trust, trust_data=trust_data)
    seen = pair_matrix(source.train, shape_of(source))
    with vectors_of(source.model(), spectral, seen, progress=progress) as vectors:
        aligned = None
        if align is not None:
            vectors, aligned = turn_vectors(vectors, tokens(source.train), Path(align))
        (folder / MANIFEST).unlink(missing_ok=True)  # while files change, it is not finished
        written = _write(source, vectors, folder, kinds, precision, progress)
    if histories:
        write_csr(folder / HISTORIES, _histories(source))
    manifest = _manifest(source, vectors, written, folder, precision, histories)
    manifest["aligned"] = aligned
    for name in set(_NAMES) - set(manifest["sha256"]):
        (folder / name).unlink(missing_ok=True)  # of an earlier export, in another format
    write_json(folder / MANIFEST, manifest)
    return manifest


def _refuse_to_replace(folder: Path) -> None:
    """Raises ConfigError where an export lies already, whatever its formats."""
    there = [name for name in _NAMES if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"{folder} already holds {', '.join(there)}. Give another --out, or --overwrite "
            "(overwrite=True) to replace the export there."
        )


@dataclass(frozen=True)
class _Written:
    """The content of the written files.

    Attributes:
        counts: Rows of each side. files: Of each side.
        normalised: Whether all rows have length 1 (or 0), so that inner products are cosines.
    """

    counts: dict[str, int]
    files: dict[str, list[str]]
    normalised: bool


def _write(
    source: Restored,
    vectors: Vectors,
    folder: Path,
    kinds: Sequence[str],
    precision: str,
    progress: bool,
) -> _Written:
    """Writes both sides, a block at a time."""
    done, widest = _Written({}, {}, True), max(shape_of(source))
    form = Form(vectors.width, np.dtype(precision), vectors.exact_columns)
    for side, of, names in zip(SIDES, (vectors.user, vectors.item), tokens(source.train)):
        names = names[1:].astype(str)
        done.counts[side] = len(names)
        done.files[side] = [f"{side}.{kind}" for kind in kinds]
        with ExitStack() as stack:
            writers = [
                stack.enter_context(open_table(folder / file, kind, names, form))
                for file, kind in zip(done.files[side], kinds)
            ]
            blocks = list(user_blocks(len(names), widest, "cpu"))
            for ids in tqdm(blocks, desc=f"Writing {side}", ncols=100, disable=not progress):
                block = of(ids + 1).detach().numpy()
                rounded = _rounded(block, form.dtype, f"{side} of {source.path}")
                done = replace(done, normalised=done.normalised and _is_normalised(block))
                for write in writers:
                    write(rounded)
    return done


def _is_normalised(block: np.ndarray) -> bool:
    lengths = np.linalg.norm(block, axis=1)
    return bool(((np.abs(lengths - 1) < 1e-5) | (lengths == 0)).all())


def _rounded(block: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """The same numbers at the precision asked for; in int8 the file rounds them itself.

    Raises:
        CheckpointError: NaN or infinite numbers.
        ConfigError: Numbers that float16 cannot hold.
    """
    if not np.isfinite(block).all():
        raise CheckpointError(
            f"Vectors of {what} hold NaN or infinite numbers: it cannot be exported. Train again, "
            "with a smaller learning rate."
        )
    if dtype == np.int8:
        return block
    with np.errstate(over="ignore"):
        rounded = block.astype(dtype)
    if not np.isfinite(rounded).all():
        raise ConfigError(
            f"--precision float16: vectors of {what} go up to {np.abs(block).max():.3g}, float16 "
            "to 65504. Use float32."
        )
    return rounded


def _histories(source: Restored) -> sp.csr_array:
    """(n_users - 1, n_items - 1) uint8 CSR: 1 for training, 2 for validation, 3 for other pairs."""
    shape = tuple(size - 1 for size in shape_of(source))
    keys = [
        (pairs(part) - 1) @ [shape[1], 1] for part in (source.train, source.valid, source.unsplit)
    ]
    # np.unique keeps the first of equal pairs, so the earliest split that has one.
    kept, first = np.unique(np.concatenate(keys), return_index=True)
    kind = np.repeat(np.array([1, 2, 3], dtype=np.uint8), [len(part) for part in keys])[first]
    ids = np.stack(np.divmod(kept, shape[1])).astype(np.int32)
    return sp.csr_array((kind, tuple(ids)), shape=shape)


def _manifest(
    source: Restored,
    vectors: Vectors,
    written: _Written,
    folder: Path,
    precision: str,
    histories: bool,
) -> dict[str, Any]:
    """Makes the manifest: all that a server of the files has to know."""
    files = [file for side in SIDES for file in written.files[side]]
    files += [HISTORIES] if histories else []
    sides = {side: {"count": written.counts[side], "files": written.files[side]} for side in SIDES}
    return {
        **describe_source(source),
        "metric": "cosine" if written.normalised and not vectors.biases else "dot",
        "dimensions": vectors.width,
        "dtype": precision,
        "biases": {
            "folded_in": bool(vectors.biases) and precision != "int8",
            "of": list(vectors.biases),
        },
        "score_transform": vectors.transform,
        "approximation": vectors.approximation,
        **sides,
        "histories": HISTORIES if histories else None,
        "sha256": {file: sha256(folder / file) for file in files},
    }
