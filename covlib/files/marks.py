"""How a file says of itself that it is synthetic: PNG text chunks, NIfTI header fields, DICOM attributes."""

NOTICE = "SYNTHETIC image made by a neural network. It shows no patient. Not for diagnosis."
WORD = "SYNTHETIC"  # NIfTI intent_name holds 15 letters


def png_text(**more: str):
    """A ``PngInfo`` with "Synthetic: yes", the notice and more key words; for ``Image.save(pnginfo=...)``."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in {"Synthetic": "yes", "Comment": NOTICE, **more}.items():
        info.add_itxt(key, str(text)) if not str(text).isascii() else info.add_text(key, str(text))
    return info


def mark_nifti(image, made_by: str = "covlib") -> None:
    """Set ``descrip`` (79 letters) and ``intent_name`` of a nibabel image."""
    image.header["descrip"] = f"{WORD}, no patient, not for diagnosis; {made_by}".encode("ascii", "replace")[:79]
    image.header["intent_name"] = WORD.encode()


def is_synthetic(path) -> bool:
    """Whether a PNG, NIfTI or DICOM file says that it is synthetic."""
    name = str(path).lower()
    if name.endswith((".nii", ".nii.gz")):
        import nibabel

        return nibabel.load(path).header["intent_name"].item().decode("latin-1") == WORD
    if name.endswith(".dcm"):
        import pydicom

        return pydicom.dcmread(path, stop_before_pixels=True).get("SyntheticData") == "YES"
    from PIL import Image

    with Image.open(path) as picture:
        return picture.info.get("Synthetic") == "yes"
