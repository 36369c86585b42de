"""FreqRank: RCE-KD's loss under a name of its own, with defaults for what stands around it."""

import pytest
import torch

from recbole_freqd.config.complete import method_options
from recbole_freqd.core.files import parse_yaml
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import FeatureRanker, top_items
from recbole_freqd.core.schema import method_keys, properties_folder, read_keys, run_defaults
from recbole_freqd.losses import LOSSES
from tests.support.oracles import random_interactions

SHORT = {"k": 2, "sampled": 2, "top": 5}
EVERYONE, NONE = torch.arange(1, 9), torch.empty(0, dtype=torch.int64)


def tables(seed, width, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, width, generator=generator).requires_grad_(grad) for n in (9, 10))


@pytest.mark.parametrize("options", [{}, {"tau": 2.0, "gamma": 0.5, "cap": None}])
def test_its_value_and_gradients_are_those_of_rce_kd_bit_for_bit(options):
    values, gradients = [], []
    for name in ("RCE-KD", "FreqRank"):
        student = tables(2, 3, grad=True)
        loss = LOSSES.get(name)(
            random_interactions(5), (3, 3), tables(1, 5), seed=4, refresh=1, **SHORT, **options
        )
        for epoch in range(2):
            loss.start_epoch(epoch)
            values.append(loss(student, EVERYONE, NONE, None))
            values[-1].backward()
        gradients.append([table.grad for table in student])
    assert values[:2] == values[2:] and values[0] > 0
    assert all(torch.equal(one, other) for one, other in zip(*gradients))


def test_every_epoch_makes_the_lists_of_its_share_of_the_users_anew():
    loss = LOSSES.get("FreqRank")(
        random_interactions(5), (3, 3), tables(1, 5), seed=4, refresh=3, k=2, sampled=2, top=4
    )
    users = torch.arange(9)
    for epoch in (0, 1, 2, 5):
        before = loss._lists.clone()
        loss.start_epoch(epoch, FeatureRanker(*tables(10 + epoch, 3)))
        student = FeatureRanker(*tables(10 + epoch, 3))
        own = top_items(student, 2, exclude=loss.user_items, allowed=loss.known_items).ids
        fresh = torch.full_like(users, epoch == 0).bool() | (users % 3 == epoch % 3)
        assert torch.equal(loss._lists[fresh, :2], own[fresh])
        assert torch.equal(loss._lists[~fresh], before[~fresh])
        assert not torch.equal(loss._lists[fresh], before[fresh])


def test_lists_that_are_kept_longer_than_an_epoch_are_part_of_the_state():
    def started(epochs, state=None):
        loss = LOSSES.get("FreqRank")(
            random_interactions(5), (3, 3), tables(1, 5), seed=4, refresh=3, **SHORT
        )
        loss.load_epoch_state(state or {})
        for epoch in epochs:
            loss.stream.restart(epoch)
            loss.start_epoch(epoch, FeatureRanker(*tables(10 + epoch, 3)))
        return loss

    whole, half = started(range(4)), started(range(3))
    resumed = started([3], half.epoch_state())
    for name in ("_lists", "_chances", "_gamma"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name))
    assert not torch.equal(whole._lists, started([3])._lists)


def by_users(user_ids, student, **options):
    loss = LOSSES.get("FreqRank")(
        random_interactions(5), (3, 3), tables(1, 5), seed=4, refresh=1, **SHORT, **options
    )
    loss.start_epoch(0, FeatureRanker(*student))
    return loss, lambda ids: loss(student, ids, NONE, None)


def test_a_step_computes_so_many_users_drawn_anew_and_the_same_loss_on_average():
    student, seen = tables(2, 3), []
    loss, of = by_users(EVERYONE, student, step_users=3)
    compute = loss.of_users
    loss.of_users = lambda rows, users: seen.append(users) or compute(rows, users)
    values = torch.stack([of(EVERYONE.repeat(2)) for _ in range(2000)])
    assert all(len(users) == 3 and torch.equal(users, users.unique()) for users in seen)
    assert torch.cat(seen).unique().tolist() == EVERYONE.tolist()
    whole = by_users(EVERYONE, student, step_users=None)[1](EVERYONE)
    assert values.std() > 0
    assert abs(values.mean() - whole) < 4 * values.std() / len(values) ** 0.5


def test_a_batch_of_no_more_users_is_computed_as_a_whole_bit_for_bit():
    student = tables(2, 3)
    values = [by_users(EVERYONE, student, step_users=most)[1](EVERYONE) for most in (None, 8)]
    assert torch.equal(*values)


def test_lists_from_an_index_begin_with_a_share_of_the_users_and_the_others_wait():
    pytest.importorskip("faiss")
    loss = LOSSES.get("FreqRank")(
        random_interactions(5), (3, 3), tables(1, 5), seed=4, refresh=3, lists=ListMaker(1), **SHORT
    )
    student = tables(2, 3)
    for epoch, ready in enumerate([[3, 6], [1, 3, 4, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8]]):
        loss.start_epoch(epoch, FeatureRanker(*student))
        there = (loss._lists[1:] > 0).any(dim=1).nonzero()[:, 0] + 1
        assert there.tolist() == ready
        torch.testing.assert_close(loss(student, EVERYONE, NONE), loss(student, there, NONE))


def test_its_keys_are_those_of_rce_kd_under_a_prefix_of_its_own():
    ours, theirs = method_keys("FreqRank"), method_keys("RCE-KD")
    assert list(ours) == [key.replace("rcekd_", "freqrank_") for key in theirs]
    for own, other in zip(ours.values(), theirs.values()):
        assert (own.types, own.range) == (other.types, other.range)
        if not own.name.endswith(("_beta", "_refresh", "_step_users")):
            assert own.default == other.default


def test_the_two_marked_lines_are_no_keys_of_the_method_and_no_other_method_has_any():
    assert run_defaults("FreqRank") == {
        "teacher_filter": "auto",
        "weight_average": 0.15,
        "warm_start": "lists",
    }
    for name in LOSSES.names():
        prefix = LOSSES.get(name).prefix
        assert all(key.startswith(f"{prefix}_") for key in method_keys(name))
        assert name == "FreqRank" or run_defaults(name) == {}


def test_its_search_space_is_that_of_rce_kd():
    ours, theirs = (
        parse_yaml((properties_folder() / "search" / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("FreqRank", "RCE-KD")
    )
    assert {key.replace("freqrank_", "rcekd_"): line for key, line in ours.items()} == theirs
    assert set(ours) <= set(read_keys("trainer/FreqRank.yaml"))


def test_a_weight_of_zero_is_allowed_and_leaves_the_student_alone(
    tiny_config, teacher_recipe, caplog
):
    from recbole_freqd.jobs import run as runs

    with caplog.at_level("WARNING", "recbole_freqd"):
        config = tiny_config(trainer="freqrank", teacher=teacher_recipe, freqrank_beta=0)
        run = runs.run(config, test=False)
    assert method_options(config, "FreqRank")["beta"] == 0
    assert run.trainer.methods == ["FreqRank"] and len(run.trainer.distiller.losses) == 0
    assert "FreqRank has weight 0" in caplog.text


def test_of_the_student_alone_from_the_warm_start_no_weight_is_warned_of(
    tiny_config, teacher_recipe, caplog
):
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.jobs.lineup import baselines

    entries = baselines(tiny_config(trainer="FD", teacher=teacher_recipe))
    with caplog.at_level("WARNING", "recbole_freqd"):
        for entry in entries[1:]:
            run = runs.run(entry.config, test=False, untrained=entry.untrained)
            assert len(run.trainer.distiller.losses) == 0
    assert [entry.role for entry in entries[1:]] == ["cut", "student_warm"]
    assert "weight 0" not in caplog.text
