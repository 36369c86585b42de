"""``export``: a checkpoint's vectors for a serving system. Heavy imports wait until it runs."""

import argparse
from typing import Any

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.jobs.options import add_shared

NAME = "export"
TAKES = ("debug",)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """The command's parser, with the options of :func:`recbole_freqd.export`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        NAME,
        help="vectors of a student or teacher for a serving system",
        description="Write a checkpoint's user and item vectors under their tokens "
        "(docs/serving.md).",
        epilog="--data_path=DIR: where the data is now, if it has moved.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", metavar="FILE.pth", help="whose vectors are exported")
    parser.add_argument("--out", default="embeddings", help="to this folder (default: embeddings)")
    parser.add_argument("--format", default="npz", help="npz, parquet or npz,parquet")
    parser.add_argument("--precision", default="float32", help="float32 or float16")
    parser.add_argument("--histories", action="store_true", help="also who has what already")
    parser.add_argument(
        "--spectral", type=int, metavar="RANK", help="approximate scores that are no products"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    parser.add_argument(
        "--trust_checkpoint", action="store_true", help="load own classes, which can run code"
    )
    parser.add_argument(
        "--trust_data", action="store_true", help="take data that nothing shows to be unchanged"
    )
    add_shared(parser, *TAKES)
    return parser


def export_arguments(options: argparse.Namespace, keys: list[str]) -> dict[str, Any]:
    """What :func:`recbole_freqd.export` is called with.

    Raises:
        ConfigError: A config key that an export has no use for.
    """
    given = dict(key[2:].split("=") for key in keys)
    data_path = given.pop("data_path", None)
    if given:
        raise ConfigError(
            f"export reads the checkpoint's own config: --{next(iter(given))} would change "
            "nothing. Allowed beside its own options: --data_path=..., where the data has moved."
        )
    return {
        "checkpoint": options.checkpoint,
        "out": options.out,
        "formats": options.format,
        "precision": options.precision,
        "histories": options.histories,
        "spectral": options.spectral,
        "overwrite": options.overwrite,
        "data_path": data_path,
        "trust": options.trust_checkpoint,
        "trust_data": options.trust_data,
        "progress": True,
    }


def run(options: argparse.Namespace, keys: list[str]) -> None:
    """Exports a checkpoint's vectors, and says what is in the folder now."""
    arguments = export_arguments(options, keys)
    from recbole_freqd.jobs.export.export import export

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
