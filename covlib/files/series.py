"""One DICOM CT series in a folder: sorted, put in register, made even, and read into a ``Case``."""

from pathlib import Path

import numpy as np

from covlib.data.case import Case
from covlib.errors import DataError
from covlib.files.dicom import (
    FEW,
    Frame,
    frames_of,
    is_axial,
    is_called_scout,
    is_dicom,
    numbers,
    read_header,
    scanner_of,
    why_no_slice,
)
from covlib.files.grids import STRAIGHT, Volume, even_step, evened, in_register, orient
from covlib.files.names import list_folder
from covlib.files.values import to_hu

SAME = 1e-3  # mm between slices that lie at one place


def read_dicom_series(folder, *, name: str | None = None, patient: str = "", label: str | None = None,
                      files=()) -> Case:
    """Read the one CT series in ``folder`` (its own files, whatever their ending; or ``files``), sorted by position.

    Scouts, reports and dose sheets beside it are left out; slices copied exactly are dropped; slices that lie aside of
    each other (a tilted gantry) are moved back; uneven ones are resampled. ``meta["notes"]`` says each of these.

    Raises:
        DataError: no DICOM file, several series (they are listed), slices missing, two different ones at one place, of
            different size, or pixel data that cannot be decoded.
    """
    folder = Path(folder)
    files = list(files) or [p for p in list_folder(folder) if p.is_file() and is_dicom(p)]
    if not files:
        raise DataError(f"{folder}: no image.nii.gz and no DICOM file in it; one of the two is wanted")
    headers, notes = _one_series(folder, [read_header(p) for p in files])
    frames = [frame for header in headers for frame in frames_of(header)]
    _check_grid(folder, headers, frames)
    volume = _volume(folder, frames, notes)
    first = headers[0]
    meta = {"kernel": " ".join(str(first.get("ConvolutionKernel", "")).split()), "thickness_mm": frames[0].thickness}
    if scanner := scanner_of(first):
        meta["scanner"] = scanner
    if notes + volume.notes:
        meta["notes"] = notes + volume.notes
    return Case(name or folder.name, to_hu(folder, volume.array), volume.spacing, label=label,
                patient=patient or str(first.get("PatientID") or ""), origin=volume.origin, meta=meta)


def _one_series(folder: Path, headers: list) -> tuple[list, list[str]]:
    """The headers of the one series of slices, and what was left out beside it."""
    series: dict[str, list] = {}
    left_out: dict[str, list[str]] = {}
    for header in headers:
        reason = why_no_slice(header)
        if reason:
            left_out.setdefault(reason, []).append(Path(header.filename).name)
        else:
            series.setdefault(str(header.get("SeriesInstanceUID", "?")), []).append(header)
    for uid, members in list(series.items()):
        reason = ("called a scout" if is_called_scout(members[0]) else
                  None if is_axial(members[0]) else "not axial, perhaps a scout") if len(members) <= FEW else None
        if reason and (len(series) > 1 or reason.startswith("not")):
            left_out.setdefault(reason, []).extend(Path(h.filename).name for h in members)
            del series[uid]
    notes = [f"{_names(names)} left out: {reason}" for reason, names in left_out.items()]
    if not series:
        if all(reason.startswith("no image") for reason in left_out):
            raise DataError(f"{folder}: its DICOM files hold no pixels; a CT series is wanted")
        raise DataError(f"{folder}: no slice of a CT series in it: {'; '.join(notes)}")
    if len(series) > 1:
        listed = "; ".join(f"{uid} ({len(s)} files, {s[0].get('SeriesDescription', 'no description')})"
                           for uid, s in sorted(series.items()))
        listed = " ".join(listed.split())  # a damaged tag may hold line breaks
        raise DataError(f"{folder}: holds {len(series)} series, one is wanted per folder: {listed}")
    return next(iter(series.values())), notes


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_grid(folder: Path, headers: list, frames: list[Frame]) -> None:
    shapes = {numbers(h, "Rows", 1) + numbers(h, "Columns", 1) for h in headers}
    grids = {tuple(round(v, 4) for v in f.cosines + f.spacing) for f in frames}
    if len(shapes) > 1 or len(grids) > 1:
        raise DataError(f"{folder}: slices differ in size, orientation or pixel spacing; one series with one grid "
                        "is wanted")


def _volume(folder: Path, frames: list[Frame], notes: list[str]) -> Volume:
    """Frames of one grid as a volume in HU, with what was done to it."""
    first = frames[0]
    row, column = np.array(first.cosines[:3]), np.array(first.cosines[3:])
    normal = np.cross(row, column)
    frames = sorted(frames, key=lambda f: float(normal @ f.position))  # a stable sort
    frames, stack = _apart(folder, frames, normal, notes)
    dy, dx = frames[0].spacing
    position = np.array([f.position for f in frames])
    place = position @ normal
    aside = (position - position[0]) @ np.stack([column, row], 1)  # mm along columns (y) and rows (x)
    corner, many = (0, 0), len(frames) > 1
    shifts = aside / [dy, dx]
    if many and np.isfinite(shifts).all() and np.abs(shifts).max() >= 0.5:
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(aside[-1]), place[-1] - place[0])))
        _check_shifts(folder, shifts, stack.shape)
        if degrees > STRAIGHT or np.abs(shifts).max() >= 2:
            stack, corner = in_register(stack, shifts, stack.min())
            notes.append(f"its slices lie aside of each other by up to {np.abs(aside).max():.3g} mm (a tilt of "
                         f"{degrees:.3g} degrees): moved back above each other")
    step = even_step(folder, place) if many else frames[0].thickness or 1.0
    if many and abs(step * (len(place) - 1) - (place[-1] - place[0])) > 0.01 * step:
        gaps, old = np.diff(place), len(stack)
        stack, between = evened(stack, place, step)
        notes.append(f"its {old} slices lie {gaps.min():.3g} to {gaps.max():.3g} mm apart: resampled to {step:.3g} mm, "
                     f"{between} of {len(stack)} are interpolated")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * dx, column * dy, normal * step
    affine[:3, 3] = position[0] + corner[0] * column * dy + corner[1] * row * dx
    affine[:2] *= -1  # DICOM counts towards L and P, NIfTI towards R and A
    return orient(folder, stack.transpose(2, 1, 0), affine)


def _check_shifts(folder: Path, shifts: np.ndarray, shape) -> None:
    if (np.abs(shifts).max(0) > shape[1:]).any():
        raise DataError(f"{folder}: its slices lie further aside of each other than they are wide; one series with one "
                        "grid is wanted")


def _apart(folder: Path, frames: list[Frame], normal: np.ndarray, notes: list[str]) -> tuple[list[Frame], np.ndarray]:
    """Sorted frames without exact copies, and their pixels in HU (n, rows, columns)."""
    kept, stack, copies = [], [], []
    for frame in frames:
        hu = frame.hu()
        if kept and normal @ np.subtract(frame.position, kept[-1].position) < SAME:
            if not np.array_equal(hu, stack[-1]):
                raise DataError(f"{folder}: {kept[-1].name} and {frame.name} lie at the same position and differ; one "
                                "slice at each is wanted, so take one away, or part the acquisitions")
            copies.append(frame.name)
        else:
            kept.append(frame)
            stack.append(hu)
    if copies:
        notes.append(f"{_names(copies)} dropped: exact copies of other slices")
    return kept, np.stack(stack)
