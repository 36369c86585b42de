"""What is done with runs: train, compare, tune, sweep, analyze, export."""
