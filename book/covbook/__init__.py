"""covbook: the book's own machinery. Chapters' experiments, figures, runs, the ledger, the command line, the pages."""
