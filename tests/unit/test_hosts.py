import pytest
from calltracker.capture.hosts import HostPattern, Hosts, parse_hosts


@pytest.mark.parametrize(
    ("host", "port", "wanted"),
    [
        ("api.openai.com", 443, True),
        ("API.OpenAI.com.", 443, True),
        ("eu.api.openai.com", 443, True),
        ("evil-api.openai.com.example", 443, False),
        ("evilapi.openai.com", 443, False),
        ("openai.com", 443, False),
        ("res.openai.azure.com", 443, True),
        ("openai.azure.com", 443, False),
        ("localhost", 11434, True),
        ("localhost", 11435, False),
        ("::1", 8000, True),
        ("llm.corp.example", 1, True),
        (None, 443, False),
        ("", 443, False),
    ],
)
def test_a_host_is_wanted_or_not(host, port, wanted):
    assert Hosts.with_own("localhost:11434, [::1]:8000 *.corp.example").wanted(host, port) is wanted


def test_every_form_is_read():
    assert parse_hosts(" a.example,*.B.example:81 10.0.0.1 10.0.0.1:8 ::1,[::1]:9 [::1] ") == (
        HostPattern("a.example"),
        HostPattern("b.example", True, 81),
        HostPattern("10.0.0.1"),
        HostPattern("10.0.0.1", port=8),
        HostPattern("::1"),
        HostPattern("::1", port=9),
        HostPattern("::1"),
    )


@pytest.mark.parametrize(
    "text",
    ["https://a.example", "a.example/v1", "a:b", "a:0", "a:65536", "a:", "*", "*.10.0.0.1:x", "a b*c", "-a", "[::1"],
)
def test_what_is_not_a_host_is_named(text):
    with pytest.raises(ValueError, match="write a host as"):
        parse_hosts(text)
