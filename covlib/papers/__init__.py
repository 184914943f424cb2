"""A folder for each paper: its networks, its losses, its Config and its Method."""
