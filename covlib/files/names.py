"""Folders and file names."""

from pathlib import Path

from covlib.errors import DataError

NIFTI_ENDINGS = (".nii", ".nii.gz")


def is_nifti(path: Path) -> bool:
    """By name: the format has no signature that survives compression."""
    return path.name.lower().endswith(NIFTI_ENDINGS)


def stem(path: Path) -> str:
    """File name without its ending (".nii.gz" is one ending)."""
    name = path.name
    for ending in (".nii.gz", path.suffix):
        if ending and name.lower().endswith(ending.lower()):
            return name[: -len(ending)]
    return name


def find_part(folder: Path, part: str) -> Path | None:
    """``folder/part.nii.gz`` or ``.nii``, whichever is there, in capitals or not."""
    exact = next((p for p in (folder / f"{part}{e}" for e in reversed(NIFTI_ENDINGS)) if p.is_file()), None)
    if exact is not None or not folder.is_dir():
        return exact
    return next((p for p in list_folder(folder) if is_nifti(p) and stem(p).lower() == part and p.is_file()), None)


def list_folder(folder) -> list[Path]:
    """Entries of a folder in name order, hidden ones left out; DataError where it cannot be listed."""
    folder = Path(folder)
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise DataError(f"{folder}: is a file; a folder is wanted") from None
    except PermissionError:
        raise DataError(f"{folder}: no permission to read it; grant read access (chmod u+rx) or give another "
                        "folder") from None
