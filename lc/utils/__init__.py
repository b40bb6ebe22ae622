"""What every part may use and uses none: devices, files, checkpoints, checks, processes."""
