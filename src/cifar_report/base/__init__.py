"""What every room stands on: errors, files written whole or not at all, processes; `randomness` decides runs."""
