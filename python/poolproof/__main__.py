"""``python -m poolproof`` is the command ``poolproof``."""

from __future__ import annotations

from poolproof.cli.main import command

if __name__ == "__main__":
    command()
