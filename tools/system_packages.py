"""Install the Debian packages that some tests need, where that is allowed.

    python tools/system_packages.py postgresql pgbouncer iproute2

What is already there costs nothing. What may not be installed is named,
together with what its absence leaves out; that is no error.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import debian

# Read by Debian's postgresql package when it is installed. The tests start
# servers of their own; a cluster of the system's is not ours to make.
NO_CLUSTER = "/etc/postgresql-common/createcluster.d/poolproof.conf"
# Asked by Debian's packages before they start a service: 101 means no.
NO_SERVICE = "/usr/sbin/policy-rc.d"


@dataclass(frozen=True)
class Need:
    """A Debian package: how to see that it is there, and what needs it.

    A package is seen by a program of its own, or by a file.
    """

    package: str
    program: str
    leaves_out: str
    file: str = ""


NEEDS = {
    "libssl-dev": Need(
        package="libssl-dev",
        program="",
        leaves_out="nothing, but OpenSSL is built anew, in some minutes",
        file="/usr/include/openssl/ssl.h",
    ),
    "pkg-config": Need(
        package="pkg-config",
        program="pkg-config",
        leaves_out="nothing, but OpenSSL is built anew, in some minutes",
    ),
    "postgresql": Need(
        package="postgresql",
        program="postgres",
        leaves_out="the tests that need TLS or an extension of PostgreSQL",
    ),
    "pgbouncer": Need(
        package="pgbouncer",
        program="pgbouncer",
        leaves_out="the tests behind a pooler, and the drill's incident reap",
    ),
    "redis-server": Need(
        package="redis-server",
        program="redis-server",
        leaves_out="Redis as the broker of the Celery tests, which take files instead",
    ),
    "chromium": Need(
        package="chromium",
        program="chromium",
        leaves_out="the looks at the drill's page in a browser, and its picture",
    ),
    "iproute2": Need(
        package="iproute2",
        program="ip",
        leaves_out="the drill's incident blackhole, and its tests",
    ),
}


def is_there(need: Need) -> bool:
    """Say whether the program of *need* is on the PATH or where Debian puts servers."""
    if need.file:
        return Path(need.file).exists()
    if shutil.which(need.program) or Path("/usr/sbin", need.program).exists():
        return True
    return any(Path("/usr/lib/postgresql").glob(f"*/bin/{need.program}"))


def main(names: list[str]) -> None:
    """Install what is missing of *names*, or say what is left out."""
    missing = [need for need in map(NEEDS.__getitem__, names) if not is_there(need)]
    if not missing:
        return
    if debian.may_install():
        wanted = " ".join(need.package for need in missing)
        print(f"system-packages: apt-get install {wanted}, once", file=sys.stderr)
        try:
            install(missing)
        except subprocess.CalledProcessError as error:
            print(f"system-packages: {error}", file=sys.stderr)
    for need in missing:
        if not is_there(need):
            print(
                f"system-packages: no {need.package} "
                f"(apt-get install {need.package}); left out: {need.leaves_out}",
                file=sys.stderr,
            )


def install(missing: list[Need]) -> None:
    """Install *missing* with one look at the archive, no cluster and no service."""
    made = [NO_CLUSTER]
    debian.write_root_file(NO_CLUSTER, "create_main_cluster = false\n")
    if not Path(NO_SERVICE).exists():
        made.append(NO_SERVICE)
        debian.write_root_file(NO_SERVICE, "#!/bin/sh\nexit 101\n", mode="755")
    try:
        debian.install([need.package for need in missing])
    finally:
        for path in made:
            debian.remove_root_file(path)


if __name__ == "__main__":
    main(sys.argv[1:])
