"""Tables: what is sorted by in the rendered book."""

import re

from covbook.tables import Table


def test_sortable_tables_carry_their_numbers():
    table = Table(["method", "FID", "n"], [["a", "1,234.5\n[1, 2]", "3"], ["b", "\N{MINUS SIGN}0.5", "–"],
                                           ["c", "**2e-3**", "7"]], right=("FID", "n"), sortable=True)
    html = table._repr_html_()
    assert 'class="table covlib sortable"' in html
    assert re.findall(r'data-sort="([^"]*)"', html) == ["1234.5", "3", "-0.5", "", "2e-3", "7"]


def test_other_tables_are_as_they_were():
    html = Table(["a"], [["1"]], right=("a",))._repr_html_()
    assert 'class="table covlib"' in html and "data-sort" not in html


def test_a_table_without_rows_is_its_note():
    empty = Table(["a", "b"], [], title="T", note="Nothing yet: `do it`.")
    assert empty._repr_html_() == "<p><strong>T</strong></p>\n<p><small>Nothing yet: <code>do it</code>.</small></p>"
    assert str(empty) == "**T**\n\nNothing yet: `do it`.\n"
    assert "<table" in Table(["a"], [])._repr_html_() and "| a |" in str(Table(["a"], []))


def test_folded_rows_come_behind_a_click_and_none_is_lost():
    table = Table(["a"], [["1"], ["2"], ["3"]], note="n", folded=2, fold_title="two more")
    html = table._repr_html_()
    shown, rest = html.split('<details class="covlib-rest"><summary>two more</summary>')
    assert re.findall(r">(\d)</td>", shown) == ["1"] and re.findall(r">(\d)</td>", rest) == ["2", "3"]
    assert html.count("<thead>") == 2 and html.endswith("</details>\n<p><small>n</small></p>")
    assert all(f"| {k} |" in str(table) for k in "123")
