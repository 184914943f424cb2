"""Documents that runs and sweeps leave, held against each other."""


def comparable(document: dict) -> dict:
    """``document`` without clock, machine and paths: what must be equal when the same is run again."""
    return {key: value for key, value in document.items() if key not in ("times", "paths")}
