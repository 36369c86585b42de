#!/bin/sh
# From the root of the checkout; the results are in results/comparisons.
exec python run_recbole_freqd.py compare FreqD,FD,FitNet,KD \
    --config_files=experiments/gowalla/config.yaml --data_path="$RECBOLE_FREQD_DATA" \
    --search experiments/gowalla/space.yaml --tune 3 --tune_seeds 2020 --seeds 2020,2021,2022 --keep_teacher
