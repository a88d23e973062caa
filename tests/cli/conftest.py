"""What the tests of the commands share: the drill's server and its command."""

from __future__ import annotations

from plugins.drills import poolproof, server, tables, url, workplace  # noqa: F401
