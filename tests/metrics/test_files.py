"""Many processes with one directory: who lives, who was killed, what is kept."""

from __future__ import annotations

import gc
import importlib
import os
import secrets
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import poolproof
from metrics.test_prometheus import scrape, values
from plugins.threads import eventually
from poolproof.metrics import files, publisher
from poolproof.metrics.errors import MetricsError
from poolproof.metrics.process_file import ProcessFile, read_file
from poolproof.metrics.prometheus import MultiProcess

TESTS = Path(__file__).parents[1]

# Checks out as often as it is told, says so, and waits.
WORKER = """
import gc, sys
sys.path.insert(0, sys.argv[1])
from plugins.dbapi import SocketDBAPI
import poolproof
from poolproof.metrics import publisher
pool = poolproof.Pool(SocketDBAPI().connect, pool_size=2, logging_name="shared")
for line in sys.stdin:
    if line == "hold\\n":
        held = pool.connect()
    elif line == "drop\\n":
        pool.dispose()
        pool = None
        gc.collect()
    else:
        for _ in range(int(line)):
            pool.connect().close()
    publisher.publish()
    print("done", flush=True)
if pool is not None:
    pool.dispose()
"""


class Worker:
    """A process that keeps its metrics in a directory."""

    def __init__(self, directory):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(TESTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "POOLPROOF_METRICS_DIR": str(directory)},
        )

    def do(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self, number=None):
        if number is None:
            self.process.stdin.close()
        else:
            self.process.send_signal(number)
        self.process.wait(60)
        self.process.stdout.close()
        if not self.process.stdin.closed:
            self.process.stdin.close()


@pytest.fixture
def start(tmp_path):
    workers = []

    def begin():
        workers.append(Worker(tmp_path))
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.process.poll() is None:
            worker.end(signal.SIGKILL)


def total(directory, **labels):
    found = scrape(MultiProcess(directory))
    return values(found, "poolproof_checkouts_total", pool="shared", **labels)


def idle(directory):
    found = scrape(MultiProcess(directory))
    return values(found, "poolproof_connections", pool="shared", state="idle")


def test_counters_are_added_up_and_those_of_the_killed_stay(start, tmp_path):
    workers = [start() for _ in range(3)]
    for number, worker in enumerate(workers, 1):
        worker.do(number)
    assert total(tmp_path, waited="false") == [6]
    assert idle(tmp_path) == [3]
    workers[0].end(signal.SIGKILL)
    assert total(tmp_path, waited="false") == [6]
    assert idle(tmp_path) == [2]  # a gauge of the dead says nothing
    workers[1].do("hold")
    found = scrape(MultiProcess(tmp_path))
    used = values(found, "poolproof_connections", pool="shared", state="used")
    assert used == [1]
    (body,) = [one for one in files.live(tmp_path) if one["holders"]]
    assert body["pid"] == workers[1].process.pid
    assert body["holders"][0][:2] == ["shared", "MainThread"]


def test_the_sum_does_not_fall_when_a_process_drops_its_engine(start, tmp_path):
    workers = [start() for _ in range(2)]
    for worker in workers:
        worker.do(3)
    assert total(tmp_path, waited="false") == [6]
    workers[0].do("drop")
    assert total(tmp_path, waited="false") == [6]
    assert idle(tmp_path) == [1]  # a gauge is of what there is
    workers[0].end()
    assert total(tmp_path, waited="false") == [6]


def test_one_that_ends_by_itself_leaves_its_counts(start, tmp_path):
    worker = start()
    worker.do(5)
    worker.end()
    assert total(tmp_path, waited="false") == [5]
    assert idle(tmp_path) == []


def _check_out(directory, times):
    from plugins.dbapi import SocketDBAPI

    publisher.start(directory)
    pool = poolproof.Pool(SocketDBAPI().connect, pool_size=2, logging_name="shared")
    for _ in range(times):
        pool.connect().close()
    del pool
    gc.collect()  # what it has counted is there without it


@pytest.mark.parametrize("module", ["multiprocessing", "billiard"])
def test_a_worker_of_multiprocessing_leaves_its_counts(tmp_path, module):
    """It ends by `os._exit`, sooner than a second after the last that it wrote."""
    context = importlib.import_module(module).get_context("fork")
    worker = context.Process(target=_check_out, args=(tmp_path, 7))
    worker.start()
    worker.join(100)
    assert worker.exitcode == 0
    assert total(tmp_path, waited="false") == [7]


def test_files_are_for_their_user_alone(start, tmp_path):
    start().do(1)
    found = list(tmp_path.glob("*.metrics"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in found] == [0o600]


def test_it_writes_by_itself_soon_after(start, tmp_path):
    worker = start()
    worker.do(1)
    worker.process.stdin.write("2\n")
    worker.process.stdin.flush()
    eventually(lambda: total(tmp_path, waited="false") == [3])


def test_many_that_have_ended_are_added_up_in_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_ENDED_MOST", 2)
    for number in range(4):
        body = {"checkouts_total": {("shared", "false"): number}}
        program = """
            import sys
            from pathlib import Path
            from poolproof.metrics.process_file import ProcessFile
            ProcessFile(Path(sys.argv[1])).write(sys.stdin.buffer.read())
        """
        _write_as_another(tmp_path, program, files.encode(body))
    before = total(tmp_path, waited="false")
    assert before == [6]
    files.fold(tmp_path)
    assert list(tmp_path.glob("*.metrics")) == []
    assert total(tmp_path, waited="false") == [6]
    files.fold(tmp_path)
    assert total(tmp_path, waited="false") == [6]


def _write_as_another(directory, program, text):
    import textwrap

    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(directory)],
        input=text,
        check=True,
        timeout=60,
    )


def test_who_is_killed_while_adding_up_makes_nobody_count_twice(tmp_path):
    """The sum is there, and so is still one of the files that it has taken in."""
    body = files.encode({"checkouts_total": {("shared", "false"): 3}})
    program = """
        import sys
        from pathlib import Path
        from poolproof.metrics.process_file import ProcessFile
        ProcessFile(Path(sys.argv[1])).write(sys.stdin.buffer.read())
    """
    _write_as_another(tmp_path, program, body)
    (left,) = tmp_path.glob("*.metrics")
    sum_of = files.encode(
        {"checkouts_total": {("shared", "false"): 3}}, folded=[left.name]
    )
    (tmp_path / "ended.json").write_bytes(sum_of)
    assert total(tmp_path, waited="false") == [3]


def test_a_child_has_a_file_of_its_own_and_leaves_its_parents(tmp_path, make_pool):
    program = f"""
        import os, sys
        sys.path.insert(0, {str(TESTS)!r})
        from plugins.dbapi import SocketDBAPI
        import poolproof
        from poolproof.metrics import files, publisher
        from pathlib import Path
        place = Path(os.environ["POOLPROOF_METRICS_DIR"])
        pool = poolproof.Pool(SocketDBAPI().connect, logging_name="shared")
        pool.connect().close()
        publisher.publish()
        def count():
            found = files.read_all(place)["checkouts_total"]
            return found[("shared", "false")], len(list(place.glob("*.metrics")))
        pid = os.fork()
        if not pid:
            before = count()  # the child has none yet
            pool.connect().close()
            pool.connect().close()
            print(*before, *count(), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        publisher.publish()
        print(*count())
    """
    found = run_script_in(program, tmp_path)
    assert found.stderr == ""
    # The child sees what its parent has written, then beside it what it does itself.
    assert found.stdout.split("\n")[0].split() == ["1", "1", "3", "2"]
    # It ended by `_exit`: what it had written when it connected is there.
    assert found.stdout.split("\n")[1].split()[1] == "2"


def run_script_in(program, directory):
    import textwrap

    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "POOLPROOF_METRICS_DIR": str(directory)},
    )


def test_a_file_that_is_none_is_passed_over(tmp_path, caplog):
    (tmp_path / "1-ab.metrics").write_bytes(b"")
    (tmp_path / "2-ab.metrics").write_bytes(b"x" * 9000)
    file = ProcessFile(tmp_path)
    file.write(b"no json")
    files.own_files.pop(file.path.name, None)
    (tmp_path / "3-ab.metrics").symlink_to(file.path)
    found = files.read_all(tmp_path)
    assert found["checkouts_total"] == {}
    assert "is not a file of metrics" in caplog.text
    file.forget()


def test_who_is_killed_in_the_middle_of_writing_leaves_what_was_before(tmp_path):
    file = ProcessFile(tmp_path)
    file.write(b"first")
    file.write(b"second")
    # All of the third but its last step.
    begins = 4096 + 1 * (4 << 20)
    file._map[begins : begins + 5] = b"third"
    text, _ = read_file(file.path)
    assert text == b"second"
    file.forget()


def test_a_text_that_is_too_long_changes_nothing(tmp_path):
    file = ProcessFile(tmp_path)
    file.write(b"short")
    assert not file.write(b"x" * ((4 << 20) + 1))
    text, _ = read_file(file.path)
    assert text == b"short"
    file.forget()


def test_two_processes_never_have_one_file(tmp_path, monkeypatch):
    """As in two containers, where one number is two processes', and the same chance."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: "00000001")
    file = ProcessFile(tmp_path)
    file.write(b"the first one's")
    program = """
        import os, secrets, sys
        from pathlib import Path
        from poolproof.metrics.errors import MetricsError
        from poolproof.metrics.process_file import ProcessFile
        os.getpid, secrets.token_hex = lambda: int(sys.argv[2]), lambda _: "00000001"
        try:
            ProcessFile(Path(sys.argv[1]))
        except MetricsError as error:
            print(error)
    """
    code, number = textwrap.dedent(program), str(os.getpid())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), number],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith(f"metrics cannot be kept in {tmp_path}: File exists")
    assert done.stdout.count("\n") == 1
    assert read_file(file.path)[0] == b"the first one's"
    file.forget()


def test_no_directory_is_one_sentence():
    with pytest.raises(MetricsError, match="set POOLPROOF_METRICS_DIR"):
        MultiProcess()
    with pytest.raises(MetricsError, match="is no directory"):
        MultiProcess("/nowhere/at/all")


def test_it_may_stand_beside_prometheus_own(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / "poolproof").mkdir()
    assert files.directory_of(None) == tmp_path / "poolproof"


def test_a_directory_that_cannot_be_written_costs_an_application_its_metrics_alone(
    tmp_path,
):
    (tmp_path / "file").write_text("")
    program = f"""
        import sys
        sys.path.insert(0, {str(TESTS)!r})
        from plugins.dbapi import SocketDBAPI
        import poolproof
        pool = poolproof.Pool(SocketDBAPI().connect)
        for _ in range(2):
            pool.connect().close()
            pool.dispose()
        print("served")
    """
    found = run_script_in(program, tmp_path / "file" / "below")
    assert found.stdout == "served\n"
    (line,) = found.stderr.splitlines()
    assert "metrics cannot be kept in" in line
    assert "name a directory" in line
