"""Ground that knows neither RecBole nor the paper: errors, names, draws, files, locks, rows."""
