"""The mixin calls its parts when it says it does; each part works alone, with a stand-in trainer."""

import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import recbole_freqd
from recbole_freqd.core.errors import TrainingError
from recbole_freqd.runtime import seconds
from recbole_freqd.runtime.finite import FiniteNumbers
from recbole_freqd.runtime.parts import Fit, Part
from recbole_freqd.runtime.seconds import Seconds, counted_as_choice, not_counted, student_clock
from recbole_freqd.runtime.trainer import PartsTrainer, mix_into

MOMENTS = [name for name in vars(Part) if not name.startswith("_")]


class Recorder(Part):
    """Writes down the moments, and what is asked for at each."""

    def __init__(self, trainer):
        super().__init__(trainer)
        self.seen, self.losses = [], []

    def begin_fit(self, fit):
        self.seen.append("begin_fit")

    def begin_epoch(self, epoch):
        self.seen.append(f"begin_epoch {epoch}")

    def check(self, loss):
        self.seen.append("check")

    def end_epoch(self, epoch):
        self.seen.append(f"end_epoch {epoch}")

    def begin_evaluation(self, loader):
        self.seen.append("begin_evaluation")

    def end_validation(self, score):
        self.seen.append(f"end_validation best {self.trainer.best_valid_score}")

    def end_fit(self, fit):
        self.seen.append("end_fit")

    def fold_loss(self, loss):
        self.seen.append("fold_loss")

        def doubled(interaction):
            self.seen.append("loss")
            self.losses.append(float(loss(interaction).detach()))
            return 2 * loss(interaction)

        return doubled

    @contextmanager
    def within(self, name):
        self.seen.append(f"before {name}")
        yield
        self.seen.append(f"after {name}")

    def starting(self):
        return self.within("constructor")

    def fitting(self, fit):
        return self.within("fit")

    def saving(self, path):
        return self.within("saving")

    def loading(self, path):
        return self.within("loading")


class Recorded(PartsTrainer):
    def make_parts(self):
        return [*super().make_parts(), Recorder(self)]


@pytest.fixture
def recorded(built):
    from recbole.trainer import Trainer

    def make(**keys):
        model, loaders = built(train_batch_size=1000, **keys)
        return mix_into(Recorded, Trainer)(loaders[0]._dataset.config, model), loaders

    return make


def test_every_moment_comes_when_the_documentation_says(recorded):
    trainer, (train, valid, _) = recorded(epochs=1)
    trainer.fit(train, valid)
    assert trainer.part(Recorder).seen == [
        "before constructor",
        "after constructor",
        "begin_fit",
        "fold_loss",
        "before fit",
        "begin_epoch 0",
        "loss",
        "check",
        "end_epoch 0",
        "begin_evaluation",
        "end_validation best -inf",
        "before saving",
        "after saving",
        "end_fit",
        "after fit",
    ]
    trainer.part(Recorder).seen.clear()
    trainer.resume_checkpoint(trainer.saved_model_file)
    assert trainer.part(Recorder).seen == ["before loading", "after loading"]


def test_what_is_folded_is_trained_on_and_taken_back_also_after_an_error(recorded, monkeypatch):
    trainer, (train, valid, _) = recorded(epochs=1)
    trainer.fit(train, valid)
    losses = trainer.part(Recorder).losses
    assert len(losses) == 1 and trainer.train_loss_dict[0] == pytest.approx(2 * losses[0], rel=1e-6)
    monkeypatch.setattr(Recorder, "check", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(train, valid)
    assert "calculate_loss" not in vars(trainer.model)
    assert trainer.part(Recorder).seen[-1] != "end_fit"


def test_a_part_adds_nothing_unless_it_overrides_something():
    part, loss = Part(SimpleNamespace()), print
    assert part.fold_loss(loss) is loss and part.depends_on() == ()
    assert part.state_dict(finished=False) == {}


def test_the_architecture_page_lists_every_moment():
    page = Path(recbole_freqd.__file__).resolve().parents[1] / "docs" / "development.md"
    table = page.read_text(encoding="utf-8").partition("## One epoch")[2]
    first = " ".join(re.findall(r"^\| (`.*?) \|", table, re.M))
    assert sorted(re.findall(r"`(\w+)`", first)) == sorted(MOMENTS)


# --- parts alone --------------------------------------------------------------------------------


def stand_in(**attributes):
    model = torch.nn.Linear(2, 2)
    own = {"model": model, "trained_beside": {}, "terms": {}, "steps": 0, "epoch": 4}
    own["saved_model_file"] = "none.pth"
    return SimpleNamespace(**{**own, **attributes})


def test_finite_numbers_names_the_epoch_and_what_of_the_loss_it_was():
    terms = {"base": torch.tensor(1.0), "FreqD": torch.tensor(float("nan"))}
    part = FiniteNumbers(stand_in(terms=terms, steps=3))
    part.check(torch.tensor(1.0))
    with pytest.raises(TrainingError, match=r"nan in step 3 of epoch 4; not finite: FreqD\."):
        part.check(torch.tensor(float("nan")))


def test_finite_numbers_explains_what_anomaly_detection_found_and_nothing_else():
    part, zero = FiniteNumbers(stand_in()), torch.zeros(1, requires_grad=True)

    def raised(work):
        with pytest.raises(RuntimeError) as info:
            work()
        return info.value

    with pytest.warns(UserWarning, match="Anomaly|Error det"), torch.autograd.detect_anomaly():
        nan = raised((zero.sqrt() * 0).backward)
        part.explain(raised(lambda: torch.ones(2) @ torch.ones(3)))
        part.explain(torch.cuda.OutOfMemoryError("out of memory"))
        with pytest.raises(TrainingError, match="A gradient is nan in epoch 4: .*SqrtBackward0"):
            part.explain(nan)
    with torch.autograd.set_detect_anomaly(False):  # RecBole's trainers may leave it on
        part.explain(nan)


def test_finite_numbers_names_spoiled_weights_beside_the_model_by_what_they_are_of():
    beside = torch.nn.Linear(1, 1)
    part = FiniteNumbers(stand_in(trained_beside={"FreqD": beside}))
    part.end_epoch(4)
    with torch.no_grad():
        beside.bias[0] = float("inf")
    with pytest.raises(TrainingError, match="epoch 4 made weights .*finite: FreqD bias"):
        part.end_epoch(4)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(seconds, "perf_counter", lambda: now.time)
    return now


def test_the_clock_is_put_back_after_what_does_not_count_and_runs_inside(clock):
    start = student_clock()
    clock.time += 2
    with not_counted():
        inner = student_clock()
        clock.time += 10
        with not_counted():
            clock.time += 5
        assert student_clock() - inner == 10
    clock.time += 1
    assert student_clock() - start == 3


@pytest.mark.parametrize("bigger", [True, False])
def test_seconds_are_those_to_the_best_validation_and_all_in(clock, bigger):
    worst = -float("inf") if bigger else float("inf")
    trainer = stand_in(valid_metric_bigger=bigger, best_valid_score=worst)
    part, fit = Seconds(trainer), Fit(None)
    clock.time += 3  # data
    part.begun -= 2  # read before the trainer was made
    part.begin_fit(fit)
    for epoch, score in enumerate([0.2, 0.4, 0.3]):
        part.begin_epoch(epoch)
        clock.time += 10
        part.end_epoch(epoch)
        clock.time += 1
        part.end_validation(score if bigger else -score)
        trainer.best_valid_score = [0.2, 0.4, 0.4][epoch] * (1 if bigger else -1)
    part.end_fit(fit)
    assert part.of_epochs == [10, 10, 10] and part.per_epoch() == 10
    assert (part.best_epoch, part.to_best, part.all_in) == (2, 5 + 22, 5 + 33)


def test_seconds_go_on_from_a_state_and_those_of_a_finished_run_stay(clock):
    trainer = stand_in(valid_metric_bigger=True, best_valid_score=-1.0)
    first = Seconds(trainer)
    clock.time += 7
    first.end_validation(0.0)
    clock.time += 1
    state = first.state_dict(finished=False)
    clock.time += 1000
    again = Seconds(trainer)
    again.begin_fit(Fit(None))
    again.load_state_dict(state)
    assert (again.best_epoch, again.to_best, again.all_in) == (0, 7, None)
    clock.time += 2
    again.end_fit(Fit(None))
    assert again.all_in == 10
    done = Seconds(trainer)
    done.begin_fit(Fit(None))
    done.load_state_dict(again.state_dict(finished=True))
    clock.time += 50
    done.end_fit(Fit(None))
    assert done.all_in == 10


def test_seconds_of_choices_are_counted_for_the_run_that_made_them_and_go_on_from_a_state(clock):
    trainer = stand_in(valid_metric_bigger=True, best_valid_score=-1.0)
    first = Seconds(trainer)
    with pytest.raises(KeyError), counted_as_choice():
        clock.time += 3
        raise KeyError
    clock.time += 5
    again = Seconds(trainer)
    again.begin_fit(Fit(None))
    again.load_state_dict(first.state_dict(finished=False))
    with counted_as_choice():
        clock.time += 1
    again.end_fit(Fit(None))
    assert (first.choosing, again.choosing, again.all_in) == (3, 4, 9)
    again.end_fit(Fit(None))
    assert again.choosing == 4  # once each
