#!/bin/sh
# From the root of the checkout; the results are in results/comparisons.
exec python run_recbole_freqd.py compare FreqD,FD,FitNet,VkD,DE,FTD,KD,RD,CD,RRD,DCD,UnKD,RCE-KD,HetComp \
    --config_files=experiments/ml-100k/config.yaml \
    --search experiments/ml-100k/space.yaml --tune 8 --tune_seeds 2020
