"""Top lists, exact or, beyond a size of the catalogue, from an approximate index."""

import logging
from collections.abc import Iterator
from typing import Optional

import scipy.sparse as sp
import torch
from tqdm import tqdm

from recbole_freqd.core.index import ItemIndex
from recbole_freqd.core.rankers import (
    BUDGET_BYTES,
    Ranker,
    TopItems,
    collected,
    stored_pairs,
    top_blocks,
)
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import Features
from recbole_freqd.core.top import best_of

_MOST_USERS = 4096
_SPARE = 32  # items fetched beyond a list, for those that a user has trained on
_WIDER = 4  # times as many items and cells for users whose list is short
_BY_STAND_INS = 4  # times as many items where other features stand for the scores
_CANDIDATE = 64  # bytes of a candidate on its way into a list
_LEAST_RECALL = 0.9
_SAMPLED_USERS = 128
_MEASURED_EVERY = 10
_EXACT = "For exact lists set index_items: null."
logger = logging.getLogger(__name__)


class ListMaker:
    """Makes top lists: of every item's score, or beyond a size of the catalogue by an index.

    The index finds candidates by the features that scores are products of, biases as columns; the
    ranker's own scores decide among them. A user whose list stays short, since most of what was
    found is left out, is asked for more, and then ranked exactly. How much of the exact lists is
    found is measured on a sample of users, for the first and every tenth index of a title.

    Args:
        items: Beyond so many items lists come from an index; None: never.
        nprobe: Cells of the index that are searched for a user.
        seed: Of the index and the sample.

    Attributes:
        recalls: By title, what was measured last.
        least: So long are a teacher's lists made at least, since more than one part reads them.

    Example:
        >>> from recbole_freqd.core.rankers import FeatureRanker
        >>> ranker = FeatureRanker(torch.tensor([[0.0], [2.0]]), torch.tensor([[9.0], [1.0]]))
        >>> ListMaker(items=None).top_items(ranker, 1).ids.tolist()
        [[1], [1]]
    """

    def __init__(self, items: Optional[int] = None, nprobe: int = 64, seed: int = 0) -> None:
        self.items, self.nprobe, self.seed = items, nprobe, seed
        self.recalls: dict[str, float] = {}
        self.least = 0
        self._made: dict[str, int] = {}

    def top_items(
        self,
        ranker: Ranker,
        k: int,
        *,
        exclude: Optional[sp.csr_array] = None,
        allowed: Optional[torch.Tensor] = None,
        stand_ins: Optional[Features] = None,
        progress: bool = False,
        title: str = "Ranking",
    ) -> TopItems:
        """As :func:`recbole_freqd.core.rankers.top_items`; for ``stand_ins`` see top_blocks."""
        blocks = self.top_blocks(
            ranker,
            k,
            exclude=exclude,
            allowed=allowed,
            stand_ins=stand_ins,
            progress=progress,
            title=title,
        )
        return collected(ranker, k, blocks)

    def top_blocks(
        self,
        ranker: Ranker,
        k: int,
        *,
        users: Optional[torch.Tensor] = None,
        exclude: Optional[sp.csr_array] = None,
        allowed: Optional[torch.Tensor] = None,
        stand_ins: Optional[Features] = None,
        progress: bool = False,
        title: str = "Ranking",
    ) -> Iterator[tuple[torch.Tensor, TopItems]]:
        """As :func:`recbole_freqd.core.rankers.top_blocks`.

        Args:
            users: (b,) int64, whose lists; None: all.
            stand_ins: Features (n_users, d) and (n_items, d) that candidates are found by where
                the scores are no products of features, e.g. spectral ones.

        Raises:
            ConfigError: The catalogue is beyond the size, and faiss is not installed.
        """
        features = self._features_of(ranker, stand_ins, title)
        if features is None:
            yield from top_blocks(
                ranker,
                k,
                users=users,
                exclude=exclude,
                allowed=allowed,
                progress=progress,
                title=title,
            )
            return
        search = _Search(
            ranker,
            *features,
            k=k,
            exclude=exclude,
            allowed=allowed,
            nprobe=self.nprobe,
            seed=self.seed,
        )
        if self._made.setdefault(title, 0) % _MEASURED_EVERY == 0:
            self._report(search, title)
        self._made[title] += 1
        if users is None:
            users = torch.arange(ranker.shape[0], device=ranker.device)
        blocks = users.split(search.users_at_once())
        for some in tqdm(blocks, desc=title, ncols=100, disable=not progress):
            yield some, search.lists_of(some)

    def is_beyond(self, ranker: Ranker) -> bool:
        """Whether a ranker has more items than are ranked exactly."""
        return self.items is not None and ranker.shape[1] - 1 > self.items

    def _features_of(
        self, ranker: Ranker, stand_ins: Optional[Features], title: str
    ) -> Optional[tuple[Features, bool]]:
        """What is indexed, and whether the scores are its products; None for exact lists."""
        if not self.is_beyond(ranker):
            return None
        factors = ranker.factors()
        features = stand_ins if factors is None else factors
        if features is None:
            _say_once(self._made, title, "the scores are no products of features")
        elif not all(bool(part.isfinite().all()) for part in features[1].split(_MOST_USERS)):
            _say_once(self._made, title, "some features are not finite")
        else:
            return features, factors is not None
        return None

    def _report(self, search: "_Search", title: str) -> None:
        """Measures the recall of a search, and logs it."""
        recall, count = search.recall(), search.index.n_cells
        self.recalls[title] = recall
        logger.info(
            "%s: from an index of %d items in %d cells, of which %d are searched for a user; "
            "recall@%d against exact lists is %.3f, on %d users.",
            *(title, search.n_indexed, count, min(self.nprobe, count)),
            *(search.k, recall, len(search.sample())),
        )
        if recall < _LEAST_RECALL:
            stands = "" if search.is_exact else ", teacher.spectral_rank"
            logger.warning(
                "%s: recall@%d is %.3f, below %.1f: lists miss items that they should have. Raise "
                "index_nprobe (now %d of %d cells)%s. %s",
                *(title, search.k, recall, _LEAST_RECALL, min(self.nprobe, count), count),
                *(stands, _EXACT),
            )


class _Search:
    """An index of a ranker's items, and what counts in its lists.

    Args:
        ranker: Its scores decide.
        features: What candidates are found by. is_exact: Whether the scores are its products.
        k: Length of the lists. exclude, allowed: See :func:`top_blocks`.
        nprobe: Cells that are searched. seed: Of the index and the sample.
    """

    def __init__(
        self,
        ranker: Ranker,
        features: Features,
        is_exact: bool,
        *,
        k: int,
        exclude: Optional[sp.csr_array],
        allowed: Optional[torch.Tensor],
        nprobe: int,
        seed: int,
    ) -> None:
        self.ranker, self.users, self.exclude, self.allowed = ranker, features[0], exclude, allowed
        self.nprobe, self.seed, self.k = nprobe, seed, min(k, ranker.shape[1] - 1)
        self.is_exact = is_exact
        counts = (ranker.known_items() if allowed is None else allowed).clone()
        counts[0] = False
        found = counts.nonzero()[:, 0]
        self.n_indexed, self.width = len(found), self.k + _SPARE
        self.width *= 1 if is_exact else _BY_STAND_INS
        self.index = ItemIndex(features[1], found, seed=seed)

    def lists_of(self, user_ids: torch.Tensor) -> TopItems:
        """The lists of users (b,), (b, k)."""
        width, nprobe = self.width, self.nprobe
        best, short = self._found(user_ids, width, nprobe)
        for step in ("wider", "exact"):
            again = short.nonzero()[:, 0]
            if len(again) == 0:
                break
            if step == "wider":
                more, still = self._found(user_ids[again], _WIDER * width, _WIDER * nprobe)
                short = torch.zeros_like(short).index_fill_(0, again[still], True)
            else:
                more = self._exact(user_ids[again])
            best.ids[again], best.scores[again] = more.ids, more.scores
        return best

    def users_at_once(self) -> int:
        """Users whose candidates, at their widest, fit the memory budget."""
        return max(1, min(_MOST_USERS, BUDGET_BYTES // (_CANDIDATE * _WIDER * self.width)))

    def _found(
        self, user_ids: torch.Tensor, width: int, nprobe: int
    ) -> tuple[TopItems, torch.Tensor]:
        """Lists of the best of so many candidates, and (b,) bool, whose are too short."""
        width = min(width, self.n_indexed)
        items = self.index.search(self.users[user_ids.to(self.users.device)], width, nprobe)
        items = items.to(self.ranker.device)
        scores = self.ranker.at(user_ids, items).float()
        scores.masked_fill_((items == 0) | self._is_left_out(user_ids, items), -torch.inf)
        best, places = best_of(scores, min(self.k, width))
        ids = items.gather(1, places).masked_fill_(best.isneginf(), 0).int()
        lists = _padded(TopItems(ids, best), self.k)
        return lists, lists.scores[:, -1].isneginf()

    def _is_left_out(self, user_ids: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """(b, w) bool, the pairs of ``exclude`` among candidates (b, w)."""
        if self.exclude is None:
            return torch.zeros_like(items, dtype=torch.bool)
        n_items = self.ranker.shape[1]
        row, column = stored_pairs(self.exclude, user_ids)
        pairs = (row * n_items + column).sort().values
        if len(pairs) == 0:
            return torch.zeros_like(items, dtype=torch.bool)
        asked = torch.arange(len(items), device=items.device)[:, None] * n_items + items
        places = torch.searchsorted(pairs, asked).clamp_(max=len(pairs) - 1)
        return pairs[places] == asked

    def _exact(self, user_ids: torch.Tensor) -> TopItems:
        blocks = top_blocks(
            self.ranker, self.k, users=user_ids, exclude=self.exclude, allowed=self.allowed
        )
        parts = [lists for _, lists in blocks]
        return TopItems(*(torch.cat([getattr(one, of) for one in parts]) for of in _FIELDS))

    def sample(self) -> torch.Tensor:
        """(b,) int64, users whose lists are looked at, drawn by the seed; never the padding."""
        generator = RandomStream(self.seed).on("cpu")
        drawn = 1 + torch.randperm(self.ranker.shape[0] - 1, generator=generator)[:_SAMPLED_USERS]
        return drawn.to(self.ranker.device)

    def recall(self) -> float:
        """The share of exact lists that is found, over the sample."""
        users = self.sample()
        found, exact = self.lists_of(users).ids, self._exact(users).ids
        hits = (exact[:, :, None] == found[:, None, :]).any(dim=2) & (exact > 0)
        return float(hits.sum() / (exact > 0).sum().clamp(min=1))


_FIELDS = ("ids", "scores")


def _padded(lists: TopItems, k: int) -> TopItems:
    """The same, k wide, by item 0 at -inf."""
    missing = k - lists.ids.shape[1]
    if missing <= 0:
        return lists
    pad = torch.nn.functional.pad
    return TopItems(pad(lists.ids, (0, missing)), pad(lists.scores, (0, missing), value=-torch.inf))


def _say_once(made: dict[str, int], title: str, why: str) -> None:
    if made.setdefault(f"exact {title}", 0) == 0:
        logger.warning("%s: exact lists of all items, since %s.", title, why)
    made[f"exact {title}"] += 1
