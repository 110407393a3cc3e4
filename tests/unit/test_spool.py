import asyncio
import errno
import os
import shutil
import stat
import uuid

import pytest
from calltracker.capture import spool as spool_module
from calltracker.capture.records import MAGIC, RecordKind, decode, encode_data
from calltracker.capture.spool import Entry, Spool
from filelock import FileLock, Timeout

CALL = uuid.uuid4()


def record(data: bytes) -> Entry:
    return Entry(lambda: encode_data(RecordKind.RESPONSE_DATA, CALL.bytes, 0, data), len(data))


def written(spool: Spool) -> list[bytes]:
    found = []
    for path in sorted(spool.run.glob("*.spool")):
        data = path.read_bytes()
        assert data.startswith(MAGIC)
        found += [record.data()[1] for record in decode(data[len(MAGIC) :])]
    return found


@pytest.fixture
def said():
    return []


@pytest.fixture(params=[False, True], ids=["process", "power"])
async def spool(tmp_path, said, request):
    running = Spool(tmp_path / "a" / "spool", limit=1 << 30, fsync=request.param, say=said.append)
    running.start()
    yield running
    running.stop(5)


async def test_what_is_committed_is_in_the_file(spool):
    for number in range(100):
        spool.put(record(b"%d" % number))
        await spool.committed()
        assert written(spool)[-1] == b"%d" % number
    assert written(spool) == [b"%d" % number for number in range(100)]


async def test_many_at_once_keep_their_order(spool):
    async def one(number):
        spool.put(record(b"%d" % number))
        await spool.committed()
        assert b"%d" % number in written(spool)

    await asyncio.gather(*(one(number) for number in range(50)))
    assert written(spool) == [b"%d" % number for number in range(50)]


def test_what_nobody_waits_for_is_written_at_the_end(spool):
    spool.put(record(b"x" * 300_000))
    spool.put(record(b"y"))
    spool.stop(5)
    assert [len(data) for data in written(spool)] == [300_000, 1]


async def test_what_nobody_waits_for_is_written_after_a_moment(spool):
    spool.put(record(b"x"))
    async with asyncio.timeout(10):
        while not written(spool):
            await asyncio.sleep(0.01)
    assert written(spool) == [b"x"]


async def test_much_that_nobody_waits_for_does_not_wait_in_memory(tmp_path, said):
    spool = Spool(tmp_path / "spool", limit=1 << 30, fsync=False, say=said.append)
    spool.start()
    for number in range(1, 200):
        spool.put(record(b"x" * 10_000))
        assert len(written(spool)) * 10_000 >= number * 10_000 - spool_module.CROWD_BYTES
    spool.stop(5)


def test_segments_are_begun_anew(spool, monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1000)
    for number in range(20):
        spool.put(record(bytes([number]) * 200))
        assert spool.commit_now(5)
    assert len(list(spool.run.glob("*.spool"))) > 3
    assert written(spool) == [bytes([number]) * 200 for number in range(20)]


def test_a_write_that_fails_is_taken_back_whole_and_said_once(spool, said, monkeypatch):
    def half(file, data):
        os.write(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    lost = []
    assert spool.commit_now(5)
    with monkeypatch.context() as patched:
        patched.setattr(spool_module, "_write_all", half)
        for number in range(3):
            entry = record(b"lost")
            entry.lost = lambda number=number: lost.append(number)
            spool.put(entry)
            spool.commit_now(5)
    assert lost == [0, 1, 2]
    spool.put(record(b"kept"))
    assert spool.commit_now(5)
    assert written(spool) == [b"kept"]
    assert [("No space left" in line, "again" in line) for line in said] == [(True, False), (False, True)]


@pytest.mark.parametrize("removed", ["segment", "run", "all"])
def test_what_another_program_removed_is_begun_again(spool, said, removed):
    spool.put(record(b"before"))
    assert spool.commit_now(5)
    if removed == "segment":
        next(spool.run.glob("*.spool")).unlink()
    else:
        shutil.rmtree(spool.run if removed == "run" else spool.run.parent.parent)
    for number in range(3):
        spool.put(record(b"%d" % number))
        assert spool.commit_now(5)
    assert written(spool) == [b"0", b"1", b"2"]
    assert [path.name for path in spool.run.glob("*.spool")] == ["0000000002.spool"]
    assert len(said) == 1
    assert "was removed by another program" in said[0]
    with pytest.raises(Timeout):  # the run is still known to be under way
        FileLock(spool.run / spool_module.PROXY_LOCK).acquire(blocking=False)
    assert stat.S_IMODE(spool.run.parent.parent.stat().st_mode) == 0o700


async def test_a_segment_that_cannot_be_looked_at_is_written_all_the_same(spool, said, monkeypatch):
    """An error here would come back to a hook, or to a stream's callable, where it would hang the client."""
    spool.put(record(b"before"))
    await spool.committed()

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(type(spool._path), "stat", refused)
        spool.put(record(b"after"))
        await spool.committed()
    assert (written(spool), said) == ([b"before", b"after"], [])


def test_one_that_cannot_be_encoded_does_not_harm_the_others(spool, said):
    def broken():
        raise ValueError("no")

    spool.put(record(b"before"))
    spool.put(Entry(broken))
    spool.put(record(b"after"))
    assert spool.commit_now(5)
    assert written(spool) == [b"before", b"after"]
    assert "no" in said[0]


async def test_the_limit_on_what_waits_holds(tmp_path, said, monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1000)
    spool = Spool(tmp_path / "spool", limit=5000, fsync=False, say=said.append)
    spool.start()
    for _ in range(50):
        spool.put(record(b"x" * 400))
        spool.commit_now(5)
    assert sum(path.stat().st_size for path in spool.run.glob("*.spool")) < 8000
    assert "llm_calls_spool_limit" in said[0]
    spool.stop(5)


async def test_a_disk_that_does_not_answer_is_waited_for_once(tmp_path, said, monkeypatch):
    spool = Spool(tmp_path / "spool", limit=1 << 30, fsync=True, say=said.append)
    spool.start()
    answers = spool_module.threading.Event()
    monkeypatch.setattr(spool_module.os, "fsync", lambda file: answers.wait(30))
    for _ in range(5):
        spool.put(record(b"x"))
        await spool.committed()
    assert spool.counts.late_commits == 1
    answers.set()
    assert await asyncio.to_thread(spool.stop, 5) is None
    assert written(spool) == [b"x"] * 5
