"""``python -m recbole_freqd``: the script without a checkout."""

import sys

from recbole_freqd.jobs.script import main

if __name__ == "__main__":
    sys.exit(main())
