"""The options of an export, and the export that they ask for."""

import argparse
from typing import Any

from recbole_freqd.core.errors import ConfigError


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
    group.add_argument(
        "--trust_data", action="store_true", help="take data that nothing shows to be unchanged"
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
        "trust_data": options.trust_data,
        "progress": True,
    }


def run_export(options: argparse.Namespace, keys: list[str]) -> None:
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
