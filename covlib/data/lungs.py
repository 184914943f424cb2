"""Lung masks made classically: threshold, connected components, closing. For scans whose source has none.

The steps are the usual ones (Hu, Hoffman, Reinhardt, IEEE TMI 2001, doi 10.1109/42.929615): air inside the body by a
threshold, airways and small pockets removed, left and right parted, then each lung closed so that vessels, nodules and
consolidation at its edge fall inside.
"""

import numpy as np
from scipy import ndimage

from covlib.data.case import LEFT, RIGHT

LUNG_BELOW = -400  # HU; half-way between aerated lung (-850) and soft tissue (40)
AIRWAY_BELOW = -930
GAS_BELOW = -960
INJURED_BELOW = -200  # HU; ground glass and loose consolidation, still below fat (-100)
INJURED_MM = 2.5  # thinner rims between lung and wall are partial volume, not disease
CLOSING_MM = 12.0
WORK_MM = 1.5  # the grid that components are found on; finer scans are refined afterwards


def lung_mask(hu: np.ndarray, spacing) -> np.ndarray:
    """Left (1) and right (2) lung.

    Args:
        hu: (Z, Y, X), Hounsfield units, axes as in ``Case``.
        spacing: millimetres along each axis of ``hu``.

    Returns:
        uint8 of the same shape; all 0 where no lung is found.
    """
    spacing = tuple(float(s) for s in spacing)
    step = max(1, int(WORK_MM / spacing[1])), max(1, int(WORK_MM / spacing[2]))
    coarse = _shrink(hu, step)
    coarse_spacing = (spacing[0], spacing[1] * step[0], spacing[2] * step[1])
    mask = _coarse_lungs(coarse, coarse_spacing)
    if step != (1, 1):
        mask = _refined(mask, coarse, hu, step)
    return mask


def _shrink(volume: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """float32 means over step[0] x step[1] pixels of each slice (the ragged edge is repeated)."""
    depth, height, width = volume.shape
    grow = ((0, 0), (0, -height % step[0]), (0, -width % step[1]))
    padded = np.pad(volume, grow, mode="edge") if any(g[1] for g in grow) else volume
    blocks = padded.reshape(depth, padded.shape[1] // step[0], step[0], padded.shape[2] // step[1], step[1])
    return blocks.mean((2, 4), dtype=np.float32)


def _coarse_lungs(hu: np.ndarray, spacing) -> np.ndarray:
    smooth = ndimage.gaussian_filter(hu, [0, *(0.7 / s for s in spacing[1:])])
    # stomach, bowel and trachea are wide and empty; what is wide and empty inside a lung is filled again at the end
    gas = ndimage.binary_opening(smooth < GAS_BELOW - 10, _disk(4.0, spacing))
    gas = ndimage.binary_dilation(gas, _disk(2.5, spacing))
    air, body = _inside_air(hu, smooth, gas, spacing)
    return _lungs_from(air, hu, body, gas, spacing)


def _lungs_from(air: np.ndarray, hu: np.ndarray, body: np.ndarray, gas: np.ndarray, spacing) -> np.ndarray:
    """Labelled lungs from the air inside the body."""
    lung_air = _without_airways(air, hu, spacing)
    lungs = _largest(lung_air, spacing)
    # the blurred rim of gas and airways looks like injured lung
    gas = ndimage.binary_dilation(gas | (air & ~lung_air), _disk(3.0, spacing))
    lungs = _with_injured(lungs, hu, body & ~gas, spacing)
    return _closed(_part(lungs, body, spacing), spacing)


def _inside_air(hu: np.ndarray, smooth: np.ndarray, gas: np.ndarray, spacing) -> tuple[np.ndarray, np.ndarray]:
    """Air inside the body, and the body. Lung that a tight crop leaves open to the room counts as inside."""
    room = _touching_border(smooth < GAS_BELOW)
    air = (smooth < LUNG_BELOW) & ~ndimage.binary_dilation(room, _disk(1.5, spacing)) & ~gas
    body = _body(smooth, spacing)
    label, n = ndimage.label(air)
    if not n:
        return air, body
    numbers = np.arange(1, n + 1)
    typical = ndimage.median(hu, label, numbers)  # lung about -850, gas about -1000
    sizes = np.bincount(label.ravel())[1:]
    inside = ndimage.mean(body, label, numbers) > 0.5
    open_ones = ~inside & (sizes > 0.3 * sizes.max()) & (typical > AIRWAY_BELOW)
    if open_ones.any():  # a lung that the crop has opened lies within the body's hull, the air under the table does not
        hull = _hulls(body)
        open_ones &= ndimage.mean(hull, label, numbers) > 0.5
        inside, body = inside | open_ones, hull if open_ones.any() else body
    # a big one may be a lung with emphysema, a small one is the gap of an armpit
    emptiest = np.where(sizes > 0.5 * sizes.max(), GAS_BELOW, AIRWAY_BELOW)
    return np.concatenate(([False], inside & (typical > emptiest)))[label], body


def _body(hu: np.ndarray, spacing) -> np.ndarray:
    """The largest solid in the scan with everything that it encloses in a slice."""
    label, n = ndimage.label(ndimage.binary_opening(hu > LUNG_BELOW, _disk(3.0, spacing)))
    if not n:
        return np.zeros(hu.shape, bool)
    solid = label == np.bincount(label.ravel())[1:].argmax() + 1
    return np.stack([ndimage.binary_fill_holes(plane) for plane in solid])


def _hulls(body: np.ndarray) -> np.ndarray:
    """Convex hull of the body in each slice."""
    from skimage.morphology import convex_hull_image

    return np.stack([convex_hull_image(plane) if plane.any() else plane for plane in body])


def _touching_border(mask: np.ndarray) -> np.ndarray:
    """Components of each slice that touch the slice's edge."""
    edge = np.ones_like(mask)
    edge[:, 1:-1, 1:-1] = False
    return ndimage.binary_propagation(mask & edge, ndimage.generate_binary_structure(2, 1)[None], mask)


def _disk(radius_mm: float, spacing) -> np.ndarray:
    """A disk in the axial plane, (1, h, w)."""
    ry, rx = (max(1, int(radius_mm / s)) for s in spacing[1:])
    y, x = np.ogrid[-ry : ry + 1, -rx : rx + 1]
    return ((y * spacing[1]) ** 2 + (x * spacing[2]) ** 2 <= max(radius_mm, spacing[1], spacing[2]) ** 2)[None]


def _without_airways(air: np.ndarray, hu: np.ndarray, spacing) -> np.ndarray:
    """Take out trachea and main bronchi: small, round, empty pockets of a slice near the middle of the body."""
    out = air.copy()
    pixel = spacing[1] * spacing[2]
    for k, plane in enumerate(air):
        columns = np.flatnonzero(plane.any(0))
        if not len(columns):
            continue
        middle, half = (columns[0] + columns[-1]) / 2, max(1.0, (columns[-1] - columns[0]) / 2)
        label, n = ndimage.label(plane)
        numbers = np.arange(1, n + 1)
        areas = ndimage.sum_labels(plane, label, numbers) * pixel
        means = ndimage.minimum(hu[k], label, numbers)
        centres = ndimage.center_of_mass(plane, label, numbers)
        for number, area, low, centre in zip(numbers, areas, means, centres, strict=True):
            if area < 900 and low < AIRWAY_BELOW and abs(centre[1] - middle) < 0.3 * half:
                out[k][label == number] = False
    return out


def _largest(air: np.ndarray, spacing) -> np.ndarray:
    """Components of at least a tenth of the largest one's volume (of a thirtieth in a single slice, where injured lung
    falls into islands), opened so that bowel gas and thin bridges fall off."""
    opened = ndimage.binary_opening(air, _disk(2.0, spacing))
    label, n = ndimage.label(opened)
    if not n:
        return opened
    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    keep = sizes >= max(sizes.max() / (10 if len(air) > 1 else 30), 1)
    return keep[label]


def _with_injured(lungs: np.ndarray, hu: np.ndarray, where: np.ndarray, spacing) -> np.ndarray:
    """Add denser lung that lies against aerated lung, inside ``where``."""
    smooth = ndimage.gaussian_filter(hu, [0, *(1.5 / s for s in spacing[1:])])
    rest = (smooth < INJURED_BELOW) & ~lungs & where
    rest = ndimage.binary_opening(rest, _disk(INJURED_MM, spacing))
    near = ndimage.binary_dilation(lungs, _disk(2.0, spacing))
    return lungs | ndimage.binary_propagation(near & rest, mask=rest)


def _part(lungs: np.ndarray, body: np.ndarray, spacing) -> np.ndarray:
    """1 left, 2 right. Lungs that touch are parted where eroding parts them; every voxel goes to the nearer piece."""
    if not lungs.any():
        return lungs.astype(np.uint8)
    pieces = _two_pieces(lungs, spacing)
    label, n = ndimage.label(pieces)
    numbers = np.arange(1, n + 1)
    across = np.array([c[2] for c in ndimage.center_of_mass(pieces, label, numbers)])
    sizes = ndimage.sum_labels(pieces, label, numbers)
    columns = np.flatnonzero((body | lungs).any((0, 1)))
    width, line = columns[-1] - columns[0], (columns[-1] + columns[0]) / 2
    left = across > line
    if 0 < left.sum() < n:  # half-way between the two lungs, which the heart pushes to one side
        between = (np.average(across[left], weights=sizes[left]) + np.average(across[~left], weights=sizes[~left])) / 2
        line = np.clip(between, line - 0.12 * width, line + 0.12 * width)
    side = np.concatenate(([0], np.where(across > line, LEFT, RIGHT))).astype(np.uint8)[label]
    here = np.broadcast_to(np.arange(lungs.shape[2]) > line, lungs.shape)
    share = ndimage.mean(here, label, numbers)
    joined = np.isin(label, numbers[(share > 0.25) & (share < 0.75)])  # both lungs in one piece: cut along the line
    side[joined] = np.where(here[joined], LEFT, RIGHT)
    nearest = ndimage.distance_transform_edt(side == 0, spacing, return_distances=False, return_indices=True)
    return np.where(lungs, side[tuple(nearest)], 0).astype(np.uint8)


def _two_pieces(lungs: np.ndarray, spacing) -> np.ndarray:
    """``lungs``, eroded in the plane by as little as parts it into two sides, each of a tenth of the whole at least."""
    padded = np.pad(lungs, ((0, 0), (1, 1), (1, 1)))
    depth = np.stack([ndimage.distance_transform_edt(plane, spacing[1:]) for plane in padded])[:, 1:-1, 1:-1]
    for radius in (0, 1.5, 3, 5, 7.5, 10, 14, 20):
        pieces = depth > radius
        label, n = ndimage.label(pieces)
        if not n:
            break
        sizes = np.bincount(label.ravel())
        sizes[0] = 0
        if n >= 2 and np.sort(sizes)[-2] > 0.1 * sizes.sum():
            return (sizes >= 0.02 * sizes.sum())[label]
    return lungs


def _closed(sides: np.ndarray, spacing) -> np.ndarray:
    """Close and fill each lung slice by slice; neither takes in a part of the other."""
    out = np.zeros_like(sides)
    for side in (LEFT, RIGHT):
        lung = sides == side
        for k, plane in enumerate(lung):
            if plane.any():
                closed = ndimage.binary_fill_holes(_closing(plane, spacing, CLOSING_MM))
                out[k][closed & (out[k] == 0) & (sides[k] != 3 - side)] = side
    return out


def _closing(plane: np.ndarray, spacing, radius: float) -> np.ndarray:
    """Closing of a slice by a disk, by distance, which costs the same for any radius."""
    margin = [int(radius / s) + 2 for s in spacing[1:]]
    grown = np.pad(plane, [(m, m) for m in margin])
    grown = ndimage.distance_transform_edt(~grown, spacing[1:]) <= radius
    closed = ndimage.distance_transform_edt(grown, spacing[1:]) > radius
    return closed[margin[0] : -margin[0], margin[1] : -margin[1]] | plane


def _refined(mask: np.ndarray, coarse: np.ndarray, volume: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """The coarse mask on the fine grid; within one coarse pixel of its edge the fine HU decide, except where the edge
    was closed over dense tissue."""
    _, height, width = volume.shape
    up = lambda a: a.repeat(step[0], 1).repeat(step[1], 2)[:, :height, :width]
    fine, grown = up(mask), up(ndimage.maximum_filter(mask, (1, 3, 3)))
    aerated_edge = (ndimage.minimum_filter(mask, (1, 3, 3)) == 0) & (mask > 0) & (coarse < LUNG_BELOW)
    fine[up(aerated_edge) & (volume > INJURED_BELOW)] = 0
    add = (fine == 0) & (grown > 0) & (volume < LUNG_BELOW)
    fine[add] = grown[add]
    return fine


# ---- display grey ----------------------------------------------------------------------------------------------------


def lung_mask_grey(image: np.ndarray, lesion: np.ndarray | None = None) -> np.ndarray:
    """Left (1) and right (2) lung on an axial slice in display grey of unknown window, cropped to the lungs or not.

    The grey of aerated lung and of soft tissue are found in the histogram and set to -850 and 40 HU; the rest is as for
    HU. The picture is taken for 330 mm across. Soft-tissue windows, in which lung is black, work less well.

    Args:
        image: (H, W) in [0, 1].
        lesion: mask of lesions on it, if there is one: they are lung too.

    Returns:
        uint8 (H, W); all 0 where no lung is found (radiographs, say).
    """
    image = np.asarray(image, np.float32)
    spacing = (1.0, *(330.0 / max(image.shape[1], 1),) * 2)
    step = (max(1, int(WORK_MM / spacing[1])),) * 2
    spacing = (1.0, spacing[1] * step[0], spacing[2] * step[1])
    hu, outside = _guessed_hu(_shrink(image[None], step)[0], spacing)
    if hu is None:
        return np.zeros(image.shape, np.uint8)
    air = (ndimage.gaussian_filter(hu, 0.7 / spacing[1]) < LUNG_BELOW) & ~outside
    mask = _lungs_from(air[None], hu[None], ~outside[None], outside[None], spacing)[0]
    mask = mask.repeat(step[0], 0).repeat(step[1], 1)[: image.shape[0], : image.shape[1]]
    if lesion is not None and np.any(lesion) and mask.any():
        nearest = ndimage.distance_transform_edt(mask == 0, return_distances=False, return_indices=True)
        mask = np.where((mask == 0) & (lesion > 0), mask[tuple(nearest)], mask)
        mask = _closed(mask[None], (1.0, *(330.0 / image.shape[1],) * 2))[0]
    return mask


def _guessed_hu(image: np.ndarray, spacing) -> tuple[np.ndarray | None, np.ndarray]:
    """Display grey stretched so that its two main tones become lung and soft tissue (None for a flat picture), and what
    lies outside the body: black margins, and dark corners."""
    from skimage.filters import threshold_otsu

    smooth = ndimage.gaussian_filter(image, 1.0 / spacing[1])
    outside = _touching_border((image <= 2 / 255)[None])[0]
    if outside.mean() > 0.5 or np.ptp(smooth[~outside]) < 0.1:
        return None, outside
    # the lower edge of the gap between the tones, plus one bin, so that a flat lung is not cut through
    cut = threshold_otsu(smooth[~outside]) + np.ptp(smooth[~outside]) / 256
    outside = outside | _room_in_grey((smooth < cut) & ~outside, (smooth >= cut) & ~outside, ~outside, spacing)
    shown = smooth[~outside]
    if not (shown < cut).any():
        return None, outside
    dark, bright = _mode(shown[shown < cut]), _mode(shown[shown >= cut])
    hu = -850 + (image - dark) / max(bright - dark, 0.05) * 890
    return np.where(outside, -1024, np.clip(hu, -1024, 3071)).astype(np.float32), outside


def _room_in_grey(dark: np.ndarray, bright: np.ndarray, shown: np.ndarray, spacing) -> np.ndarray:
    """Dark pieces round the body: outside the hull of all that is bright, or in the corners of what is shown. A lung
    that reaches one corner of a tight crop is no room if it is large."""
    solid = ndimage.binary_opening(bright, _disk(3.0, spacing)[0])
    hull = _hulls(solid[None])[0]
    rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    label, n = ndimage.label(dark)
    if not n:
        return dark
    numbers = np.arange(1, n + 1)
    sizes = ndimage.sum_labels(dark, label, numbers)
    corners = label[np.ix_(rows[[0, -1]], columns[[0, -1]])].ravel()
    touched = np.array([(corners == k).sum() for k in numbers])
    beside = ndimage.mean(hull, label, numbers) < 0.5
    room = beside | (touched >= 2) | ((touched == 1) & (sizes < 0.5 * sizes[~beside & (touched < 2)].max(initial=0)))
    return np.concatenate(([False], room))[label]


def _mode(values: np.ndarray) -> float:
    """The most frequent tone (histogram of 64 bins over [0, 1], smoothed)."""
    counts, edges = np.histogram(values, bins=64, range=(0, 1))
    return float(edges[ndimage.gaussian_filter1d(counts.astype(float), 1.5).argmax()] + 1 / 128)
