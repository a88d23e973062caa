"""The command ``poolproof``."""
