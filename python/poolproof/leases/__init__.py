"""Named, time-limited rights that one process at a time holds."""
