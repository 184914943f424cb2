"""What tests that look at pages in a browser share; the browser itself is a fixture of ``conftest``."""

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
AXE = {"resultTypes": ["violations"], "preload": False}
SCREENS = [(1000, "light"), (390, "dark")]  # width in pixels, theme


def serious(page, options: dict) -> list[str]:
    """axe-core's serious and critical findings (its script is in the page): rule, how many, the first place."""
    result = page.evaluate("(options) => axe.run(document, options)", options)
    return [f"{v['id']} ({v['impact']}, {len(v['nodes'])}): {v['nodes'][0]['html'][:160]} "
            f"{v['nodes'][0].get('failureSummary', '')[:200]}"
            for v in result["violations"] if v["impact"] in ("serious", "critical")]


def assert_fits_and_accessible(page) -> None:
    """The page is no wider than its window, and axe-core finds nothing serious in it."""
    from axe_playwright_python.base import AXE_SCRIPT

    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.evaluate(AXE_SCRIPT)
    assert serious(page, AXE) == []
