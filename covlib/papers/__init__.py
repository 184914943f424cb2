"""One module per paper: its networks, its losses, its Config and its Method."""
