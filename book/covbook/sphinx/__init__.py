"""Building the HTML book: staging, the library's pages, generated tables, the Sphinx extension."""
