"""Values in words."""

from covbook.text import show_value


def test_what_rounds_to_nothing_has_no_sign():
    assert show_value(-0.4, (-3.1, 2.4)) == "0 [\N{MINUS SIGN}3, 2]"
    assert show_value(-0.6, (-3.1, 2.4)) == "\N{MINUS SIGN}1 [\N{MINUS SIGN}3, 2]"
