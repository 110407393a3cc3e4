import uuid

import pytest
from calltracker import reading
from calltracker.capture.records import MAGIC, RecordKind, encode_facts
from calltracker.reading import Run

HOST = {"server": "api.openai.com:443", "api_key_hash": "", "body_limit": 1000, "tags": {}}


def begin(number: int) -> bytes:
    facts = {"method": "GET", "url": f"https://api.openai.com/v1/models/{number}", "headers": [], "time": 1000, **HOST}
    return encode_facts(RecordKind.BEGIN, key(number), facts)


def end(number: int) -> bytes:
    return encode_facts(RecordKind.END, key(number), {"at": 5, "ending": "client_gone", "error": ""})


def key(number: int) -> bytes:
    return uuid.UUID(int=number).bytes


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(reading.time, "monotonic", lambda: now[0])
    return now


def segment(folder, number):
    return folder / f"{number:010d}.spool"


def read_all(run):
    """Read until there is no more; the numbers in the rows' URLs."""
    found = []
    moved = True
    while moved:
        calls, moved = run.read()
        found += [int(call.request_url.rpartition("/")[2]) for call in calls]
        run.remove_ended_segment()
    return found


def test_segments_are_read_in_order_and_removed_but_for_the_last(folder):
    segment(folder, 1).write_bytes(MAGIC + begin(1) + end(1) + begin(2))
    segment(folder, 2).write_bytes(MAGIC + end(2))
    run = Run(folder, None)
    assert read_all(run) == [1, 2]
    assert run.segments() == [segment(folder, 2)]


def test_bytes_that_the_proxy_was_just_replacing_are_read_again(folder, clock):
    """As they were seen while a full disk's half record was taken back: zeros, and then the record."""
    segment(folder, 1).write_bytes(MAGIC + begin(1) + b"\0" * 200)
    run = Run(folder, None)
    assert read_all(run) == []
    segment(folder, 1).write_bytes(MAGIC + begin(1) + end(1) + begin(2) + end(2))
    assert read_all(run) == [1, 2]
    clock[0] += reading.DOUBT_SECONDS
    with segment(folder, 1).open("ab") as file:
        file.write(b"\0" * 200)
    assert read_all(run) == [], "doubts of another place are no doubts of this one"
    assert segment(folder, 1).exists()


def test_what_stays_no_record_is_set_aside(folder, clock, caplog):
    segment(folder, 1).write_bytes(MAGIC + begin(1) + end(1) + b"\0" * 200)
    run = Run(folder, None)
    assert read_all(run) == [1]
    clock[0] += reading.DOUBT_SECONDS
    assert read_all(run) == []
    assert [path.name for path in folder.iterdir()] == ["0000000001.corrupt"]
    assert "0000000001.corrupt" in caplog.text
    segment(folder, 2).write_bytes(MAGIC + begin(2) + end(2))
    assert read_all(run) == [2]


@pytest.mark.parametrize("later", ["a segment", "no proxy"])
def test_what_is_no_record_where_nothing_is_written_any_more_is_set_aside_at_once(folder, clock, later):
    segment(folder, 1).write_bytes(MAGIC + begin(1) + b"\0" * 200)
    run = Run(folder, None)
    if later == "a segment":
        segment(folder, 2).write_bytes(MAGIC + end(1))
    run.proxy_ended = later == "no proxy"
    assert read_all(run) == ([1] if later == "a segment" else [])
    assert [path.name for path in folder.glob("*.corrupt")] == ["0000000001.corrupt"]


def test_a_segment_that_somebody_removed_is_gone_over(folder):
    segment(folder, 1).write_bytes(MAGIC + (begin(1) + end(1)) * 20)
    run = Run(folder, None)
    assert read_all(run) == [1] * 20
    segment(folder, 1).unlink()
    assert read_all(run) == []
    segment(folder, 2).write_bytes(MAGIC + begin(2) + end(2))
    assert read_all(run) == [2]


def test_from_a_checkpoint_the_same_goes_on_and_nothing_comes_again(folder):
    segment(folder, 1).write_bytes(MAGIC + begin(1) + end(1) + begin(2))
    run = Run(folder, None)
    assert read_all(run) == [1]
    checkpoint = run.checkpoint()
    with segment(folder, 1).open("ab") as file:
        file.write(end(2) + begin(3) + end(3))
    segment(folder, 2).write_bytes(MAGIC + begin(4) + end(4))
    assert read_all(run) == [2, 3, 4]
    segment(folder, 1).write_bytes(MAGIC + begin(1) + end(1) + begin(2) + end(2) + begin(3) + end(3))
    assert read_all(Run(folder, checkpoint)) == [2, 3, 4]


def test_a_checkpoint_of_another_version_is_said_and_left(folder, caplog):
    segment(folder, 2).write_bytes(MAGIC + begin(1) + end(1))
    assert read_all(Run(folder, (1, b"no pickle"))) == [1]
    assert "cannot be continued" in caplog.text
