"""Draws the picture of a drill that README.md shows.

    python tools/picture.py

It runs `poolproof drill --report` and has Chromium photograph the page's first screen.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "_static" / "drill.png"
SIZE = (1100, 1560)
_SECONDS = 60
BROWSER = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    "--blink-settings=preferredColorScheme=1",  # light
)


def photograph(page: Path, picture: Path) -> None:
    """Have Chromium photograph a page."""
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("picture: Chromium is not here (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(browser, *BROWSER, f"--user-data-dir={profile}"),
                "--window-size={},{}".format(*SIZE),
                *(f"--screenshot={picture}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=_SECONDS,
        )


def main() -> None:
    """Run the drill and draw it."""
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "drill.html"
        command = (sys.executable, "-m", "poolproof", "drill", f"--report={page}")
        subprocess.run(command, check=True)
        photograph(page, PICTURE)
    print(f"picture: {PICTURE}")


if __name__ == "__main__":
    main()
