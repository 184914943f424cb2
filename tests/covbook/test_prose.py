"""Numbers in prose come from their source: no page types one, every role resolves, and a typed one is found."""

import json
import re

import pytest
from typed_numbers import typed

from covbook import project, prose
from covbook.runner import chapters
from covlib.errors import DataError

BOOK = project.ROOT / "book"
PAGES = sorted([path.stem for path in BOOK.glob("*.md")] + [chapter.name for chapter in chapters.chapters()])


def cells(page: str) -> list[str]:
    """The Markdown of a page, cell by cell."""
    if (BOOK / f"{page}.md").is_file():
        return [(BOOK / f"{page}.md").read_text(encoding="utf-8")]
    found = chapters.read_notebook(BOOK / f"{page}.ipynb")["cells"]
    return ["".join(c["source"]) for c in found
            if c["cell_type"] == "markdown" and chapters.RECORDED_TAG not in c["metadata"].get("tags", [])]


# -- the pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_no_number_is_typed(page):
    found = [sentence for cell in cells(page) for sentence in typed(cell, page)]
    assert not found, "say it by a role, {number}`...` (covbook.prose), or not at all"


@pytest.mark.parametrize("page", PAGES)
def test_every_number_that_a_page_says_has_its_source(page):
    names = prose.scope(page)
    for cell in cells(page):
        for role, content in prose.roles_in(cell):
            said = prose.say(role, content, names)
            assert said and "–" not in said and "{" not in said, content


@pytest.mark.parametrize("page", [page for page in PAGES if page[0].isdigit()])
def test_conditions_of_a_page_are_all_decidable(page):
    """Not only the one that holds today: the other words, too, have their source."""
    names = prose.scope(page)
    for cell in cells(page):
        for role, content in prose.roles_in(cell):
            for choice in content.split(" | ") if role == "says" else ():
                condition, mark, words = choice.rpartition(" ? ")
                if mark:
                    prose.evaluate(condition, names)
                prose.filled(words, names)


# -- what the test finds ----------------------------------------------------------------------------------------------

TYPED = ("On this page the Dice fell from 0.4371 to 0.2146.", "It ends at 19.83 dB inside the lungs.",
         "The rate is 87.31 % of 5,117 slices.", "The gain is $0.3719$ on seed 1.", "They lie 7313 apart (Table 2).")


@pytest.mark.parametrize("page", PAGES)
def test_a_number_typed_into_a_copy_of_a_page_is_found(page):
    for cell in cells(page):
        places = [m.start() for m in re.finditer(r"(?<=[a-z]\.)\n\n(?=[A-Z*])", cell)]
        for at in [*places[:3], len(cell)]:
            for sentence in TYPED:
                start, end = cell[:at], cell[at:]
                if start.rstrip().endswith(("```", ":::", "|", "=")) or start.count("```") % 2:
                    start += "\n\n"
                assert typed(f"{start} {sentence}{end}", page), (sentence, start[-80:])


def test_a_measured_number_typed_in_its_role_s_place_is_found():
    """Of the numbers that chapters take from runs all but those that are 0, 1 or happen to be a number of the paper."""
    total = found = 0
    for page in (page for page in PAGES if page[0].isdigit()):
        names = prose.scope(page)
        for cell in cells(page):
            for match in prose.ROLE.finditer(cell):
                content = " ".join(match[2].split())
                if match[1] == "number" and re.search(r"\b(run|seeds|on|table)\.", content):
                    copy = cell[: match.start()] + prose.say("number", content, names) + cell[match.end():]
                    total, found = total + 1, found + bool(typed(copy, page))
    assert total > 80 and found > 0.7 * total


@pytest.mark.parametrize(("text", "numbers"), [
    ("COVID-19 in ResNet-50, chapter 04, Table 2 and Section 3.3.2, seeds 0 to 4, a 3-D U-Net on an H200.", 0),
    ("Settings are code: `0.4371`, and so are `--set x=12` and sizes, `64 x 64`.", 0),
    ("```bash\ncovlib run 17\n```\n\n```{math}\n```", 0),
    ("A {cite:p}`hansell2008` study has 11,821 of them.", 0),
    ("A {cite:p}`hansell2008` study has them. Ours has 11,821.", 1),
    ("Mann et al. have 349 slices, {cite:p}`mann2021` and no 350.", 1),
    ("We have 349 slices.", 1),
    ("From 0 to 1, with $x_2^3 + 1$ and $\\frac{1}{2}$ of $n = 32^3$.", 0),
    ("It is $12.5$ and $x = 0.25$ dB.", 2),
    ("{number}`run.psnr:.1f` dB, {says}`a > 2 ? more | less`.", 0),
    ("{says}`a > 2 ? by 17 | by {b:.0f}`.", 1),
    ("[border at -300 HU](https://doi.org/10.1186/x) and [below](#part-3).", 0),
    ("In 2020 and of 2005, under CC BY 4.0, a 95 % interval, arXiv:2007.14638, an 8-bit picture.", 0),
    (":::{admonition} A skew of 22.9\n:class: warning\nWords.\n:::", 1),
])
def test_what_counts_as_typed(text, numbers):
    assert len(typed(text, "intro")) == numbers


def test_the_paper_s_numbers_may_stand_where_it_is_named_and_nowhere_else():
    assert not typed("The paper has 4,758 images of pneumonia.", "06_cyclegan")
    assert typed("We have 4,758 images of pneumonia.", "06_cyclegan")
    assert typed("The paper has 4,759 images of pneumonia.", "06_cyclegan")
    assert typed("The paper has 4,758 images of pneumonia.", "03_dcgan")  # another paper's number


# -- what a role says -------------------------------------------------------------------------------------------------


@pytest.fixture
def run() -> dict:
    """A run of chapter 07 with one measurement."""
    metric = {"name": "psnr", "value": 31.25, "unit": "dB", "n": 3, "interval": [30.9, 31.6], "how": "", "paper": None}
    return {"chapter": "07_cgan3d", "seed": 3, "profile": "smoke", "config": {"width": 7}, "metrics": [metric],
            "times": {"wall_seconds": 90.0, "peak_memory_mb": 1500.0},
            "data": {"kind": "phantom", "images": 12, "patients": 4, "split": {"train": 9, "test": 3}}}


def test_names_of_a_chapter_s_page(run):
    names = prose.scope("07_cgan3d", run)
    said = {"run.psnr": "31.2 dB [30.9, 31.6]", "run.psnr:.2f": "31.25", "run.psnr.low": "30.9",
            "run.minutes:.1f": "1.5", "run.memory_gb:.1f": "1.5", "run.in_training": "9", "run.config.width": "7",
            "epochs": "100", "paper.batch_size": "50", "cpu.batch_size": "2", "cyclegan.train_covid": "180",
            "run.seed": "3", "len(seeds.table1_psnr) > 0": "yes", "dcgan.paper.epochs": "3,000"}
    assert {content: prose.say("number", content, names) for content in said} == said
    run["metrics"][0] |= {"interval": None, "spread": [30.0, 33.0]}  # of repeats: no interval
    names = prose.scope("07_cgan3d", run)
    assert [prose.say("number", f"run.psnr.{end}", names) for end in ("lowest", "high")] == ["30.0", "–"]


def test_a_page_speaks_of_the_run_whose_outputs_it_shows():
    shown = prose.page_run("03_dcgan")
    head = next(c for c in chapters.read_notebook(BOOK / "03_dcgan.ipynb")["cells"]
                if chapters.RECORDED_TAG in c["metadata"].get("tags", []))
    assert shown["seed"] == 0 and shown["profile"] == "long"
    assert str(shown["overrides"] or "`data=") in "".join(head["source"])
    recorded = json.loads((project.RESULTS / shown["file"]).read_text())
    value = next(m["value"] for m in recorded["metrics"] if m["name"] == "judge_accuracy")
    assert prose.say("number", "run.judge_accuracy:.4f", prose.scope("03_dcgan")) == f"{value:.4f}"


def test_studies_and_changed_runs_go_by_the_name_of_their_data():
    names = prose.scope("03_dcgan")
    recorded = {d["data"]["name"]: d for d in prose.collected() if d["study"] == "dcgan-small"}
    assert set(recorded) >= {"phantom", "ct_slices"}
    for data, document in recorded.items():
        arm = next(a for a in document["arms"] if a["name"] == "few_real")
        mean = sum(run["metrics"]["accuracy"] for run in arm["runs"]) / len(arm["runs"])
        said = prose.say("number", f"mean(table_on.{data}.dcgan_small.few_real.accuracy):.4f", names)
        assert said == f"{mean:.4f}"
        if data == "phantom":
            assert prose.say("number", "mean(table.dcgan_small.few_real.accuracy):.4f", names) == said
    xray = next(r for r in prose.results("06_cyclegan") if "detect_models" in r["overrides"])
    value = next(m["value"] for m in xray["metrics"] if m["name"] == "auc_normal_real")
    assert prose.say("number", "changed_on.cxr.detect_models.auc_normal_real:.4f", prose.scope("06_cyclegan")) == \
        f"{value:.4f}"


def test_words_follow_the_numbers(run):
    names = prose.scope("07_cgan3d", run)
    text = "run.psnr.low > 40 ? high | run.psnr > 30 ? middling, {run.psnr:.0f} dB | low"
    assert prose.say("says", text, names) == "middling, 31 dB"
    run["metrics"][0].update(value=12.0, interval=[11.0, 13.0])
    assert prose.say("says", text, prose.scope("07_cgan3d", run)) == "low"
    run["metrics"][0].update(value=50.0, interval=None)  # without an interval no end of it lies anywhere
    assert prose.say("says", text, prose.scope("07_cgan3d", run)) == "middling, 50 dB"


@pytest.mark.parametrize(("role", "content", "words"), [
    ("number", "run.ssim", "'ssim'"), ("number", "on.mars.psnr", "'mars'"), ("number", "paper.no_such", "'no_such'"),
    ("number", "table.cgan3d_table9.a.b", "'cgan3d_table9'"), ("says", "run.psnr > 3, many | few", r"has no ' \? '"),
    ("number", "changed.width.psnr", "'width'"), ("number", "table_on.mars.cgan3d_readings.a.b", "'cgan3d_readings'"),
    ("number", "changed_on.cxr.width.psnr", "'width'"), ("number", "nothing.run.psnr", "'nothing'")])
def test_what_a_role_cannot_say_is_named_and_is_a_dash_where_another_run_is_shown(role, content, words, run):
    names = prose.scope("07_cgan3d", run)
    with pytest.raises(DataError, match=words):
        prose.say(role, content, names)
    if role == "number":
        assert prose.say(role, content, names, strict=False) == "–"
    assert prose.say("says", "run.ssim > 0 ? good | not measured here", names, strict=False) == "not measured here"


def test_pages_that_are_no_chapter_name_chapters():
    names = prose.scope("how_to")
    assert prose.say("number", "dcgan.run.minutes > 0", names) == "yes"
    assert prose.say("number", "dcgan.covid_images", names) == "349"
    with pytest.raises(DataError, match="'run' is not known here"):
        prose.say("number", "run.psnr", names)
