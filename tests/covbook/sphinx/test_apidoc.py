"""The library's pages and the index from function to chapter."""

import inspect
from importlib import import_module

import docutils.frontend
import docutils.parsers.rst
import docutils.utils
import pytest
from docutils import nodes

from covbook.runner import chapters
from covbook.sphinx import apidoc
from covbook.sphinx import extension as sphinx_book

MODULES = apidoc.library()
SETTINGS = docutils.frontend.get_default_settings(docutils.parsers.rst.Parser)
SETTINGS.report_level, SETTINGS.halt_level = 5, 6


def test_reading_finds_what_importing_finds():
    for name in ("covlib.metrics.image", "covbook.interactive.viewers", "covbook.runs"):
        module = import_module(name)
        expected = {n for n, thing in vars(module).items() if not n.startswith("_") and thing.__doc__
                    and (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == name}
        assert expected <= set(MODULES[name].public) | {"LUNG_WINDOW"}


def test_every_public_name_has_a_row_and_its_module_a_page():
    index, pages = apidoc.index(MODULES, {}), "\n".join(apidoc.pages(MODULES).values())
    for module in MODULES.values():
        for name in module.public:
            assert f"<{module.name}.{name}>`" in index
        assert (f"automodule:: {module.name}\n" in pages) == bool(module.public)


def test_chapters_introduce_what_their_code_names():
    where = apidoc.introduced(MODULES)
    assert where["covlib.data.hu.window"] == apidoc.Use("01_data", True)
    assert where["covlib.papers.dcgan.nets.Generator"] == apidoc.Use("03_dcgan", True)
    assert where["covbook.plots.pictures.sample_grid"].direct  # through the package's re-export
    assert where["covlib.phantom.generator.generate"] == apidoc.Use("01_data", True)
    assert where["covlib.papers.cyclegan.config.Config"].chapter == "06_cyclegan"
    assert not where["covlib.nets.init_normal"].direct
    order = [chapter.name for chapter in chapters.chapters()]
    assert {use.chapter for use in where.values()} <= set(order)


def docstrings():
    """Name, and lines as napoleon gives them to docutils, of all that the library's pages show."""
    from sphinx.ext.napoleon import Config, GoogleDocstring

    for name, read in MODULES.items():
        module = import_module(name)
        things = [(name, module), *((f"{name}.{n}", getattr(module, n)) for n in read.public)]
        things += [(f"{owner}.{n}", inspect.unwrap(getattr(thing, "__func__", thing))) for owner, cls in things
                   if inspect.isclass(cls) for n, thing in vars(cls).items() if not n.startswith("_")]
        for full, thing in things:
            if isinstance(text := inspect.getdoc(thing), str):
                what = "class" if inspect.isclass(thing) else "function"
                google = GoogleDocstring(text, Config(napoleon_use_ivar=True), None, what, full, thing)
                yield full, sphinx_book.one_a_field(google.lines(), sphinx_book._names(thing))


def problems(lines: list[str]) -> list[str]:
    """What docutils finds wrong with a docstring, and what it takes for a quotation, a reference or a substitution."""
    document = docutils.utils.new_document("docstring", SETTINGS.copy())
    found: list[str] = []
    document.reporter.attach_observer(lambda message: found.append(message.astext()))
    docutils.parsers.rst.Parser().parse("\n".join(lines), document)
    odd = (nodes.block_quote, nodes.substitution_reference, nodes.footnote_reference, nodes.citation_reference)
    return [text for text in found if "interpreted text role" not in text and "No role entry" not in text] + [
        node.astext() for node in document.findall() if isinstance(node, odd)
        or isinstance(node, nodes.reference) and not node.get("refuri")]


@pytest.mark.parametrize("lines, good", [
    (["A text with ``code``."], True), (["A *broken one."], False), (["A |bar."], False),
    (["A", "", "  quotation."], False), (["List:", "  * one", " two"], False),
    (["Example::", "", "    code | *"], True),
])
def test_docstrings_are_checked(lines, good):
    assert (problems(lines) == []) == good


def test_every_docstring_is_clean_restructuredtext():
    assert {name: found for name, lines in docstrings() if (found := problems(lines))} == {}


def test_the_build_takes_what_was_read_while_the_book_was_staged(tmp_path):
    class App:
        srcdir = tmp_path

    (tmp_path / sphinx_book.INTRODUCED).write_text('{"covlib.errors.DataError": ["01_data", true]}')
    assert sphinx_book._introduced(App) == {"covlib.errors.DataError": apidoc.Use("01_data", True)}


def test_a_sidebar_made_of_titles_is_the_one_that_sphinx_makes(tmp_path):
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    pages = {"index": "Top\n===\n\n.. toctree::\n   :caption: Part\n\n   a\n   b\n",
             "a": "A\n=\n\nOne\n---\n\nTwo\n---\n\n.. py:function:: f()\n\n.. toctree::\n\n   c\n",
             "b": "B\n=\n\n.. py:function:: g()\n", "c": "C\n=\n\nThree\n-----\n"}
    for name, text in pages.items():
        (tmp_path / f"{name}.rst").write_text(text)
    with docutils_namespace():
        app = Sphinx(tmp_path, None, tmp_path / "out", tmp_path / "trees", "html", status=None, freshenv=True)
        app.build()
        contents = dict(app.env.tocs)
        for page in pages:
            whole = lambda page=page, **options: app.builder._get_local_toctree(page, **options)
            context = {"toctree": whole}
            sphinx_book._titles_alone(app, page, "", context, None)
            for titles in (True, False):
                options = {"titles_only": titles, "collapse": False, "includehidden": True}
                assert context["toctree"](**options) == whole(**options)
                assert ("Three" in whole(**options)) != titles and "C</a>" in whole(**options)
    assert app.env.tocs == contents and "f()" in str(contents["a"])


def test_styles_of_references_are_looked_up_without_reading_all_packages(monkeypatch):
    from pybtex import plugin

    sphinx_book._remember_styles()
    monkeypatch.setattr(plugin, "entry_points", None)
    for group, name in (("pybtex.style.formatting", "unsrt"), ("pybtex.backends", "docutils")):
        assert plugin.find_plugin(group, name).__module__.startswith(("pybtex", "pybtex_docutils"))


@pytest.mark.parametrize("tex, text", [
    (r"\mu_\text{water}", "μ_water"), (r"-y \log p - (1 - y) \log (1 - p)", "-y log p - (1 - y) log (1 - p)"),
    (r"I = I_0 \exp(-\int \mu \, ds)", "I = I_0 exp (-∫μ ds)"),
])
def test_formulas_in_hover_texts_are_readable(tex, text):
    assert sphinx_book.plain_formula(tex) == text
