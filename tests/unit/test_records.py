import contextlib
import uuid

import pytest
from calltracker.capture.records import (
    CorruptRecordError,
    Message,
    RecordKind,
    decode,
    encode_data,
    encode_facts,
    encode_message,
)
from hypothesis import given
from hypothesis import strategies as st

CALL = uuid.uuid4()
MESSAGE = Message(7, True, False, 10, b"abc")
FILE = (
    encode_facts(RecordKind.BEGIN, CALL.bytes, {"method": "POST", "n": 1})
    + encode_data(RecordKind.REQUEST_DATA, CALL.bytes, 5, b"body")
    + encode_message(CALL.bytes, MESSAGE)
    + encode_facts(RecordKind.END, CALL.bytes, {"at": 9})
)


def test_records_are_read_as_they_were_written():
    begin, data, message, end = decode(FILE)
    assert {record.call_id for record in (begin, data, message, end)} == {CALL}
    assert begin.facts() == {"method": "POST", "n": 1}
    assert data.data() == (5, b"body")
    assert message.message() == MESSAGE
    assert end.facts() == {"at": 9}
    assert sum(record.size for record in decode(FILE)) == len(FILE)


@given(st.integers(0, len(FILE)))
def test_a_file_that_ends_anywhere_gives_the_whole_records_before(end):
    whole = list(decode(FILE))
    found = list(decode(FILE[:end]))
    assert found == whole[: len(found)]
    assert len(found) < len(whole) or end == len(FILE)


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_a_changed_byte_never_passes_for_a_record(place, change):
    spoilt = bytearray(FILE)
    spoilt[place] ^= change
    whole = list(decode(FILE))
    found = []
    with contextlib.suppress(CorruptRecordError):
        found.extend(decode(bytes(spoilt)))
    assert all(record in whole for record in found)
    assert len(found) < len(whole)


def test_a_length_that_cannot_be_is_corrupt_at_once():
    with pytest.raises(CorruptRecordError):
        list(decode(b"\xff" * 30))
