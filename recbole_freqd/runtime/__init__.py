"""RecBole's trainer made to survive: bad numbers, several processes, a kill in mid-epoch."""
