"""The test server beside a real one: the same driver code gets the same results, packets and errors.

The real one's conversations are recorded in a folder that only the makers of this project have; elsewhere these tests
are skipped.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from .conftest import wait_for
from .server import Server
from .test_commands import EIGHT

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "proton-wire"

LLM = EIGHT.replace("llm_calls", "wire_llm")
PIPE = "CREATE STREAM wire_pipe (i int, s string)"
BIG = "CREATE STREAM wire_big (s string)"
DDL = "CREATE STREAM wire_ddl (i int, s string)"
ALTERED = f"{DDL};ALTER STREAM wire_ddl ADD COLUMN n nullable(int64)"

# A recording, and the statements that bring the test server to the state in which it was made
CASES = {
    "01_hello": "",
    "02_hello_wrong_password": "",
    "02b_hello_unknown_user": "",
    "02c_hello_user_with_password": "",
    "02d_hello_empty_password": "",
    "02e_no_privilege": "",
    "03_unknown_database": "",
    "04_ping_select_1": "",
    "04b_connect_ping_only": "",
    "05_version_timezone": "",
    "06_create_stream": "",
    "07_create_stream_again": LLM,
    "07b_create_stream_if_not_exists": LLM,
    "07c_create_stream_bad_type": "",
    "08_describe_stream": LLM,
    "08e_exists_stream": LLM,
    "08f_describe_unknown": "",
    "09b_insert_quoted_names": PIPE,
    "10_insert_some_columns": LLM,
    "10b_insert_no_column_list": LLM,
    "10c_insert_no_rows": LLM,
    "11_insert_unknown_stream": "",
    "11b_insert_unknown_column": LLM,
    "11c_insert_duplicate_column": LLM,
    "11d_insert_bad_value": LLM,
    "11e_insert_after_error": LLM,
    "11g_insert_int_overflow": PIPE,
    "11h_insert_none": PIPE,
    "11i_insert_lone_surrogate": PIPE,
    "15_insert_above_10_mib": BIG,
    "15b_insert_just_below_10_mib": BIG,
    "15c_insert_two_blocks_of_6_mib": BIG,
    "15d_insert_after_2514": BIG,
    "16_idempotent_id_twice": "CREATE STREAM wire_idem (i int)",
    "16b_idempotent_id_in_sql": "CREATE STREAM wire_idem2 (i int)",
    "23_alter_add_column": DDL,
    "23b_alter_add_column_again": ALTERED,
    "23c_alter_add_column_if_not_exists": ALTERED,
    "23d_describe_after_alter": ALTERED,
    "23g_alter_unknown_stream": "",
    "23l_drop_stream": DDL,
    "23m_drop_stream_unknown": "",
    "23n_drop_stream_if_exists": "",
}

# No packets are noted for these, or how they interleave is chance: an error beside what the driver sends meanwhile
RESULT_ALONE = {
    "03_unknown_database",
    "11e_insert_after_error",
    "15_insert_above_10_mib",
    "15c_insert_two_blocks_of_6_mib",
    "15d_insert_after_2514",
}


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded conversations are not here")
@pytest.mark.parametrize("name", CASES)
def test_the_test_server_answers_as_a_real_one_did(name: str) -> None:
    recorded = json.loads((RECORDED / f"{name}.json").read_text())
    with Server(users={"default": "", "wire_user": "secret"}, may_create=name != "02e_no_privilege") as server:
        for statement in filter(None, CASES[name].split(";")):
            run(f"from proton_driver import Client; Client('127.0.0.1', 8463).execute({statement!r})", server.port)
            wait_for(lambda: server.packets[-1:] == ["S EndOfStream"], 5)
        server.packets.clear()
        result = run(recorded["python"], server.port)
        assert plain(result) == plain(recorded["result"])
        if name not in RESULT_ALONE:
            wanted = packets(recorded["packets"])
            wait_for(lambda: len(packets(server.packets)) >= len(wanted), 5, f"{wanted}, not {server.packets}")
            assert packets(server.packets) == wanted


def run(code: str, port: int) -> str:
    """Run a recording's code; what its last line, or `result`, gave, or how it failed."""
    tree = ast.parse(code.replace("8463", str(port)))
    names: dict[str, Any] = {}
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body[-1] = ast.copy_location(ast.Assign([ast.Name("result", ast.Store())], last.value), last)
    try:
        exec(compile(ast.fix_missing_locations(tree), "recorded", "exec"), names)  # the driver code that was recorded
    except Exception as error:  # noqa: BLE001 - whatever the driver raises is the result
        kind = type(error)
        code_of = getattr(error, "code", None)
        message = (str(error).removeprefix(f"Code: {code_of}.").strip().splitlines() or [""])[0]
        return f"raised {kind.__module__}.{kind.__qualname__} code={code_of}: {message}"
    return repr(names["result"])


def plain(result: str) -> str:
    """Without what differs from run to run: a stream's id, object addresses, the stack's heading, punctuation."""
    result = re.sub(r" \([0-9a-f]{8}-[0-9a-f-]{27}\)", "", result)
    return result.replace("Stack trace:", "").rstrip(". ")


def packets(listed: list[str]) -> list[str]:
    """The packets alone, without the numbers that a server is free in."""
    kept = [re.sub(r"(ProfileEvents).*", r"\1", packet) for packet in listed if packet[:2] in ("C ", "S ")]
    return [re.sub(r"( conn \d+| \d+)$", "", packet) if "Data" not in packet else packet for packet in kept]
