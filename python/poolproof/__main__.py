"""``python -m poolproof`` is the command ``poolproof``."""

from __future__ import annotations

import sys

from poolproof.cli import main

if __name__ == "__main__":
    sys.exit(main())
