"""The script's options for what is done with many runs, or with the result of one."""

import argparse
from pathlib import Path
from typing import Any

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.trainer.launch import Launch

_JOBS = ("compare", "hyper", "analyze", "sweep", "export")
_IN_ONE_PROCESS = (*_JOBS, "resume")
_ONLY_WITH = {  # options of one job that the others, and a training, have no use for
    "hyper": ("algo", "tool", "max_evals", "keep_checkpoints"),
    "export": (
        *("out", "format", "precision", "histories"),
        *("spectral", "overwrite", "trust_checkpoint"),
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


def add_export(parser: argparse.ArgumentParser) -> None:
    """The options of :func:`recbole_freqd.export`."""
    group = parser.add_argument_group("vectors for a serving system (docs/serving.md)")
    group.add_argument("--export", metavar="FILE.pth", help="export this checkpoint's vectors")
    group.add_argument("--out", default="embeddings", help="to this folder (default: embeddings)")
    group.add_argument("--format", default="npz", help="npz, parquet or npz,parquet")
    group.add_argument("--precision", default="float32", help="float32 or float16")
    group.add_argument("--histories", action="store_true", help="also who has what already")
    group.add_argument(
        "--spectral", type=int, metavar="RANK", help="approximate scores that are no products"
    )
    group.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    group.add_argument(
        "--trust_checkpoint", action="store_true", help="load own classes, which can run code"
    )


def add_hyper(parser: argparse.ArgumentParser) -> None:
    """The options of :func:`recbole_freqd.hyper.search`."""
    group = parser.add_argument_group("tuning by RecBole's HyperTuning (docs/tuning.md)")
    group.add_argument("--hyper", metavar="SPACE", help="files or shipped names, e.g. FreqD")
    group.add_argument("--algo", default="exhaustive", help="exhaustive, random or bayes")
    group.add_argument("--tool", default="hyperopt", help="hyperopt, or ray: trials side by side")
    group.add_argument("--max_evals", type=int, help="trials in all (default: all, or 100)")
    group.add_argument(
        "--keep_checkpoints", action="store_true", help="keep the models of the trials"
    )


def export_arguments(options: argparse.Namespace, keys: list[str]) -> dict[str, Any]:
    """What :func:`recbole_freqd.export` is called with.

    Raises:
        ConfigError: A config key that an export has no use for.
    """
    given = dict(key[2:].split("=") for key in keys)
    data_path = given.pop("data_path", None)
    if given:
        raise ConfigError(
            f"--export reads the checkpoint's own config: --{next(iter(given))} would change "
            "nothing. Allowed beside its own options: --data_path=..., where the data has moved."
        )
    return {
        "checkpoint": options.export,
        "out": options.out,
        "formats": options.format,
        "precision": options.precision,
        "histories": options.histories,
        "spectral": options.spectral,
        "overwrite": options.overwrite,
        "data_path": data_path,
        "trust": options.trust_checkpoint,
        "progress": True,
    }


def run_export(options: argparse.Namespace, keys: list[str]) -> None:
    """Exports a checkpoint's vectors, and says what is in the folder now."""
    arguments = export_arguments(options, keys)
    from recbole_freqd.exporting import export

    manifest = export(**arguments)
    counts = " and ".join(f"{manifest[side]['count']:,} {side}" for side in ("users", "items"))
    print(
        f"{manifest['model']}: vectors of {counts}, {manifest['dimensions']} x "
        f"{manifest['dtype']}, {manifest['metric']}, in {options.out}/"
        f"{{{', '.join(sorted(manifest['sha256']))}, manifest.json}}"
    )
    if manifest["approximation"]:
        kept = 100 * manifest["approximation"]["top10_overlap"]
        print(f"They are an approximation: {kept:.1f} % of the model's top 10 are in theirs.")


def run_hyper(options: argparse.Namespace, config: Any) -> None:
    """Searches the spaces that the options name."""
    from recbole_freqd.hyper import search

    search(
        config,
        options.hyper.split(),
        Path(options.output_dir),
        algo=options.algo,
        max_evals=options.max_evals,
        keep=options.keep_checkpoints,
        tool=options.tool,
    )
