"""NIfTI files: always (z, y, x) in millimetres, whatever their axis order, units, ending and compression."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from covlib.errors import DataError, first_line
from covlib.files.grids import Volume, orient

MAX_VOXELS = 2**29  # 537 million: a 512 x 512 x 2048 scan; more is taken for a damaged header
GZIP = b"\x1f\x8b"
UNITS = {1: ("metre", 1000.0), 3: ("micron", 0.001)}  # NIfTI's codes for what is not a millimetre
PLAUSIBLE = (0.05, 30.0)  # mm a voxel side of a chest scan may have


def read_nifti(path) -> Volume:
    """Read a 3-D NIfTI file (or one slice, or 4-D with one time point) into (z, y, x) order.

    Whether it is packed is told by its first bytes, not by its name. Units are those of the header; millimetres where
    it names none, or where only millimetres make sense (a note says so).

    Raises:
        DataError: not a NIfTI file, truncated, not 3-D, absurd dimensions (found before anything is allocated), an
            affine that is no orientation, or NaN or infinite voxels.
    """
    path = Path(path)
    image, packed = _open(path)
    shape = _checked_shape(path, image, packed)
    try:
        data = image.dataobj.get_unscaled() if _unscaled(image) else np.asarray(image.dataobj, np.float32)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:  # the fourth: voxels begin at 2^63
        raise DataError(f"{path}: truncated or damaged ({first_line(error)}); get the file again") from error
    data = np.asarray(data).reshape(shape)
    if data.dtype.kind not in "iufb":
        raise DataError(f"{path}: voxels are of type {data.dtype}; one number per voxel is wanted")
    if data.dtype.kind == "f":
        bad = data.size - np.count_nonzero(np.isfinite(data))
        if bad:
            raise DataError(f"{path}: {bad} of {data.size} voxels are NaN or infinite; every voxel must be a finite "
                            "number")
    text = image.header["descrip"].item().decode("latin-1") if "descrip" in image.header else ""
    affine, notes = _in_millimetres(image)
    notes += _at_odds(image)
    volume = orient(path, data, affine, text)
    volume.notes[:0] = notes
    return volume


def _open(path: Path):
    """nibabel's image, no voxel read yet, and whether the file is packed."""
    import nibabel
    from nibabel.fileholders import FileHolder
    from nibabel.imageglobals import LoggingOutputSuppressor

    try:
        with open(path, "rb") as file:
            start = file.read(4)
        packed = start[:2] == GZIP
        with LoggingOutputSuppressor():  # what nibabel mends in a header is no news to the user
            if path.name.endswith(".nii.gz" if packed else ".nii"):
                return nibabel.load(path), packed
            # nibabel goes by the name, and the name says something else (SCAN.NII.GZ, a packed scan.nii)
            stream = gzip.open(path) if packed else open(path, "rb")
            size = int.from_bytes(stream.read(4), "little")
            stream.seek(0)
            kind = nibabel.Nifti2Image if size in (540, 0x1C020000) else nibabel.Nifti1Image
            return kind.from_file_map({key: FileHolder(fileobj=stream) for key in ("header", "image")}), packed
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; a .nii or .nii.gz file is wanted") from None
    except PermissionError:
        raise DataError(f"{path}: no permission to read it") from None
    except Exception as error:  # nibabel raises a dozen kinds; all mean the same to the user
        raise DataError(f"{path}: cannot be read as NIfTI ({first_line(error)}); a .nii or .nii.gz file is "
                        "wanted") from error


def _unscaled(image) -> bool:
    proxy = image.dataobj
    return getattr(proxy, "slope", 1) == 1 and getattr(proxy, "inter", 0) == 0


def _in_millimetres(image) -> tuple[np.ndarray, list[str]]:
    """The affine in mm, and a note where the header's unit is another one."""
    affine = np.array(image.affine, np.float64)  # a copy, since it may be scaled
    code = int(image.header["xyzt_units"]) & 7 if "xyzt_units" in image.header else 0
    if code not in UNITS or not np.isfinite(affine).all():
        return affine, []
    name, factor = UNITS[code]
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(0))
    fits = lambda s: bool(PLAUSIBLE[0] <= s.min() and s.max() <= PLAUSIBLE[1])
    if fits(sizes) and not fits(sizes * factor):
        return affine, [f"its header says {name}, its voxel sizes are those of millimetres: taken for millimetres"]
    affine[:3] *= factor
    return affine, [f"its header counts in {name}s: turned into millimetres"]


def _at_odds(image) -> list[str]:
    """A note where the header's two accounts of the voxel size differ."""
    sizes = np.sqrt((np.asarray(image.affine, np.float64)[:3, :3] ** 2).sum(0))
    zooms = np.array((*image.header.get_zooms(), 1, 1, 1)[:3], np.float64)
    if not (np.isfinite(sizes).all() and np.isfinite(zooms).all()) or np.allclose(sizes, zooms, rtol=0.01):
        return []
    words = [" x ".join(f"{v:.4g}" for v in values) for values in (zooms, sizes)]
    return [f"its header gives voxels of {words[0]} and an affine of {words[1]}: the affine counts"]


def _checked_shape(path: Path, image, packed: bool) -> tuple[int, int, int]:
    """The 3-D shape that the header claims, checked against the file's size before any voxel is read."""
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"{path}: has shape {tuple(image.shape)}; a 3-D volume is wanted")
    voxels = int(np.prod(shape, dtype=object))
    if voxels > MAX_VOXELS:
        raise DataError(f"{path}: the header claims {'x'.join(map(str, shape))} voxels; at most {MAX_VOXELS} are read")
    claimed, on_disk = voxels * image.get_data_dtype().itemsize, path.stat().st_size
    # deflate packs at most about 1032 to 1
    if claimed > on_disk * (1100 if packed else 1):
        raise DataError(f"{path}: truncated: the header claims {claimed} bytes of voxels, the file has {on_disk} bytes")
    return shape
