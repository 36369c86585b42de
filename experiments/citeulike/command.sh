#!/bin/sh
# From the root of the checkout; the results are in results/comparisons.
exec python run_recbole_freqd.py compare FreqD,FD,FitNet,VkD,DE,FTD,KD,RD,CD,RRD,UnKD,RCE-KD \
    --config_files=experiments/citeulike/config.yaml --data_path="$RECBOLE_FREQD_DATA" \
    --search experiments/citeulike/space.yaml --tune 6 --tune_seeds 2020 --keep_teacher
