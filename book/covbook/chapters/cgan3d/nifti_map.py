"""A NIfTI file that is written plane by plane: header first, voxels through a memory map, so that memory stays small::

    with nifti_map("volume.nii", (80, 512, 512), (4.0, 0.7, 0.7)) as voxels:     # int16 (Z, Y, X), HU
        voxels[0:32] = ...                                                         # any planes, in any order
    write_volume(model, "patient.nii.gz", (80, 512, 512), seed=3)                  # a NoiseModel's volume, likewise

``covlib.files.scans.read_nifti`` and ``read_case`` read it back with the same axes, spacing and origin.
"""

import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from covlib.atomic import beside
from covlib.data.hu import AIR
from covlib.errors import DataError
from covlib.files.marks import WORD
from covlib.files.scans import IMAGE_TEXT, NIFTI_ENDINGS, affine_of
from covlib.papers.cgan3d.noise import NoiseModel, plan
from covlib.seeding import derive

OFFSET = 352  # bytes before the voxels of a NIfTI-1 file without extensions


@contextmanager
def nifti_map(path, shape: tuple[int, int, int], spacing) -> Iterator[np.memmap]:
    """A new NIfTI file of int16 HU as a memory map (Z, Y, X), air at first; it appears whole when the block ends well.
    Its header says that it is synthetic, and puts the volume's middle at 0.

    Args:
        path: ending in .nii, or in .nii.gz: then it is packed at the end, through a small buffer.
        spacing: mm between voxel centres along (z, y, x).

    Raises:
        DataError: another ending, a shape or spacing that is none, or a file that cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        raise DataError(f"{path}: its name must end in .nii or .nii.gz")
    if len(shape) != 3 or min(shape) < 1 or len(spacing) != 3 or not min(spacing) > 0:
        raise DataError(f"{path}: shape {tuple(shape)} and spacing {tuple(spacing)}; three sides of at least one voxel "
                        "and three distances above 0 are wanted")
    origin = tuple(sign * s * (n - 1) / 2 for sign, s, n in zip((-1, 1, 1), spacing, shape))
    partial = beside(path)
    packed = partial.with_name(partial.name + ".gz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = _begin(partial, shape, affine_of(spacing, origin))
        yield voxels
        voxels.flush()
        del voxels
        if path.suffix == ".gz":
            with open(partial, "rb") as plain, gzip.GzipFile(packed, "wb", compresslevel=4, mtime=0) as file:
                shutil.copyfileobj(plain, file, 1 << 20)
            os.replace(packed, path)
        else:
            os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); give a file in a folder with room for "
                        f"{2 * int(np.prod(shape)) >> 20} MB") from error
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)
            packed.unlink(missing_ok=True)


def _begin(path: Path, shape, affine: np.ndarray) -> np.memmap:
    """The header on disk, and a map of the voxels behind it."""
    import nibabel

    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape[::-1])
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header["descrip"], header["intent_name"] = IMAGE_TEXT, WORD
    header["magic"], header["vox_offset"] = b"n+1", OFFSET
    header.set_slope_inter(1, 0)
    with open(path, "wb") as file:
        header.write_to(file)
        file.write(bytes(OFFSET - file.tell()))
    voxels = np.memmap(path, "<i2", "r+", OFFSET, shape)  # x runs fastest in the file: (Z, Y, X) in C order
    for plane in voxels:
        plane[:] = AIR
    return voxels


def write_volume(model: NoiseModel, path, size, *, seed: int = 0, overlap: int | None = None, report=None) -> Path:
    """One volume of ``size`` (Z, Y, X) from noise, written to a NIfTI file, int16 HU, by way of memory maps.

    Raises:
        ConfigError: a size that is none. DataError: a file that cannot be written.
    """
    plan(model.coarse.config.coarse, size)
    low = model.coarse_volumes(1, seed)[0]
    with nifti_map(path, tuple(size), model.spacing(size)) as voxels:
        model.grow(low, voxels, seed=derive(seed, "volume", 0), overlap=overlap, report=report)
    return Path(path)
