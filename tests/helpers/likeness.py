"""What is measured on real and on virtual slices alike, to tell what gives the virtual ones away.

All on slices in Hounsfield units, resampled to 0.75 mm pixels, without knowledge of how they were made.
"""

import numpy as np
from scipy import ndimage

PIXEL = 0.75  # mm
DEPTHS = (2, 5, 10, 15, 25, 40)  # mm below the lung's edge


def resampled(hu, pixel):
    """A slice (Y, X) of square pixels of ``pixel`` mm at PIXEL."""
    return hu if abs(pixel / PIXEL - 1) < 0.01 else ndimage.zoom(hu, pixel / PIXEL, order=1, mode="nearest")


def lungs(hu):
    """Lung mask of a slice with the vessels in it: large air regions inside the body, closed over 6 mm."""
    parts, n = ndimage.label(hu < -500)
    rim = np.unique(np.r_[parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    sizes = np.bincount(parts.ravel())
    mask = np.isin(parts, [i for i in range(1, n + 1) if i not in rim and sizes[i] > 1200])
    return ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(mask, 20), iterations=8)[20:-20, 20:-20] | mask)


def vessel_share(hu, mask):
    """Share of lung pixels that are vessels, at each of the DEPTHS: they stand out by 120 HU over 3 mm around."""
    y, x = np.mgrid[-4:5, -4:5]
    thin = hu - ndimage.grey_opening(hu, footprint=x * x + y * y <= 16.5) > 120
    depth = ndimage.distance_transform_edt(mask) * PIXEL
    zones = [mask & (depth >= a) & (depth < b) for a, b in zip(DEPTHS[:-1], DEPTHS[1:], strict=True)]
    return np.array([[(thin & zone).sum(), zone.sum()] for zone in zones], float)


def border_roughness(mask):
    """mm by which the edge of the left lung (larger x) towards the heart leaves its course over 15 mm (RMS)."""
    parts, n = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())[1:]
    left = max((i + 1 for i in np.argsort(sizes)[-2:]), key=lambda i: ndimage.center_of_mass(parts == i)[1])
    rows = np.nonzero((parts == left).any(1))[0]
    rows = rows[int(0.1 * len(rows)) : int(0.65 * len(rows))]  # beside heart and great vessels, above the spine
    edge = (parts[rows] == left).argmax(1) * PIXEL
    return float((edge - ndimage.gaussian_filter1d(edge, 7.5 / PIXEL, mode="nearest")).std())
