"""What the book's own Sphinx extension does to a page."""

import pytest

from covbook.sphinx import extension as sphinx_book


@pytest.mark.parametrize("text, kept", [
    ("0.005 ± 0.004 (3)", ["0.005 ± 0.004 (3)"]), ("0.72 [−0.66, 0.75]", ["0.72", "[−0.66, 0.75]"]),
    ("−17 [−39, +2]", ["−17", "[−39, +2]"]), ("89.57 %", ["89.57 %"]), ("13 of 18", ["13 of 18"]),
    ("31 dB [29, 34]", ["31 dB", "[29, 34]"]), ("10 sets of 100", ["10", "sets", "of", "100"]),
    ("2 models [a, b]", ["2", "models", "[a,", "b]"]),
])
def test_numbers_of_a_table_break_only_between_values(text, kept):
    cell = f'<td style="text-align:right">{text} <a href="x 3 %">0.1 ± 0.2</a></td>'
    made = sphinx_book.glued(f"<p>{text}</p>{cell}")
    assert made.startswith(f"<p>{text}</p><td ")  # prose is left alone
    inside = made.split(">", 3)[3].split(" <a")[0]
    assert inside.split(" ") == [part.replace(" ", "\u00a0") for part in kept]
    assert made.replace("\u00a0", " ") == f"<p>{text}</p>{cell}"


@pytest.mark.parametrize("written, printed", [
    ("at 50 %, 90.06 +- 0.30", "at 50 %, 90.06 ± 0.30"), ("-600 +- 750 = -1350", "−600 ± 750 = −1350"),
    ("(-0.095, 1.281)", "(−0.095, 1.281)"), ("87.55 - 84.22", "87.55 - 84.22"), ("CT-1, 2020-11", "CT-1, 2020-11"),
    ("512x512x81 and 3 x 20", "512×512×81 and 3 × 20"), ("RMSE x 10^(PSNR / 20)", "RMSE × 10<sup>PSNR / 20</sup>"),
    ("losses equal to 3e-07, below 1e-5, 10^-2", "losses equal to 3 × 10<sup>−7</sup>, below 10<sup>−5</sup>, "
                                                 "10<sup>−2</sup>"), ("a1e-5 1e-5x", "a1e-5 1e-5x"),
    ("blocks of 32^3, N_i^2.", "blocks of 32<sup>3</sup>, N_i<sup>2</sup>."), ("0x12 x y", "0x12 x y"),
    ("<code>2x2 +- 1</code> 2x2", "<code>2x2 +- 1</code> 2×2"),
    ('<a href="a-5^2x3">-5</a>', '<a href="a-5^2x3">−5</a>'),
])
def test_signs_of_the_keyboard_become_those_of_print(written, printed):
    made = sphinx_book.glued(f"<p>{written}</p><td>{written}</td>").replace("\u00a0", " ")
    assert made == f"<p>{written}</p><td>{printed}</td>"


def test_lines_of_a_cell_are_elements_unless_one_runs_across_them():
    made = sphinx_book.glued("<td><strong>✔ reproduced</strong><br>why</td><td><b>a<br>b</b></td>")
    assert made == ('<td><span class="covlib-line"><strong>✔\u00a0reproduced</strong></span>'
                    '<span class="covlib-line">why</span></td><td><b>a<br>b</b></td>')


def test_each_parameter_is_a_field_of_its_own():
    written = [":param scale: of the crop. ratio: width / height", "            of it. Note: wide.",
               ":param a: x. c: y", ":param b: x. c: y",
               ":raises ValueError: a bad scale. ratio: no.", "", "Text. ratio: text."]
    made = sphinx_book.one_a_field(written, {"scale", "ratio", "a", "b", "c"})
    assert made == [":param scale: of the crop.", ":param ratio: width / height of it. Note: wide.", ":param a: x.",
                    ":param c: y.", ":param b: x.", *written[4:]]
    assert sphinx_book.one_a_field(written, set()) == written


def test_frechet_has_its_accent_in_text_and_keeps_its_name_in_code():
    assert sphinx_book.glued("Frechet distance: generative.Frechet") == "Fréchet distance: generative.Frechet"
