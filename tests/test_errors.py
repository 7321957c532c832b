"""What the messages about a user's mistakes are made of."""

from aitom_ssl.errors import reason


def test_a_reason_is_one_line_without_a_full_stop():
    assert reason(ValueError("two\n  lines.")) == "two lines"
    assert reason(KeyError()) == "KeyError"
    assert len(reason(ValueError("word " * 1000))) == 300
