"""Pages made of what was measured; nothing is run."""
