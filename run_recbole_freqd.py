"""Distil a RecBole recommender: ``python run_recbole_freqd.py --help``."""

import sys

from recbole_freqd.jobs.script import main

if __name__ == "__main__":
    sys.exit(main())
