"""What the book's own Sphinx extension does to a page."""

import pytest

from covlib import sphinx_book


@pytest.mark.parametrize("text, kept", [
    ("0.005 ± 0.004 (3)", ["0.005 ± 0.004", "(3)"]), ("0.72 [−0.66, 0.75]", ["0.72", "[−0.66, 0.75]"]),
    ("−17 [−39, +2]", ["−17", "[−39, +2]"]), ("89.57 %", ["89.57 %"]), ("13 of 18", ["13 of 18"]),
    ("31 dB [29, 34]", ["31 dB", "[29, 34]"]), ("10 sets of 100", ["10", "sets", "of", "100"]),
    ("2 models [a, b]", ["2", "models", "[a,", "b]"]),
])
def test_numbers_of_a_table_break_only_between_values(text, kept):
    cell = f'<td style="text-align:right">{text}<br><a href="x 3 %">0.1 ± 0.2</a></td>'
    made = sphinx_book.glued(f"<p>{text}</p>{cell}")
    assert made.startswith(f"<p>{text}</p><td ")  # prose is left alone
    inside = made.split(">", 3)[3].split("<br>")[0]
    assert inside.split(" ") == [part.replace(" ", "\u00a0") for part in kept]
    assert made.replace("\u00a0", " ") == f"<p>{text}</p>{cell}"
