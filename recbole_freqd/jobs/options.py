"""The script's options for what is done with many runs, or with the result of one."""

import argparse

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.trainer.launch import Launch

_JOBS = ("compare", "hyper", "analyze", "sweep", "export")
_IN_ONE_PROCESS = (*_JOBS, "resume")
_ONLY_WITH = {  # options of one job that the others, and a training, have no use for
    "hyper": ("algo", "tool", "max_evals", "keep_checkpoints"),
    "export": (
        *("out", "format", "precision", "histories"),
        *("spectral", "overwrite", "trust_checkpoint", "trust_data"),
    ),
}


def add_launch(parser: argparse.ArgumentParser) -> None:
    """The options of :class:`recbole_freqd.trainer.launch.Launch`, by RecBole's names."""
    group = parser.add_argument_group("training in several processes (docs/multi_process.md)")
    group.add_argument("--nproc", type=int, default=1, help="processes on this machine")
    group.add_argument("--world_size", type=int, default=-1, help="processes on all machines")
    group.add_argument("--ip", default="localhost", help="address of the first machine")
    group.add_argument("--port", default="5678", help="port of the first machine")
    group.add_argument(
        "--group_offset", type=int, default=0, help="rank of this machine's first process"
    )


def launch_of(options: argparse.Namespace) -> Launch:
    """The processes that the options ask for.

    Raises:
        ConfigError: They cannot be had, or what is asked for runs in one process.
    """
    launch = Launch(
        options.nproc, options.world_size, options.ip, options.port, options.group_offset
    )
    launch.check()
    given = next((name for name in _IN_ONE_PROCESS if getattr(options, name)), None)
    if launch.is_many and given:
        raise ConfigError(
            f"--{given} works in one process; got --nproc {launch.nproc}. Leave out one of them: "
            "what several processes do together is one training, from its start to its end."
        )
    return launch


def check_jobs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program where two things are to be done, or an option is of none of them."""

    def is_given(name: str) -> bool:
        return bool(getattr(options, name) != parser.get_default(name))

    for name in _JOBS:
        if getattr(options, name) == "":
            parser.error(f"--{name}: got nothing")
    jobs = [f"--{name}" for name in _JOBS if is_given(name)]
    if len(jobs) > 1:
        parser.error(f"{' and '.join(jobs)} are different things to do: give one of them")
    for job, names in _ONLY_WITH.items():
        idle = next((name for name in names if is_given(name)), None)
        if idle and not is_given(job):
            parser.error(f"--{idle} goes with --{job}")
