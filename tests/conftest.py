"""What all tests share: quiet, deterministic, and fast tests before slow ones."""

import os
import re
import shutil
from pathlib import Path

# Before anything imports torch, NumPy or matplotlib; the processes that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: none takes more than its own
    os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MKL_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
os.environ["MPLBACKEND"] = "Agg"
os.environ["TQDM_DISABLE"] = "1"

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "covlib", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("covlib")
# Some helpers assert: a failure is to show what was found there too.
pytest.register_assert_rewrite(*(path.stem for path in (Path(__file__).parent / "helpers").glob("*.py")))

LAST = ("test_book.py", "test_browser.py", "test_chapters.py")  # these build the book and run chapters


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real test images that COVLIB_REAL_DATA names; skips where it is not set, fails where it is bad."""
    folder = os.environ.get("COVLIB_REAL_DATA")
    if not folder:
        pytest.skip("set COVLIB_REAL_DATA to the folder of real test images")
    path = Path(folder)
    assert path.is_dir(), f"COVLIB_REAL_DATA={folder} is not a folder"
    return path


@pytest.fixture(autouse=True)
def words_of_no_run():
    """A run that a test started does not decide how the next test's figures call their images."""
    yield
    from covbook import naming

    naming.call_them("00", "folder")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder of the book's HTML, built once from the committed outputs; the build fails on any warning."""
    from covbook.sphinx import build as book

    return book.main(None, tmp_path_factory.mktemp("book"), quiet=True).parent


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright; skips where there is none (apt-get install chromium, or COVLIB_CHROMIUM)."""
    from chromium import FLAGS

    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    known = (os.environ.get("COVLIB_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, (shutil.which(name) for name in known if name)), None)
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in COVLIB_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield found
        found.close()


def pytest_collection_modifyitems(items):
    """Fast tests first, slow ones next, the book and chapters last; otherwise in the order in which they were found."""
    rank = {name: 2 + i for i, name in enumerate(LAST)}
    items.sort(key=lambda item: rank.get(item.path.name, 1 if item.get_closest_marker("slow") else 0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What shares something dear to make goes to one worker: a chapter's tests, those of the built book, a file's."""
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, name = nodeid.partition("::")
            if file.endswith(("test_book.py", "test_browser.py")):
                return "book"
            chapter = re.search(r"\[([0-9]{2}_[a-z0-9_]+)", name) if file.endswith("test_chapters.py") else None
            return chapter[1] if chapter else file

    return Sharing(config, log)
