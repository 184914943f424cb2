"""What DICOM files are, from a few header fields: slices of a series, films, or what is no image of a chest."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from covlib.errors import DataError, first_line
from covlib.files.dicom import FEW, is_called_scout

TAGS = ("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber", "PatientID", "Rows",
        "ImagePositionPatient", "SeriesDescription", "SharedFunctionalGroupsSequence")
FILMS = ("CR", "DX", "DR", "RG", "XA", "RF", "OT", "SC", "XC")
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture, also in its multi-frame kinds (.1 to .4)


@dataclass(frozen=True)
class SeriesFiles:
    """Files that belong together: one CT series, or films (``film``); ``why``: the reason for leaving them out, or "".

    Attributes:
        uid: of the series, or its number where that tells the series of the folder apart; patient: PatientID.
        one_of_several: other series lie in the same folder.
    """

    files: tuple[Path, ...]
    uid: str = ""
    patient: str = ""
    film: bool = False
    why: str = ""
    one_of_several: bool = False


def series_of(paths: list[Path]) -> list[SeriesFiles]:
    """The series in one folder. Where the first and the last file are of one series, or both are films, all are taken
    to be; only else every header is read."""
    ends = {p: _header(p) for p in (paths[0], paths[-1])}
    if len({_uid(h) for h in ends.values()}) == 1 or all(_is_film(h) for h in ends.values()):
        return [_described(tuple(paths), ends[paths[0]])]
    groups: dict[str, list[Path]] = defaultdict(list)
    headers = {p: ends.get(p) or _header(p) for p in paths}
    for path, header in headers.items():
        groups["films" if _is_film(header) else _uid(header)].append(path)
    found = [_described(tuple(files), headers[files[0]]) for files in groups.values()]
    kept = [one for one in found if not one.why and not one.film]
    if len(kept) < 2:
        return [SeriesFiles(o.files, o.uid, o.patient, o.film, o.why, one_of_several=len(found) > 1) if o in kept else o
                for o in found]
    names = [(one.patient, _text(headers[one.files[0]], "SeriesNumber")) for one in kept]
    known = {one.files: f"series{n[1]}" if n[1] and names.count(n) == 1 else one.uid for one, n in zip(kept, names)}
    return [SeriesFiles(o.files, known.get(o.files, o.uid), o.patient, o.film, o.why, o in kept) for o in found]


def _header(path: Path):
    import pydicom

    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
    except Exception as error:  # pydicom raises many kinds
        raise DataError(f"{path}: cannot be read as DICOM ({first_line(error)})") from error


def _text(header, tag: str) -> str:
    try:
        value = header.get(tag)
    except Exception:  # a damaged value: the reader of the pixels says what is wrong with it
        return ""
    return "" if value is None else str(value)


def _uid(header) -> str:
    return _text(header, "SeriesInstanceUID")


def _is_film(header) -> bool:
    placed = _text(header, "ImagePositionPatient") or _text(header, "SharedFunctionalGroupsSequence")
    kind = _text(header, "SOPClassUID")
    flat = _text(header, "Modality") in FILMS or kind == SECONDARY or kind.startswith(f"{SECONDARY}.")
    return bool(_text(header, "Rows")) and not placed and flat


def _described(files: tuple[Path, ...], header) -> SeriesFiles:
    modality, why = _text(header, "Modality"), ""
    if not _text(header, "Rows"):
        why = f"DICOM without an image ({modality or 'no modality'}: a report or a directory)"
    elif "LOCALIZER" in _text(header, "ImageType").upper():
        why = "a scout (localizer)"
    elif len(files) <= FEW and _text(header, "SeriesDescription") and is_called_scout(header):
        why = "called a scout"
    elif modality in ("SEG", "RTSTRUCT", "RTDOSE", "PR", "KO", "MR", "PT", "NM", "US", "MG"):
        why = f"DICOM of modality {modality}; CT or X-ray is wanted"
    return SeriesFiles(files, _uid(header), _text(header, "PatientID").strip(), _is_film(header), why)
