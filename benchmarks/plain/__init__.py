"""The papers' training steps as one writes them down first: what covlib is timed against, once shown equal."""
