"""What every other part may use and what uses none of them: devices, files, checkpoints, checks of values, signals."""
