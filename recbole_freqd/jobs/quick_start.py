"""`recbole_freqd.run_recbole_freqd`: a run, in one call or on several processes."""

from typing import Any, Optional

from recbole_freqd.trainer.launch import Launch


def run_recbole_freqd(
    model: Optional[str] = None,
    dataset: Optional[str] = None,
    config_file_list: Optional[list[str]] = None,
    config_dict: Optional[dict[str, Any]] = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str = "5678",
    group_offset: int = 0,
) -> dict[str, Any]:
    """Runs RecBole's ``run``, with a distillation trainer if the config names one.

    Args:
        model: The student's name; None: ``model`` of the config.
        dataset: Name of the dataset; None: ``dataset`` of the config.
        config_file_list: YAML files, later ones win.
        config_dict: Keys that win over the files. The command line wins over both.
        saved: Whether the best model is saved and tested; if not, the last one is tested.
        nproc, world_size, ip, port, group_offset: As for RecBole's ``run``: processes on this
            machine, processes on all machines, the address of the first one, and the rank of
            this machine's first. A process takes a GPU, or cores if there is no GPU. See
            ``docs/multi_process.md``.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and
        ``test_result``; ``teacher_test_result``, from the unfiltered teacher or team (None if the
        config names no trainer, or if the teacher does not know all test users);
        ``member_test_results``, a list of ``{name, model, weight, valid, test}``, one for each
        teacher of a team; ``seconds_to_best`` and ``seconds_all_in`` (from data loading to the best
        validation, and to the end, without a teacher's training); ``best_epoch`` (epochs trained
        at the best validation, 0 for a warm start); and ``seconds_choosing`` (the part of
        ``seconds_all_in`` that chose weights, filter and panel).

    Raises:
        FreqDError: Config, teacher or checkpoint are wrong.

    Example:
        >>> result = run_recbole_freqd("BPR", "ml-100k", config_dict={
        ...     "trainer": "FreqD", "embedding_size": 8,
        ...     "teacher": {"model": "BPR", "embedding_size": 64}})  # doctest: +SKIP
    """
    launch = Launch(nproc, world_size, ip, port, group_offset)
    launch.check()
    job = (model, dataset, config_file_list, config_dict, saved)
    return launch.run(_train, *job) if launch.is_many else _train(*job, {})


def _train(
    model: Optional[str],
    dataset: Optional[str],
    config_file_list: Optional[list[str]],
    config_dict: Optional[dict[str, Any]],
    saved: bool,
    launched: dict[str, Any],
) -> dict[str, Any]:
    """:func:`run_recbole_freqd` in one of the processes."""
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs import run as runs

    config = make_config(model, dataset, config_file_list, {**(config_dict or {}), **launched})
    done = runs.run(config, saved=saved)
    teacher_test_result, member_test_results = None, []
    if config["trainer"]:
        teacher_test_result, member_test_results = done.trainer.processes.from_first(
            lambda: runs.evaluate_members(done)
        )
    return {
        "best_valid_score": done.best_valid_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": done.best_valid_result,
        "test_result": done.test_result,
        "teacher_test_result": teacher_test_result,
        "member_test_results": member_test_results,
        "seconds_to_best": done.seconds_to_best,
        "seconds_all_in": done.seconds_all_in,
        "best_epoch": done.best_epoch,
        "seconds_choosing": done.seconds_choosing,
    }
