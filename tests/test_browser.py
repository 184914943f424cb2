"""The built book in a browser: Chromium, driven by Playwright, over the pages served on this machine's loopback.

Every page is loaded once: console, requests, pictures and axe-core's findings are gathered in light and dark and at the
width of a phone, and each test looks at one of them. Skips where there is no Chromium (``apt-get install chromium``,
or name one in COVLIB_CHROMIUM).
"""

import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from chromium import AXE, serious

pytestmark = pytest.mark.slow

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# axe-core takes long on long pages: of listings, tables, formulas and entries, which are alike, it sees the first ones.
SAMPLE = """() => {
  const cut = (what, keep) => [...document.querySelectorAll(what)].slice(keep).forEach((e) => e.remove());
  cut("article section > section", 25); cut("dl.py", 8); cut("table tbody tr", 12);
  cut("div.highlight", 4); cut("mjx-container", 3);
}"""


ABORTED = "net::ERR_ABORTED"  # a picture for another width, which the page no longer wants


@dataclass
class Visit:
    """What came of one page: console errors, requests, broken pictures, axe-core's findings by theme, overflow."""

    console: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    axe: dict[str, list[str]] = field(default_factory=dict)
    overflow: list[str] = field(default_factory=list)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address(site) -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def paths(site) -> list[str]:
    """All pages, as paths below the site."""
    files = [site / "search.html", site / "genindex.html", *(site / "book").rglob("*.html")]
    return sorted(path.relative_to(site).as_posix() for path in files)


@pytest.fixture
def tab(browser, address):
    """A new tab at the width of a desktop; ``tab.goto("/book/...")`` is relative to the site."""
    context = browser.new_context(base_url=address, viewport=DESKTOP, reduced_motion="reduce")
    yield context.new_page()
    context.close()


OVERFLOW = """() => {
  const room = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth <= room) return found;
  for (const e of document.querySelectorAll("body *")) {
    const r = e.getBoundingClientRect();
    let inside = false;
    for (let p = e.parentElement; p; p = p.parentElement)
      if (p !== document.body && getComputedStyle(p).overflowX !== "visible") inside = true;
    if (r.width > 0 && r.right > room + 1 && !inside) found.push(e.tagName + "." + e.className + " " + r.right);
  }
  return found.length ? found.slice(0, 5) : ["the page is " + document.documentElement.scrollWidth + " px wide"];
}"""
PICTURES = """() => [...document.images].filter((i) => i.loading !== "lazy" || i.complete)
  .filter((i) => i.getAttribute("src") && !i.naturalWidth).map((i) => i.currentSrc.slice(0, 90))"""
SETTLED = "async () => { await document.fonts.ready; await window.MathJax?.startup?.promise; }"


@pytest.fixture(scope="session")
def visits(browser, address, paths) -> dict[str, Visit]:
    from axe_playwright_python.base import AXE_SCRIPT

    context = browser.new_context(viewport=DESKTOP, reduced_motion="reduce")
    found = {}
    # Pages below book/FOLDER come from one mould each: axe-core looks at one of a kind, everything else at all.
    audited = {path for path in paths if path.count("/") < 2}
    audited |= {"book/api/papers_dcgan.html", "book/datasets/covid-ct.html", "book/appendix/06_cyclegan.html"}
    assert audited <= set(paths)
    for path in paths:
        visit, page = found.setdefault(path, Visit()), context.new_page()
        page.on("console", lambda m, v=visit: v.console.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e, v=visit: v.console.append(str(e)))
        page.on("requestfailed", lambda r, v=visit: v.failed.append(r.url[:120]) if r.failure != ABORTED else None)
        page.on("response", lambda r, v=visit: v.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.on("request", lambda r, v=visit: v.outside.append(r.url) if not _local(r.url, address) else None)
        page.goto(f"{address}/{path}", wait_until="load")
        page.evaluate(SETTLED)
        visit.broken = page.evaluate(PICTURES)
        page.set_viewport_size(PHONE)
        visit.overflow = page.evaluate(OVERFLOW)
        page.set_viewport_size(DESKTOP)
        if path in audited:
            page.evaluate(AXE_SCRIPT)
            page.evaluate(SAMPLE)
        for theme in ("light", "dark") if path in audited else ():
            page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; "
                          "document.documentElement.dataset.mode = theme; }", theme)
            visit.axe[theme] = serious(page, AXE if theme == "light" else {**AXE, "runOnly": ["color-contrast"]})
        page.close()
    context.close()
    return found


def _local(url: str, address: str) -> bool:
    return url.startswith((address + "/", "data:", "blob:"))


def _wrong(visits: dict[str, Visit], what: str) -> dict[str, list[str]]:
    return {path: getattr(visit, what) for path, visit in visits.items() if getattr(visit, what)}


# ---- every page ------------------------------------------------------------------------------------------------------


def test_no_page_writes_errors_to_the_console(visits):
    assert len(visits) > 10 and not _wrong(visits, "console")


def test_nothing_that_a_page_fetches_is_missing(visits):
    assert not _wrong(visits, "failed") and not _wrong(visits, "broken")


def test_no_request_leaves_the_machine(visits):
    assert not _wrong(visits, "outside")


def test_no_page_scrolls_sideways_on_a_phone(visits):
    assert not _wrong(visits, "overflow")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(visits, theme):
    wrong = {path: visit.axe[theme] for path, visit in visits.items() if visit.axe.get(theme)}
    assert sum(theme in visit.axe for visit in visits.values()) > 12
    assert not wrong, "\n".join(f"{path}: {line}" for path, lines in wrong.items() for line in lines)


# ---- what can be used ------------------------------------------------------------------------------------------------


def test_formulas_are_set(tab):
    tab.goto("/book/03_dcgan.html")
    tab.evaluate(SETTLED)
    assert tab.locator("mjx-container").count() > 10
    assert tab.locator("mjx-merror").count() == 0


def test_a_figure_can_be_enlarged_on_a_phone(tab):
    tab.set_viewport_size(PHONE)
    tab.goto("/book/03_dcgan.html")
    button = tab.locator(".covlib-enlarge").first
    image = button.locator("xpath=preceding-sibling::div[1]//img")
    fitted = image.bounding_box()["width"]
    button.press("Enter")
    assert image.bounding_box()["width"] > 1.5 * fitted and button.text_content() == "Fit to the page"
    assert tab.evaluate(OVERFLOW) == []  # the figure scrolls, not the page
    button.press("Enter")
    assert image.bounding_box()["width"] == fitted
    tab.set_viewport_size(DESKTOP)
    assert not button.is_visible()


def test_code_is_shown_to_the_end_of_its_lines_and_copied_as_it_is(tab, root):
    import json

    tab.goto("/book/03_dcgan.html")
    tab.evaluate(SETTLED)
    shown = """() => [...document.querySelectorAll(".cell_input pre")].map((pre) => [
        pre.cloneNode(true).innerText.trim(), pre.scrollWidth <= pre.clientWidth + 1,
        pre.querySelectorAll(".covlib-row").length])"""
    found = tab.evaluate(shown)
    assert all(whole for _, whole, _ in found)
    plain = lambda text: text.replace("Fréchet", "Frechet").strip()  # with and without, in the sources too
    wrapped = {plain(text) for text, _, rows in found if rows}
    cells = json.loads((root / "book" / "03_dcgan.ipynb").read_text(encoding="utf-8"))["cells"]
    assert len(wrapped) > 5 and wrapped <= {plain("".join(cell["source"])) for cell in cells}
    further_in = """() => [...document.querySelectorAll(".cell_input .covlib-row")].filter((row) => row.offsetHeight)
        .map((row) => parseFloat(getComputedStyle(row).paddingLeft) + parseFloat(getComputedStyle(row).textIndent))"""
    assert set(map(round, tab.evaluate(further_in))) == {0}  # a line begins where it did; what wraps is further in
    tab.set_viewport_size(PHONE)
    assert tab.evaluate(shown)[0][0] == found[0][0]
    assert not all(whole for _, whole, _ in tab.evaluate(shown))  # there it scrolls


def test_numbers_stay_with_their_units_and_formulas_with_their_full_stop(tab):
    tab.goto("/book/03_dcgan.html")
    tab.evaluate(SETTLED)
    text = tab.locator("#the-question-can-a-gan-make-more-covid-19-slices").text_content()
    assert "about 40\N{NO-BREAK SPACE}% of them" in text and "40 %" not in text
    marks = tab.locator(".covlib-joined").evaluate_all("(found) => found.map((e) => [e.lastChild.data, "
                                                       "e.firstElementChild.offsetTop, e.getClientRects().length])")
    assert len(marks) > 10 and {mark for mark, _, _ in marks} <= {".", ",", ":", ";", ")", ").", "),", "):"}
    assert {lines for *_, lines in marks} <= {0, 1}  # none of a folded box, one of all others


def test_the_handle_of_a_slider_is_below_its_line(tab, site):
    for size in (DESKTOP, PHONE):
        tab.set_viewport_size(size)
        tab.goto(_pages_with(site, "slider")[0])
        viewer = tab.locator("section[id^=slider]").first
        picture, handle = (viewer.locator(what).bounding_box() for what in (".picture", ".share"))
        assert abs(picture["x"] - handle["x"]) <= 2 and abs(picture["width"] - handle["width"]) <= 4


def test_the_list_of_contents_makes_room_for_every_wide_table_and_comes_back(tab):
    tab.goto("/book/05_cosingan.html")
    tab.evaluate(SETTLED)
    hidden = "wanted => document.querySelector('div.bd-sidebar-secondary').classList.contains('hide') === wanted"
    wide = tab.locator("div.cell.tag_full-width")
    assert wide.count() > 2
    for k in range(wide.count()):
        tab.evaluate("scrollTo(0, 0)")
        tab.wait_for_function(hidden, arg=False)
        wide.nth(k).evaluate("cell => cell.scrollIntoView()")
        tab.wait_for_function(hidden, arg=True)


def test_viewers_and_quiz_follow_the_page_and_have_no_button_to_enlarge(tab, site):
    pages = {_pages_with(site, "slices")[0], _pages_with(site, "slider")[0], _quiz_page(site)}
    grounds = """() => [...document.querySelectorAll(".cell_output section[aria-label]")].map((box) =>
        [getComputedStyle(box).backgroundColor, box.querySelectorAll(".covlib-enlarge").length])"""
    for page in sorted(pages):
        seen = []
        for theme in ("light", "dark"):
            tab.emulate_media(color_scheme=theme)
            tab.goto(page)
            tab.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
            seen.append(tab.evaluate(grounds))
        assert seen[0] and {ground for ground, _ in seen[0]} == {"rgb(255, 255, 255)"}
        assert not {ground for ground, _ in seen[0]} & {ground for ground, _ in seen[1]}
        assert {buttons for found in seen for _, buttons in found} == {0}


def test_the_switch_changes_the_theme(tab):
    tab.goto("/book/intro.html")
    button = tab.locator("button.theme-switch-button").first
    seen = set()
    for _ in range(3):
        button.click()
        seen.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2


def test_print_is_light_and_cuts_nothing_off(tab):
    tab.emulate_media(color_scheme="dark", media="print")
    tab.set_viewport_size({"width": 720, "height": 1000})  # what is left of A4
    for page in ("/book/scoreboard.html", "/book/status.html", "/book/03_dcgan.html",
                 "/book/appendix/03_dcgan.html"):
        tab.goto(page)
        tab.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert tab.evaluate("document.documentElement.dataset.theme") == "light"
        wide = """() => [...document.querySelectorAll(".bd-article :is(table, pre)")].filter((e) =>
            e.getBoundingClientRect().right > document.querySelector(".bd-article").getBoundingClientRect().right + 1
            || e.scrollWidth > e.clientWidth + 1 && e.tagName === "PRE").map((e) => e.textContent.slice(0, 60))"""
        found = tab.evaluate(wide)
        assert found == [], (page, found)
        tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"


def test_search_finds_a_word(tab):
    tab.goto("/search.html?q=fingerprint")
    tab.locator("#search-results li a").first.wait_for(timeout=10000)
    assert tab.locator("#search-results li a").count() >= 2


def _quiz_page(site: Path) -> str:
    words = "Which of the two is synthetic?"
    pages = [path for path in sorted((site / "book").glob("*.html")) if words in path.read_text(encoding="utf-8")]
    assert pages, "no page has a quiz"
    return "/" + pages[0].relative_to(site).as_posix()


def test_quiz_by_mouse(tab, site):
    tab.goto(_quiz_page(site))
    quiz = tab.locator("section[id^=quiz]").first
    status, go_on = quiz.locator("[role=status]"), quiz.locator("button.next")
    first = quiz.locator("img").first.get_attribute("src")
    assert go_on.is_disabled()
    quiz.locator("button.choice").first.click()
    assert "Score:" in status.inner_text() and "of 1," in status.inner_text()
    assert quiz.locator("button.choice.synthetic").count() == 1
    go_on.click()
    assert quiz.locator(".number").inner_text() == "2" and quiz.locator("img").first.get_attribute("src") != first


def test_quiz_by_keyboard_to_the_end(tab, site):
    tab.goto(_quiz_page(site))
    quiz = tab.locator("section[id^=quiz]").first
    quiz.locator("button.choice").first.focus()
    for _ in range(200):
        tab.keyboard.press("ArrowRight")
        if quiz.locator("button.again").is_visible():
            break
        tab.keyboard.press("Enter")
    assert "95 % interval" in quiz.locator("[role=status]").inner_text()
    tab.keyboard.press("Enter")  # the focus is on "Start again"
    assert quiz.locator(".number").inner_text() == "1"


def test_the_book_can_be_paged_through(browser, address):
    """From the first page by the buttons at its foot through the whole book, without JavaScript."""
    context = browser.new_context(base_url=address, java_script_enabled=False)
    tab = context.new_page()
    tab.goto("/book/intro.html", wait_until="domcontentloaded")
    seen = []
    while tab.locator("a.right-next").count():
        seen.append(urlsplit(tab.url).path)
        tab.goto(urljoin(tab.url, tab.locator("a.right-next").first.get_attribute("href")),
                 wait_until="domcontentloaded")
        assert len(seen) < 200
    assert len(seen) >= 10 and len(set(seen)) == len(seen)
    context.close()


def _pages_with(site, kind: str) -> list[str]:
    pages = sorted((site / "book").glob("*.html"))
    return [f"/book/{path.name}" for path in pages if f'section id="{kind}' in path.read_text("utf-8")]


def test_slice_viewer_by_mouse_and_keyboard(tab, site):
    tab.goto(_pages_with(site, "slices")[0])
    viewer = tab.locator("section[id^=slices]").first
    slider, canvas = viewer.locator(".axial .slice"), viewer.locator(".axial canvas")
    slider.wait_for()
    look = lambda: canvas.evaluate("canvas => canvas.toDataURL()")
    at, shown = slider.get_attribute("aria-valuetext"), look()
    slider.press("ArrowRight")
    tab.wait_for_function("([e, old]) => e.getAttribute('aria-valuetext') !== old", arg=[slider.element_handle(), at])
    assert look() != shown and slider.get_attribute("aria-valuetext") in canvas.get_attribute("aria-label")
    canvas.hover()
    tab.mouse.wheel(0, -100)
    tab.wait_for_function("([e, old]) => e.getAttribute('aria-valuetext') === old", arg=[slider.element_handle(), at])
    assert "synthetic" in canvas.get_attribute("aria-label")


def test_before_after_slider_by_mouse_and_keyboard(tab, site):
    pages = _pages_with(site, "slider")
    assert {"/book/01_data.html", "/book/02_judging.html", "/book/03_dcgan.html"} <= set(pages)
    tab.goto(pages[0])
    viewer = tab.locator("section[id^=slider]").first
    handle, line = viewer.locator(".share"), viewer.locator(".line")
    assert handle.input_value() == "50"
    handle.focus()
    tab.keyboard.press("ArrowLeft")
    assert handle.input_value() == "49" and "49 % healthy" in handle.get_attribute("aria-valuetext")
    viewer.locator(".picture").scroll_into_view_if_needed()
    box = viewer.locator(".picture").bounding_box()
    tab.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20)
    tab.mouse.down()
    assert handle.input_value() == "20"
    tab.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 20)
    tab.mouse.up()
    assert handle.input_value() == "80" and line.evaluate("(e) => e.style.left") == "80%"
    assert viewer.locator(".over").evaluate("(e) => getComputedStyle(e).clipPath") == "inset(0px 0px 0px 80%)"


def test_glossary_words_show_their_definition(tab):
    tab.goto("/book/02_judging.html")
    word = tab.locator("a.covlib-term").first
    word.wait_for(timeout=10000)
    box = tab.locator("#covlib-term")
    word.scroll_into_view_if_needed()
    word.hover()
    assert box.is_visible() and len(box.inner_text()) > 20
    tab.keyboard.press("Escape")
    assert not box.is_visible()
    word.focus()
    assert box.is_visible() and word.get_attribute("aria-describedby") == "covlib-term"
