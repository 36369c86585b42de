"""Every loss over lists takes them from the index where there is one, and is then the same."""

import pytest
import torch

from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.losses import LOSSES
from tests.losses.test_listwise_losses import EVERYONE, tables
from tests.support.oracles import earlier_teachers, random_interactions

SHORT = {
    "KD": {"k": 3, "guide": "student"},
    "CD": {"depth": 4, "samples": 2, "guide": "student"},
    "RD": {"k": 3},
    "RRD": {"k": 2, "uninteresting": 1, "top": 4},
    "DCD": {"k": 2, "top": 4},
    "RCE-KD": {"k": 2, "sampled": 2, "top": 5},
    "FreqRank": {"k": 2, "sampled": 2, "top": 5, "refresh": 1},
    "HetComp": {"k": 4, "positives": 2, "every": 2},
}


class CountingLists(ListMaker):
    """Counts the lists that it makes."""

    count = 0

    def top_blocks(self, *args, **options):
        self.count += 1
        return super().top_blocks(*args, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [*SHORT.items(), *((name, {**SHORT[name], "guide": "teacher"}) for name in ("KD", "CD"))],
)
def test_a_loss_is_the_same_with_lists_from_an_index_that_finds_all(name, options):
    pytest.importorskip("faiss")
    values, makers = [], (CountingLists(), CountingLists(1))
    for maker in makers:
        loss = LOSSES.get(name)(
            random_interactions(5),
            (3, 3),
            tables(1, 5),
            seed=4,
            teacher_trajectory=earlier_teachers(2) if name == "HetComp" else (),
            lists=maker,
            **options,
        )
        loss.start_epoch(0, FeatureRanker(*tables(2)))
        values.append(loss(tables(2), EVERYONE, EVERYONE, None))
    assert makers[0].count == makers[1].count > 0 and makers[1]._made
    torch.testing.assert_close(values[0], values[1])
