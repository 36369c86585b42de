"""Makes a teacher from files of any other system: its vectors, or its lists."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.config.identity import data_fingerprint, same_data
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import LISTS, VECTORS, reserved_option
from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.core.files import file_hash
from recbole_freqd.core.pair_files import Columns
from recbole_freqd.core.rankers import FeatureRanker, Ranker
from recbole_freqd.core.rows import Features, empty_rows
from recbole_freqd.core.vector_files import hash_of_export, read_export
from recbole_freqd.features.data import Known
from recbole_freqd.features.extract import choose_rank, stored_as
from recbole_freqd.teacher.alignment import Alignment, align_tokens, check_overlap
from recbole_freqd.teacher.base import Teacher, is_mapped, make_features_once
from recbole_freqd.teacher.files.listed import ListRanker, spectral_features
from recbole_freqd.teacher.files.lists import Lists, read_lists
from recbole_freqd.teacher.leakage import warn_of_lists
from recbole_freqd.teacher.taught import RankedBy, team_config
from recbole_freqd.teacher.team.rescaling import MaskedRanker

logger = logging.getLogger(__name__)


@dataclass
class FilesTeacher(Teacher):
    """A teacher made of files; there is no model behind it.

    Attributes:
        scores: What it ranks by, in the student's ids; -inf for items that it does not know.
        masks: Masks (n_users,) and (n_items,) of what it knows, the padding not.
        content: A hash of its files.
        kept: What has to be kept to rank by it.
    """

    scores: Optional[Ranker] = None
    masks: Optional[Known] = None
    content: str = ""
    kept: tuple[torch.Tensor, ...] = ()

    @property
    def known(self) -> Optional[Known]:
        return self.masks

    def model(self, dataset: Any) -> torch.nn.Module:
        model = RankedBy(self.ranker(dataset), self.config)
        for number, tensor in enumerate(self.kept):
            model.register_buffer(f"kept_{number}", tensor)  # so that its size is known
        return model.eval()

    def weights(self) -> str:
        return self.content

    def ranker(self, dataset: Any) -> Ranker:
        if self.scores is None:
            raise TeacherError(f"Teacher {self.checkpoint} has no scores.")
        return self.scores


def from_vectors(
    config: Any, spec: dict[str, Any], train_data: Any, valid_data: Optional[Any]
) -> Teacher:
    """Makes a teacher from files of vectors; their inner products are its scores.

    Args:
        config: The student's Config.
        spec: Its ``teacher`` keys.
        train_data, valid_data: The student's loaders.

    Raises:
        ConfigError, CheckpointError, TeacherError: There are no vectors, or they do not fit.
    """
    folder, named_by = Path(spec[VECTORS]), f"{TEACHER}.{VECTORS}"
    if spec.get("spectral_rank") is not None:
        raise ConfigError(
            f"teacher.spectral_rank: got {spec['spectral_rank']}, but vectors are taught "
            "unchanged. Remove it."
        )
    exported = read_export(folder, named_by)
    student = train_data._dataset
    _check_data(str(folder), (exported.manifest or {}).get("data"), student, spec)
    padded = tuple(np.concatenate([[""], names]) for names in exported.tokens)
    alignment = align_tokens(padded, student)  # type: ignore[arg-type]
    check_overlap(alignment, reserved_option(spec, "min_overlap"), str(folder))
    mapped = is_mapped(config, spec)
    tables = [_with_padding(rows, config["device"], mapped) for rows in exported.vectors]
    user, item = alignment.remapped((tables[0], tables[1]), mapped=mapped)
    known = None if alignment.is_complete else alignment.known
    ranker: Ranker = FeatureRanker(user, item)
    if known is not None:
        ranker = MaskedRanker((user, item), torch.from_numpy(known[1]).to(user.device))
    plain = user[:, : exported.width], item[:, : exported.width]
    features = make_features_once(config, spec, partial(_stored, config, spec, plain))
    logger.info("Teacher: vectors of %d numbers from %s", exported.width, folder)
    content = hash_of_export(folder, named_by)
    world = team_config(config, VECTORS)
    return FilesTeacher(
        world, str(folder), features, "files", scores=ranker, masks=known, content=content,
        kept=(user, item),
    )  # fmt: skip


def from_lists(
    config: Any, spec: dict[str, Any], train_data: Any, valid_data: Optional[Any]
) -> Teacher:
    """Makes a teacher from a file of lists.

    Its features are the best approximation of what is listed, of ``teacher.spectral_rank``
    dimensions.

    Args:
        config, spec, train_data, valid_data: As of :func:`from_vectors`.

    Raises:
        ConfigError, CheckpointError, TeacherError: There are no lists, or they do not fit.
    """
    path, student = Path(spec[LISTS]), train_data._dataset
    lists = read_lists(path, _columns(config, spec), f"{TEACHER}.{LISTS}")
    _check_data(str(path), lists.metadata.get("data"), student, spec)
    padded = tuple(np.concatenate([[""], names]) for names in (lists.users, lists.items))
    alignment = align_tokens(padded, student)  # type: ignore[arg-type]
    _check_lists(alignment, reserved_option(spec, "min_overlap"), str(path))
    above, floors = _in_student_ids(lists, alignment)
    warn_of_lists(
        above, train_data, valid_data, left_out=lists.metadata.get("left_out"), path=str(path)
    )
    known = np.diff(above.indptr) > 0, alignment.known[1]
    is_complete = all(mask[1:].all() for mask in known)
    ranker = ListRanker(above, floors, known[1], config["device"])
    features = make_features_once(config, spec, partial(_spectral, config, spec, above))
    world = team_config(config, LISTS)
    return FilesTeacher(
        world, str(path), features, "files", scores=ranker,
        masks=None if is_complete else known, content=file_hash(path),
        kept=tuple(map(torch.from_numpy, (above.data, above.indices, above.indptr))),
    )  # fmt: skip


def _columns(config: Any, spec: dict[str, Any]) -> Columns:
    return Columns(
        spec.get("lists_user") or config["USER_ID_FIELD"],
        spec.get("lists_item") or config["ITEM_ID_FIELD"],
        reserved_option(spec, "lists_score"),
        reserved_option(spec, "lists_rank"),
    )


def _check_data(
    path: str, record: Optional[dict[str, str]], student: Any, spec: dict[str, Any]
) -> None:
    """Logs what is known of the training data of the teacher behind the files.

    Raises:
        TeacherError: It has the same users and items and other training pairs, so another split.
    """
    own = data_fingerprint(student)
    if record is not None and same_data(record, own):
        logger.info("Teacher %s was trained on the student's own training pairs.", path)
        return
    allow = bool(spec.get("allow_leakage"))
    if record is not None and record["tokens"] == own["tokens"] and not allow:
        raise TeacherError(
            f"Teacher {path} was trained on the student's users and items, but on other pairs: "
            "what it has seen of the student's validation and test pairs is unknown. Use files of "
            "a teacher of the same split, or set teacher.allow_leakage: true if you know what you "
            "do."
        )
    log = logger.info if allow else logger.warning
    log(
        "Teacher %s: whether the system behind these files has seen the student's validation and "
        "test pairs cannot be checked. If it has, metrics are too good.",
        path,
    )


def _check_lists(alignment: Alignment, least: float, path: str) -> None:
    """Refuses lists of other users, or of another catalogue.

    Items that are in nobody's list are no sign of that: what counts is whether the student has the
    items that the lists name.

    Raises:
        TeacherError: Less than the share ``least`` of the student's users has a list, or less than
            it of the listed items are the student's; or none of both.
    """
    users, listed_items = int(alignment.known[0].sum()), alignment.sizes[1] - 1
    items = int(alignment.known[1].sum())
    shares = users / (len(alignment.rows[0]) - 1), items / listed_items
    words = (
        f"has lists of {users:,} of the student's {len(alignment.rows[0]) - 1:,} users "
        f"({shares[0]:.1%}), and of the {listed_items:,} items in them {items:,} are the student's "
        f"({shares[1]:.1%})"
    )
    if min(shares) == 0 or min(shares) < least:
        raise TeacherError(
            f"Teacher {path} {words}, by their tokens; allowed: at least {least:.1%} of each "
            "(teacher.min_overlap), and never none. Make lists for this data, or lower "
            "teacher.min_overlap."
        )
    log = logger.info if min(shares) == 1 else logger.warning
    log("Teacher %s %s. The others are not taught.", path, words)


def _in_student_ids(lists: Lists, alignment: Alignment) -> tuple[sp.csr_array, np.ndarray]:
    """How far listed items are above their user's floor (n_users, n_items), and the floors."""
    users, items = (alignment.student_ids(side)[1:] for side in (0, 1))
    user, item = users[lists.user], items[lists.item]
    kept = (user > 0) & (item > 0)
    above = (lists.scores - lists.floors[lists.user])[kept].astype(np.float32)
    ids = tuple(side[kept].astype(np.int32) for side in (user, item))  # half of what 64 bits take
    shape = len(alignment.rows[0]), len(alignment.rows[1])
    floors = np.zeros(shape[0], dtype=np.float32)
    floors[users[users > 0]] = lists.floors[users > 0]
    return sp.csr_array((above, ids), shape=shape), floors


def _spectral(config: Any, spec: dict[str, Any], above: sp.csr_array) -> Features:
    rank = choose_rank(spec.get("spectral_rank"), above.shape)
    features, share = spectral_features(above, rank, config["device"])
    logger.info(
        "Features of the lists: truncated SVD, rank %d, %.1f %% of their energy kept. Methods "
        "that teach scores take the lists unchanged.",
        features[0].shape[1],
        100 * share,
    )
    return _stored(config, spec, features)


def _stored(config: Any, spec: dict[str, Any], features: Features) -> Features:
    """Features in the form that the reserved keys ask for."""
    dtype, mapped = getattr(torch, reserved_option(spec, "precision")), is_mapped(config, spec)
    user, item = (stored_as(table, dtype, mapped) for table in features)
    return user, item


def _with_padding(rows: np.ndarray, device: Any, mapped: bool) -> torch.Tensor:
    """(n + 1, d) float32, row 0 zero."""
    table = empty_rows(len(rows) + 1, rows.shape[1], torch.float32, device, mapped=mapped)
    table[0], table[1:] = 0, torch.from_numpy(rows)
    return table
