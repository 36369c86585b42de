"""Reading a checkpoint without running it: records, values, names that may be in it, the whole."""

from recbole_freqd.checkpoint.loading import (
    check_whole,
    load_checkpoint,
    load_plain,
    sidecar_path,
)

__all__ = ["check_whole", "load_checkpoint", "load_plain", "sidecar_path"]
