"""DICOM as archives hold it: without preamble, packed, enhanced, padded, with scouts and reports beside the slices."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scan_files import refused, save_dicom, save_nifti, tiny_chest

from covlib.files.dicom import holds_hu, is_dicom, read_dicom_image, read_header
from covlib.files.layouts import find
from covlib.files.scans import read_case
from covlib.files.series import read_dicom_series

HU = tiny_chest((4, 24, 20))[0]
STORED = (HU + 1024).astype(np.uint16)


def series(folder, **tags):
    return [save_dicom(folder / f"{k}.dcm", STORED[k], z=2.5 * k, **tags) for k in range(len(HU))]


def notes(case) -> str:
    return "\n".join(case.meta.get("notes", []))


# ---- without preamble ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_files_without_preamble(tmp_path, syntax, meta):
    for path in series(tmp_path / "s"):
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
        write_dataset(buffer, _body(data))
        head = DicomBytesIO()
        if meta:
            head.is_implicit_VR, head.is_little_endian = False, True
            write_file_meta_info(head, data.file_meta)
        path.write_bytes(head.getvalue() + buffer.getvalue())
        assert path.read_bytes()[128:132] != b"DICM" and is_dicom(path)
    assert find(tmp_path / "s").kind == "dicom"
    assert np.array_equal(read_dicom_series(tmp_path / "s").hu, HU)


def _body(data) -> Dataset:
    made = Dataset()
    made.update(data)
    return made


def test_what_is_no_dicom(tmp_path):
    for name, content in (("a.txt", b"patient 1\n" * 40), ("b.csv", b"\x08\x00,1,2\n" * 40), ("c.nii", bytes(400)),
                          ("d", b""), ("e", b"\x08\x00\x05\x00CS"), ("f.png", b"\x89PNG\r\n\x1a\n" + bytes(200))):
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name), name
    assert not is_dicom(save_nifti(tmp_path / "g.nii", HU)) and not is_dicom(tmp_path)


# ---- packed pixels ---------------------------------------------------------------------------------------------------


def packed(path, syntax) -> None:
    """The file with its pixels packed."""
    import imagecodecs

    data = pydicom.dcmread(path)
    if syntax == RLELossless:
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(path)
        return
    array = data.pixel_array
    grey = array.view("u2") if array.dtype.itemsize == 2 else array
    encode = {JPEGLSLossless: imagecodecs.jpegls_encode, JPEGBaseline8Bit: imagecodecs.jpeg8_encode,
              JPEG2000Lossless: lambda a: imagecodecs.jpeg2k_encode(array, reversible=True, level=0),
              JPEGLosslessSV1: lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1)}[syntax]
    data.PixelData = pydicom.encaps.encapsulate([encode(np.ascontiguousarray(grey))])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1])
def test_packed_series(tmp_path, syntax, signed):
    for k, plane in enumerate(HU if signed else STORED):
        path = save_dicom(tmp_path / "s" / f"{k}", plane, z=2.5 * k, intercept=0 if signed else -1024)
        packed(path, syntax)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_dicom_series(tmp_path / "s").hu, HU)


def test_a_packed_film(tmp_path):
    grey = np.linspace(0, 255, 24 * 20).reshape(24, 20).astype(np.uint8)
    path = save_dicom(tmp_path / "f", grey, intercept=0, Modality="DX", BitsAllocated=8, BitsStored=8, HighBit=7)
    packed(path, JPEGBaseline8Bit)
    assert np.abs(read_dicom_image(path) - grey / 255).max() < 0.05


def test_a_packing_without_decoder_is_named(tmp_path):
    path = save_dicom(tmp_path / "s" / "0", STORED[0])
    packed(path, JPEG2000Lossless)
    content = path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.99")  # MPEG video
    content = content.replace(b"1.2.840.10008.1.2.4.99", b"1.2.840.10008.1.2.4.94")  # JPIP: pixels lie elsewhere
    path.write_bytes(content)
    line = refused(lambda: read_dicom_series(tmp_path / "s"), "s/0", "cannot be decoded")
    assert not line.rstrip(")").endswith(":")  # whole, not cut before its list


# ---- enhanced files --------------------------------------------------------------------------------------------------


def enhanced(path, planes, places, *, shared=True, **tags):
    """One file with all slices, and their places in functional groups."""
    save_dicom(path, planes[0], **tags)
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    group = lambda name, **values: (name, Sequence([_dataset(values)]))
    common = [group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
              group("PixelMeasuresSequence", PixelSpacing=[0.5, 0.7], SliceThickness=2.5),
              group("PixelValueTransformationSequence", RescaleIntercept=-1024, RescaleSlope=1)]
    frames = []
    for z in places:
        frame = dict([group("PlanePositionSequence", ImagePositionPatient=[-10, -20, z]), *([] if shared else common)])
        frames.append(_dataset(frame))
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(data, tag)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.SharedFunctionalGroupsSequence = Sequence([_dataset(dict(common) if shared else {})])
    data.NumberOfFrames = len(planes)
    data.PixelData = np.ascontiguousarray(planes).tobytes()
    data.save_as(path)
    return path


def _dataset(values: dict) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_an_enhanced_file_is_a_series(tmp_path, shared, order):
    enhanced(tmp_path / "p" / "e.dcm", STORED[list(order)], [2.5 * k for k in order], shared=shared)
    case = read_dicom_series(tmp_path / "p")
    assert np.array_equal(case.hu, HU) and case.spacing == pytest.approx((2.5, 0.5, 0.7))


def test_many_frames_without_places_are_named(tmp_path):
    path = enhanced(tmp_path / "p" / "e.dcm", STORED, [0, 2.5, 5, 7.5])
    data = pydicom.dcmread(path)
    data.PerFrameFunctionalGroupsSequence = data.PerFrameFunctionalGroupsSequence[:2]
    data.save_as(path)
    refused(lambda: read_dicom_series(tmp_path / "p"), "e.dcm", "4 frames without a position each")
    del data.PerFrameFunctionalGroupsSequence
    data.NumberOfFrames = 2_000_000_000
    data.save_as(path)
    refused(lambda: read_dicom_image(path), "e.dcm", "at most")


# ---- scouts, reports, dose sheets ------------------------------------------------------------------------------------

BESIDE = {"not axial, perhaps a scout": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
          "a scout (localizer)": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "x"},
          "called a scout": {"SeriesDescription": "Topogram 0.6 T20s"},
          "a secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImagePositionPatient": None}}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_lies_beside_a_series_is_left_out_by_name(tmp_path, kind):
    series(tmp_path / "s")
    tags = {k: v for k, v in BESIDE[kind].items() if v is not None}
    path = save_dicom(tmp_path / "s" / "odd.dcm", STORED[0], z=99, series="9.9", **tags)
    if None in BESIDE[kind].values():
        data = pydicom.dcmread(path)
        del data.ImagePositionPatient
        data.save_as(path)
    case = read_dicom_series(tmp_path / "s")
    assert np.array_equal(case.hu, HU) and "odd.dcm left out: " + kind in notes(case)


def test_a_scout_alone_is_no_scan(tmp_path):
    save_dicom(tmp_path / "s" / "a", STORED[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    refused(lambda: read_dicom_series(tmp_path / "s"), "no slice of a CT series", "a left out: a scout")
    data = pydicom.dcmread(tmp_path / "s" / "a")
    del data.PixelData
    data.Modality = "SR"
    data.save_as(tmp_path / "s" / "a")
    refused(lambda: read_dicom_series(tmp_path / "s"), "hold no pixels")
    for k, turn in enumerate(([1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])):
        save_dicom(tmp_path / str(k) / "a", STORED[0], ImageOrientationPatient=turn)
        refused(lambda k=k: read_dicom_series(tmp_path / str(k)), "a left out: not axial")


# ---- padding and inversion -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("value", "limit", "signed"), [(0, None, False), (4095, None, False), (0, 5, False),
                                                        (-2000, None, True), (63536, None, True)])
def test_the_collimated_border_of_a_film_is_black(tmp_path, inverted, value, limit, signed):
    inside = np.linspace(300, 2300, 200).reshape(20, 10).astype(np.int16 if signed else np.uint16)
    framed = np.full((30, 20), value - 65536 if signed and value > 32767 else value, inside.dtype)
    framed[5:25, 5:15] = inside
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    more = {"PixelPaddingRangeLimit": limit} if limit is not None else {}
    plain = read_dicom_image(save_dicom(tmp_path / "a", inside, intercept=0, Modality="DX",
                                        PhotometricInterpretation=kind))
    path = save_dicom(tmp_path / "b", framed, intercept=0, Modality="DX", PhotometricInterpretation=kind)
    data = pydicom.dcmread(path)
    data.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    for tag, v in more.items():
        data.add_new(tag, "US", v)
    data.save_as(path)
    read = read_dicom_image(path)
    assert np.array_equal(read[5:25, 5:15], plain)
    read[5:25, 5:15] = 0
    assert read.max() == 0 and plain.max() == 1


def test_padding_of_a_value_that_patients_have(tmp_path):
    stored = np.full((12, 12), 500, np.int16)
    stored[0] = stored[6, 6] = 0  # padding at the edge, water inside
    stored[5, 2:9] = -900
    save_dicom(tmp_path / "s" / "1", stored, intercept=0, PixelPaddingValue=0)
    hu = read_dicom_series(tmp_path / "s").hu[0]
    assert (hu[0] == -1024).all() and hu[6, 6] == 0


def test_ct_slices_among_films_are_shown_in_the_window(tmp_path):
    path = save_dicom(tmp_path / "a", STORED[1])
    assert holds_hu(read_header(path))
    assert np.allclose(read_dicom_image(path), np.clip((HU[1] + 1350) / 1500, 0, 1), atol=1e-6)
    assert np.allclose(read_dicom_image(path, (40, 400)), np.clip((HU[1] + 160) / 400, 0, 1), atol=1e-6)
    for tags in ({"Modality": "CR"}, {"RescaleIntercept": 0}, {"ImageType": ["A", "B", "LOCALIZER"]}):
        assert not holds_hu(read_header(save_dicom(tmp_path / "b", STORED[1], **tags)))


def test_a_folder_of_one_case_in_capitals(tmp_path):
    save_nifti(tmp_path / "c" / "image.nii.gz", HU)
    (tmp_path / "c" / "image.nii.gz").rename(tmp_path / "c" / "IMAGE.NII.GZ")
    assert np.array_equal(read_case(tmp_path / "c").hu, HU)
