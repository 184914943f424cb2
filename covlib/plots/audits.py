"""Figures of chapter 08's audits: distances to the nearest training image, pairs, Grad-CAM, probes, planted shortcuts."""


def nearest_distances(audits: dict, *, note: str = ""):
    """A panel an audit: how far synthetic images (vermilion) and held-out real ones (blue) lie from the nearest training
    image, the near-copy threshold dashed. ``audits``: title -> ``covlib.metrics.privacy.PrivacyAudit``."""
    raise NotImplementedError


def nearest_pairs(synthetic, train, audit, *, n: int = 6, note: str = ""):
    """The ``n`` synthetic images that lie nearest to a training image (the worst, called so), above that image."""
    raise NotImplementedError


def probe_bars(probes: dict, *, note: str = ""):
    """AUC with interval of every probe, chance at 0.5. ``probes``: label -> ``covlib.audits.shortcuts.Probe``."""
    raise NotImplementedError


def cam_overlay(images, maps, lung, *, n: int = 5, seed: int | None = 0, note: str = ""):
    """Images with their Grad-CAM laid over and the lungs outlined. maps, lung: (N, S, S)."""
    raise NotImplementedError


def planted_examples(clean, planted: dict, *, note: str = ""):
    """One image without and with each shortcut. planted: name -> images; the same rows as ``clean``."""
    raise NotImplementedError


def planting(rows, *, note: str = ""):
    """A panel a paper: its headline number, trained with and without the mark, tested three ways.
    ``rows``: of ``covlib.audits.planting.study``."""
    raise NotImplementedError
