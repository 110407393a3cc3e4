import pytest
from calltracker import settings


def test_defaults():
    found = settings.read({}, {"LLM_CALLS_HOME": "/somewhere"})
    assert found.bodies
    assert found.capture.body_limit == 2 << 20
    assert found.proton is None
    assert not found.fsync


def test_an_option_goes_before_its_variable():
    environment = {"LLM_CALLS_BODY_LIMIT": "1k", "LLM_CALLS_HOSTS": "a.example", "PROTON_HOST": "p.example"}
    assert settings.read({}, environment).capture.body_limit == 1024
    found = settings.read({"llm_calls_body_limit": "2k", "llm_calls_proton_host": "q.example"}, environment)
    assert found.capture.body_limit == 2048
    assert found.capture.hosts.wanted("a.example", 1)
    assert found.proton.host == "q.example"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("llm_calls_body_limit", "2 gigs", "llm_calls_body_limit: '2 gigs' is not a size"),
        ("llm_calls_keep_days", "-1", "llm_calls_keep_days: '-1' is not a number of days"),
        ("llm_calls_durability", "both", "llm_calls_durability: 'both' is none of process, power"),
        ("llm_calls_redact", "a b;c", "llm_calls_redact: 'b;c' is not the name"),
        ("llm_calls_hosts", "a/b", "llm_calls_hosts: 'a/b' is not a host"),
        ("llm_calls_proton_port", "x", "PROTON_PORT"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(name, value, says):
    options = {"llm_calls_proton_host": "p.example", name: value}
    with pytest.raises(settings.OptionError) as caught:
        settings.read(options, {})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_variable_is_named_when_it_is_wrong():
    with pytest.raises(settings.OptionError, match=r"^LLM_CALLS_BODIES: "):
        settings.read({}, {"LLM_CALLS_BODIES": "perhaps"})


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("17", 17), ("64k", 65536), ("2 MB", 2 << 20), ("1GiB", 1 << 30)])
def test_sizes(text, size):
    assert settings.parse_size(text) == size
