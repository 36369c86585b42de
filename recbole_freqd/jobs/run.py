"""One run: data, model, trainer, fit, test. The steps are RecBole's own, taken one by one."""

import logging
from dataclasses import dataclass
from typing import Any, Optional

from recbole_freqd.compat import brief_console, fresh_log_handlers
from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.reading import asking_recbole
from recbole_freqd.config.values import check_data
from recbole_freqd.jobs.tested import Tested, as_floats, evaluate_once
from recbole_freqd.runtime.distributed import full_eval_loader
from recbole_freqd.runtime.processes import Processes
from recbole_freqd.runtime.seconds import Seconds, student_clock
from recbole_freqd.runtime.trainer import mix_into
from recbole_freqd.teacher.base import Teacher, own_model
from recbole_freqd.trainer.distillation import DistillationTrainer, StudentTrainer

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A finished run: its trainer, model, data and results.

    Attributes:
        config, model, trainer: RecBole's (or our) objects; the model is the best of the run.
        data: RecBole's train, valid and test loaders.
        best_valid_score, best_valid_result: Of the best epoch.
        tested: What the test split came to, or None where it was not opened.
        seconds_per_epoch: Median of an epoch: what comes before its first step (lists, masks), and
            its steps, without its validation.
        seconds_to_best, seconds_all_in: From data loading to the best validation, and to the end of
            ``fit``, the training of a teacher left out.
        best_epoch: Epochs trained at the best validation, 0 for a warm start; None without one.
        seconds_choosing: Of ``seconds_all_in``, what ``auto`` and a panel took: weights, filter and
            keys chosen on validation; 0 where an earlier run has kept the choice.
    """

    config: Any
    model: Any
    trainer: Any
    data: tuple[Any, Any, Any]
    best_valid_score: float
    best_valid_result: dict[str, float]
    tested: Optional[Tested]
    seconds_per_epoch: Optional[float]
    seconds_to_best: Optional[float]
    seconds_all_in: Optional[float]
    best_epoch: Optional[int]
    seconds_choosing: float = 0.0

    @property
    def test_result(self) -> Optional[dict[str, float]]:
        """Metrics on the test split, or None where it was not opened."""
        return self.tested.metrics if self.tested else None


def run(
    config: Any,
    *,
    saved: bool = True,
    test: bool = True,
    brief: bool = False,
    untrained: bool = False,
) -> Run:
    """Trains what a Config asks for, with or without distillation; alone or as one of several.

    Random seeds are set where RecBole's ``run_recbole`` sets them, so initial weights and batches
    are those of stock RecBole.

    Args:
        config: A Config made while RecBole is registered.
        saved: Whether the best model is written to, and read back from, a checkpoint.
        test: Whether the test split is evaluated; tuning must not.
        brief: Whether the console gets a line per epoch at most, unless ``state`` is ``DEBUG``.
        untrained: Whether the student stays as it begins: a warm start by itself.

    Raises:
        FreqDError: The teacher or the student is not as it should be.
    """
    from recbole.utils import get_trainer, init_seed

    begun = student_clock()
    train_data, valid_data, test_data = read_data(config, brief=brief)
    # RecBole adds local_rank, which is 0 once on every machine: batches would be drawn alike.
    init_seed(config["seed"] + Processes.of(config).rank, config["reproducibility"])
    with asking_recbole(config):
        model = config.model_class(config, train_data._dataset).to(config["device"])
        logger.info(model)
        found = get_trainer(config["MODEL_TYPE"], config["model"])
        mixin = DistillationTrainer if trainer_names(config["trainer"]) else StudentTrainer
        trainer = mix_into(mixin, found)(config, model)
    if untrained:  # in the config, too: it is another run, and its checkpoint says so
        trainer.epochs = config["epochs"] = 0
    seconds = trainer.part(Seconds)
    seconds.begun = begun
    progress = config["show_progress"]
    score, valid_result = trainer.fit(train_data, valid_data, saved=saved, show_progress=progress)
    if valid_result is None and valid_data:  # RaCT validates nothing while it pretrains
        trainer.eval_collector.data_collect(train_data)
        valid_result = trainer.evaluate(valid_data, saved, show_progress=progress)
        score = valid_result[config["valid_metric"].lower()]
    tested = None
    if test:
        options = {"load_best_model": saved, "show_progress": progress}
        tested = evaluate_once(trainer, train_data, test_data, **options)
        logger.info("Test result of %s: %s", name_of(config), tested.metrics)
    if seconds.choosing and seconds.all_in:
        share = 100 * seconds.choosing / seconds.all_in
        words = "The choice of weights, filter and panel took %.1f of %.1f seconds, %.0f %%"
        logger.info(words, seconds.choosing, seconds.all_in, share)
    trainer.tensorboard.close()
    if config["log_wandb"]:
        trainer.wandblogger._wandb.finish()  # else the next run of this process logs into it
    return Run(
        config, model, trainer, (train_data, valid_data, test_data),
        float(score), as_floats(valid_result), tested,
        trainer.seconds_per_epoch(),
        seconds.to_best, seconds.all_in, seconds.best_epoch, seconds.choosing,
    )  # fmt: skip


def read_data(config: Any, *, brief: bool = False) -> tuple[Any, Any, Any]:
    """RecBole's train, valid and test loaders of a Config, drawn from its seed.

    Args:
        config: A Config made while RecBole is registered.
        brief: See :func:`run`.
    """
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_logger, init_seed

    fresh_log_handlers()
    init_seed(config["seed"], config["reproducibility"])
    with asking_recbole(config):
        if config["local_rank"] == 0:
            init_logger(config)  # makes log/ in the working directory
            if brief and str(config["state"]).upper() != "DEBUG":
                brief_console("evaluating" if config["eval_step"] > 0 else "training", (__name__,))
        else:
            logging.getLogger().setLevel(logging.ERROR)
        logger.info(config)
        dataset = create_dataset(config)
        logger.info(dataset)
        loaders = data_preparation(config, dataset)
        check_data(config, loaders[0]._dataset)
    return loaders


def evaluate_teacher(run: Run, *splits: int) -> tuple[Any, list[dict[str, float]]]:
    """:func:`evaluate_on` of a finished run with distillation: its teacher on its own splits."""
    return evaluate_on(run.data, run.trainer.teacher, *splits)


def evaluate_on(
    data: tuple[Any, Any, Any], teacher: Teacher, *splits: int
) -> tuple[Any, list[dict[str, float]]]:
    """Evaluates a teacher on the splits of a student, all by itself: in one process is enough.

    Args:
        data: The student's train, valid and test loaders.
        teacher: Its teacher.
        *splits: Positions in ``data``: 1 is valid, 2 is test.

    Returns:
        The teacher's model, and its metrics on each split: none where it does not know all users.
    """
    model = teacher.model(data[0]._dataset)
    results = evaluate_model(data, teacher, model, *splits)
    return own_model(model), [result.metrics for result in results]


def evaluate_model(
    data: tuple[Any, Any, Any], teacher: Teacher, model: Any, *splits: int
) -> list[Tested]:
    """What a model that stands for a teacher comes to on each split; see :func:`evaluate_on`."""
    from recbole.trainer import Trainer

    # Not get_trainer's: that of a student of ours would want to be distilled again.
    trainer = Trainer(teacher.config, model)
    trainer.eval_collector.data_collect(data[0])
    results = [
        evaluate_once(trainer, data[0], loader, load_best_model=False)
        if teacher.can_rank(loader)
        else Tested({})
        for loader in (full_eval_loader(data[split]) for split in splits)
    ]
    trainer.tensorboard.close()
    return results


def evaluate_members(run: Run) -> tuple[Optional[dict[str, float]], list[dict[str, Any]]]:
    """The test metrics of what taught a run, unfiltered, and the results of each of its teachers.

    Returns:
        Metrics, None where it does not know all users; and of each member ``name``, ``model``,
        ``weight``, ``valid`` and ``test``, these two None likewise.
    """
    teacher, results = run.trainer.teacher, []
    for member in teacher.members:
        _, found = evaluate_on(run.data, member.teacher, 1, 2)
        valid, test = (metrics or None for metrics in found)
        of_it = {"name": member.name, "model": member.model, "weight": member.weight}
        results.append({**of_it, "valid": valid, "test": test})
    weighed = [result for result in results if result["weight"] > 0]
    if len(weighed) == 1:
        return weighed[0]["test"], results
    (whole_team,) = evaluate_teacher(run, 2)[1]
    return whole_team or None, results


def name_of(config: Any) -> str:
    """``BPR with FreqD`` or ``BPR alone``."""
    names = trainer_names(config["trainer"])
    return f"{config['model']} with {' + '.join(names)}" if names else f"{config['model']} alone"
