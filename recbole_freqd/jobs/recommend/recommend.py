"""The top lists of a checkpoint, for all users, some, or new ones, in a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import scipy.sparse as sp

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.pair_files import Columns
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.core.schema import read_keys
from recbole_freqd.features.data import tokens
from recbole_freqd.features.extract import ranker_of
from recbole_freqd.jobs.recommend.lists import check_suffix, open_lists
from recbole_freqd.jobs.recommend.people import NewUsers, places_of, read_new_users, read_users
from recbole_freqd.jobs.recommend.top import Block, top_lists
from recbole_freqd.jobs.stored import describe_source, pair_matrix, restore_for_job, shape_of
from recbole_freqd.teacher.restore import Restored

LEAVE_OUT = ("train", "all", "none")


def recommend(
    checkpoint: Union[str, Path],
    out: Union[str, Path],
    *,
    top: int = 20,
    users: Union[str, Path, Sequence[str], None] = None,
    leave_out: str = "train",
    histories: Union[str, Path, None] = None,
    data_path: Optional[str] = None,
    trust: bool = False,
    trust_data: bool = False,
    exact: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Writes the top lists of a checkpoint, block by block, whole or not at all.

    The file has the columns ``user_id, item_id, rank, score`` (the checkpoint's own names of users
    and items), a line for each user and item, best first; of equal scores the item that RecBole
    numbers first. A file that is there already is replaced. The lists are exact up to
    ``index_items`` items, a key of the run that made the checkpoint (its default stands for
    RecBole's own); beyond they come from an approximate index, which needs faiss.

    Args:
        checkpoint: A ``.pth`` file of RecBole or of this package.
        out: A name that ends in ``.csv``, or in ``.parquet`` (needs pyarrow).
        top: ≥ 1, items for each user.
        users: Tokens, or a file with a token in each line; None: all users. What the checkpoint
            does not know is counted, and left out.
        leave_out: Pairs that are not recommended: ``train``, those that it was trained on, for
            lists that are to teach; ``all``, those of validation and test too, for serving;
            ``none``.
        histories: A file of users who came after training, CSV or Parquet with a column of users
            and one of items: their vectors are made by :func:`recbole_freqd.fold_in`, and they get
            lists without what they have (unless ``leave_out`` is ``none``). Instead of ``users``.
        data_path: Where the datasets are now, as RecBole's key, if they have moved.
        trust: Load a checkpoint with classes of your own, which can run code.
        trust_data: Take data that nothing shows to be what the checkpoint was trained on.
        exact: Exact lists of a catalogue of any size.
        progress: Whether to show a bar.

    Returns:
        What is kept as the file's metadata too: the checkpoint, its data, and what was left out.

    Raises:
        ConfigError: An option is not allowed, pyarrow or faiss is missing, no user is known, or the
            model has no item vectors to make a new user of.
        CheckpointError: The checkpoint, its data or a file cannot be read or written.

    Example:
        >>> recbole_freqd.recommend("saved/BPR-FreqD-....pth", "lists.csv")  # doctest: +SKIP
    """
    path = Path(out)
    check_suffix(path)
    _check(top, users, leave_out, histories)
    source = restore_for_job(Path(checkpoint), data_path, trust=trust, trust_data=trust_data)
    columns = Columns(source.stored["USER_ID_FIELD"], source.stored["ITEM_ID_FIELD"])
    item_names = tokens(source.train)[1].astype(np.str_)
    maker = ListMaker() if exact else _maker_of(source)
    if histories is None:
        names, lists = _lists_of_known(source, top, users, leave_out, maker, progress)
    else:
        new = read_new_users(Path(histories), columns, item_names)
        names, lists = _lists_of_new(source, new, top, leave_out, maker, progress)
    metadata = _metadata(source, top, leave_out, users, histories, len(names))
    with open_lists(path, columns, metadata) as write:
        for places, items, scores in lists:
            write(names[places], item_names[items], scores)
    return metadata


def _check(top: Any, users: Any, leave_out: Any, histories: Any) -> None:
    if not isinstance(top, int) or top < 1:
        raise ConfigError(f"--top: got {top!r}; allowed: a whole number of at least 1.")
    if leave_out not in LEAVE_OUT:
        raise ConfigError(f"--leave_out: got {leave_out!r}; allowed: {', '.join(LEAVE_OUT)}.")
    if users is not None and histories is not None:
        raise ConfigError(
            "--users and --histories: the first names users of the training, the second brings new "
            "ones. Give one of them."
        )


def _lists_of_known(
    source: Restored, top: int, users: Any, leave_out: str, maker: ListMaker, progress: bool
) -> tuple[np.ndarray, Iterator[Block]]:
    """Names by id, and the lists of users by id."""
    names = tokens(source.train)[0].astype(np.str_)
    ids = np.arange(1, len(names))
    if users is not None:
        ids = places_of(read_users(users), names, "--users")
    ranker = ranker_of(source.model())
    left_out = _left_out(source, leave_out)
    return names, top_lists(ranker, ids, top, leave_out=left_out, lists=maker, progress=progress)


def _lists_of_new(
    source: Restored, new: NewUsers, top: int, leave_out: str, maker: ListMaker, progress: bool
) -> tuple[np.ndarray, Iterator[Block]]:
    """The same of users who are folded in; 0 stands for nobody."""
    ranker = FeatureRanker(*new.fold_into(source.model()))
    left_out = None if leave_out == "none" else new.chosen
    ids = np.arange(1, len(new.names))
    return new.names, top_lists(
        ranker, ids, top, leave_out=left_out, lists=maker, progress=progress
    )


def _maker_of(source: Restored) -> ListMaker:
    """What the checkpoint's own keys ask for; of those that it does not have, the defaults."""
    stored, keys = source.stored, read_keys("run.yaml")
    items, nprobe = (
        stored[name] if name in stored else keys[name].default
        for name in ("index_items", "index_nprobe")
    )
    return ListMaker(items, nprobe)


def _left_out(source: Restored, leave_out: str) -> Optional[sp.csr_array]:
    """(n_users, n_items), non-zero for the pairs that are not recommended."""
    if leave_out == "none":
        return None
    dataset = source.train if leave_out == "train" else source.unsplit
    return pair_matrix(dataset, shape_of(source))


def _metadata(
    source: Restored, top: int, leave_out: str, users: Any, histories: Any, n_names: int
) -> dict[str, Any]:
    whom = "all" if users is None else "some"
    return {
        **describe_source(source),
        "users": whom if histories is None else f"{n_names - 1} new",
        "top": top,
        "left_out": leave_out,
    }
