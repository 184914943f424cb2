"""Readers under damaged and hostile input: only covlib's own errors come out, in one line.

Each test makes FUZZ inputs: few here, at least 10,000 in ``make soak`` (COVLIB_FUZZ=10000), where they differ from run
to run and a failure prints how to repeat it.
"""

import copy
import gzip
import io
import json
import math
import os
import resource
import struct
import warnings
import zlib
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import planted
import pydicom
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from covbook import project, report, studies
from covbook.datasets import sources
from covbook.runner.chapters import check_parameters, parse_value, read_notebook
from covlib.config import PROFILES
from covlib.errors import CovlibError
from covlib.files import greys, images, labels, layouts, scans

FUZZ = int(os.environ.get("COVLIB_FUZZ", "80"))
SOAK = FUZZ > 1000
MEMORY = 4e9  # bytes that a fuzzing process may ever have held; libraries alone take about one
few = settings(max_examples=FUZZ, derandomize=not SOAK, print_blob=True)

pytestmark = pytest.mark.filterwarnings("ignore")


def only_our_errors(call) -> None:
    """Run ``call``; whatever it is given, it returns or raises a CovlibError of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except CovlibError as error:
        assert str(error) and "\n" not in str(error), error


@pytest.fixture(autouse=True, scope="module")
def memory_is_bounded():
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MEMORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def damage(size: int, hot: int):
    """Changes of a file of ``size`` bytes: bytes set (mostly in the first ``hot``), a cut, something appended."""
    place = st.one_of(st.integers(0, hot - 1), st.integers(0, size - 1))
    return st.tuples(st.lists(st.tuples(place, st.binary(min_size=1, max_size=8)), max_size=6),
                     st.one_of(st.none(), st.integers(0, size)), st.binary(max_size=20))


def damaged(content: bytes, change) -> bytes:
    edits, cut, more = change
    made = bytearray(content)
    for place, piece in edits:
        made[place:place + len(piece)] = piece
    return bytes(made[:len(content)][:cut]) + more


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=8))
TREES = lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3))


# ---- images and scans ------------------------------------------------------------------------------------------------


def _nifti() -> bytes:
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 1000
    return nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0])).to_bytes()


NIFTI = _nifti()
NUMBERS = st.one_of(st.integers(-(2**15), 2**15 - 1).map(lambda n: struct.pack("<h", n)),
                    st.floats(width=32).map(lambda x: struct.pack("<f", x)))


@few
@given(change=damage(len(NIFTI), 348), fields=st.lists(st.tuples(st.integers(0, 343), NUMBERS), max_size=4),
       packed=st.sampled_from(["no", "gzip", "damaged gzip"]))
def test_nifti(folder, change, fields, packed):
    content = bytearray(damaged(NIFTI, change))
    for place, piece in fields:  # dimensions, types, offsets and affines, as numbers of their own kind
        content[place:place + len(piece)] = piece
    content = bytes(content)
    if packed != "no":
        content = gzip.compress(content, 1)
        if packed == "damaged gzip":
            content = damaged(content, change)
    path = folder / ("image.nii" if packed == "no" else "image.nii.gz")
    path.write_bytes(content)
    only_our_errors(lambda: scans.read_case(path))
    only_our_errors(lambda: scans.read_volume_mask(path, scans.Volume(np.zeros((6, 5, 4)), (2, 1, 1), (0, 0, 0),
                                                                      np.eye(4), "", 0.0)))


def _dicom() -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["covlib"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID, made.Modality, made.PatientID = generate_uid(entropy_srcs=["series"]), "CT", "p"
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 16, 16, 15
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 1
    made.RescaleSlope, made.RescaleIntercept, made.PixelSpacing = "1", "0", ["1", "1"]
    made.ImageOrientationPatient, made.ImagePositionPatient = ["1", "0", "0", "0", "1", "0"], ["0", "0", "0"]
    made.SliceThickness, made.InstanceNumber = "2", "1"
    made.PixelData = (np.arange(64, dtype=np.int16) - 1000).tobytes()
    return made


def _dicom_bytes(dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


DICOM = _dicom_bytes(_dicom())


def _packed(syntax, encode) -> bytes:
    made = _dicom()
    stored = np.frombuffer(made.PixelData, np.uint16).reshape(8, 8)
    made.PixelData = pydicom.encaps.encapsulate([encode(stored.copy())])
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = syntax
    return _dicom_bytes(made)


def _enhanced() -> bytes:
    made, frames = _dicom(), []
    for z in range(3):
        frame, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [0, 0, 2 * z]
        frame.PlanePositionSequence = pydicom.Sequence([place])
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence, made.NumberOfFrames = pydicom.Sequence(frames), 3
    made.PixelData = made.PixelData * 3
    return _dicom_bytes(made)


DICOMS = [DICOM, DICOM[132:], _enhanced(), _packed(pydicom.uid.JPEGLSLossless, imagecodecs.jpegls_encode),
          _packed(pydicom.uid.JPEG2000Lossless, lambda a: imagecodecs.jpeg2k_encode(a, reversible=True, level=0)),
          _packed(pydicom.uid.JPEGLosslessSV1, lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1))]
TAGS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PhotometricInterpretation",
        "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImageOrientationPatient",
        "ImagePositionPatient", "SliceThickness", "InstanceNumber", "SeriesInstanceUID", "Modality", "PixelData")
VALUES = st.one_of(st.integers(0, 65535), st.text(max_size=6), st.floats().map(str), st.binary(max_size=8), st.none(),
                   st.lists(st.floats(allow_nan=True).map(lambda x: str(x)[:16]), max_size=7))


@few
@given(tags=st.dictionaries(st.sampled_from(TAGS), VALUES, max_size=4), drop=st.sets(st.sampled_from(TAGS), max_size=2),
       change=st.one_of(st.none(), damage(len(DICOM), len(DICOM))), twice=st.booleans())
def test_dicom(folder, tags, drop, change, twice):
    made = _dicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in drop:
                delattr(made, name)
            for name, value in tags.items():
                setattr(made, name, value)
            content = _dicom_bytes(made)
    except Exception:  # pydicom refuses to write it: damage the plain file instead
        content = DICOM
    series = folder / "series"
    series.mkdir(exist_ok=True)
    (series / "1.dcm").write_bytes(content if change is None else damaged(content, change))
    (series / "2.dcm").unlink(missing_ok=True)
    if twice:
        (series / "2.dcm").write_bytes(DICOM)
    only_our_errors(lambda: scans.read_dicom_series(series))
    only_our_errors(lambda: scans.read_dicom_image(series / "1.dcm"))


@few
@given(which=st.integers(0, len(DICOMS) - 1), change=damage(min(map(len, DICOMS)), 400), tail=st.booleans())
def test_dicom_of_every_kind(folder, which, change, tail):
    """Damage near the beginning, or (``tail``) near the end, where packed pixels are."""
    content = DICOMS[which]
    made = damaged(content[::-1], change)[::-1] if tail else damaged(content, change)
    series = folder / "kinds"
    series.mkdir(exist_ok=True)
    (series / "1").write_bytes(made)
    only_our_errors(lambda: scans.read_dicom_series(series))
    only_our_errors(lambda: scans.read_dicom_image(series / "1"))
    only_our_errors(lambda: images.read_grey(series / "1"))


def _png(mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


PNGS = [_png(mode) for mode in ("L", "RGB", "RGBA", "P", "1", "I;16")]


def _with_checksums(content: bytes) -> bytes:
    """The PNG's chunks with right checksums, so that damage gets past the first check."""
    made, at = bytearray(content[:8]), 8
    while at + 8 <= len(content):
        size = int.from_bytes(content[at:at + 4])
        body = content[at + 4:at + 8 + size]
        made += content[at:at + 4] + body + zlib.crc32(body).to_bytes(4)
        at += 12 + size
    return bytes(made)


@few
@given(which=st.integers(0, len(PNGS) - 1), change=damage(70, 40), mend=st.booleans())
def test_png(which, change, mend):
    content = damaged(PNGS[which], change)
    content = _with_checksums(content) if mend else content
    only_our_errors(lambda: images.read_image("x.png", content))
    only_our_errors(lambda: images.read_mask("x.png", content=content))


def _picture(kind: str, mode: str, **how) -> bytes:
    buffer = io.BytesIO()
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert(mode)
    grey.save(buffer, kind, **how)
    return buffer.getvalue()


TURNED = Image.Exif()
TURNED[274] = 6
PICTURES = [_picture("TIFF", "L"), _picture("TIFF", "I;16"), _picture("TIFF", "F"), _picture("WEBP", "RGB"),
            _picture("JPEG", "L", exif=TURNED), _picture("GIF", "L"), _picture("BMP", "L"), _picture("JPEG2000", "L"),
            _picture("PPM", "L"), _picture("TIFF", "L", save_all=True, append_images=[Image.new("L", (8, 8))] * 3)]


@few
@given(which=st.integers(0, len(PICTURES) - 1), change=damage(60, 60), tail=st.booleans(),
       page=st.sampled_from([None, 0, 2]))
def test_pictures_of_every_format(folder, which, change, tail, page):
    content = PICTURES[which]
    made = damaged(content[::-1], change)[::-1] if tail else damaged(content, change)
    path = folder / "picture.tif"
    path.write_bytes(made)
    only_our_errors(lambda: images.read_image(path, page=page))
    only_our_errors(lambda: images.read_mask(path, page=page, notes=[]))
    only_our_errors(lambda: greys.look(path, page))
    only_our_errors(lambda: images.count_pages(path))


# ---- folders ---------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(["class", "patient", "series", "any", "masks=infection", "p1=skip", "zebra=covid", "images",
                          "nifti", "dicom", "/", ",", "=", "::", "covid=", "0=train"])


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Path:
    return planted.stock(tmp_path_factory.mktemp("stock"))


@few
@given(places=planted.PLACES, change=st.one_of(st.none(), st.tuples(st.integers(0, 8), damage(400, 100))),
       table=st.one_of(st.none(), st.text(alphabet='file,label;patient\t"\n\r01abcp.\ufeff', max_size=60),
                       st.binary(max_size=30)),
       document=st.one_of(st.none(), st.fixed_dictionaries({}, optional={
           name: st.recursive(LEAVES, TREES, max_leaves=4) for name in ("labels", "channel_names", "modality")})),
       layout=st.lists(PIECES, max_size=3).map("".join))
def test_folders(folder, stock, places, change, table, document, layout):
    """Whatever lies in a folder, it is read or refused in one line, and the account adds up."""
    root = planted.planted_from(stock, folder / "any", places)
    if change is not None:
        files = sorted(p for p in root.rglob("*") if p.is_file())
        spoilt = files[change[0] % len(files)]
        spoilt.write_bytes(damaged(spoilt.read_bytes(), change[1]))
    if table is not None:
        (root / "metadata.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    if document is not None:
        (root / "dataset.json").write_text(json.dumps(document))
    data = f"{root}::{layout}" if layout else str(root)

    def read():
        found = layouts.find(data)
        used, left = layouts.account(found, data)
        assert sorted([*used, *left]) == sorted(p for p in root.rglob("*") if p.is_file())
        if found.volumes:
            list(layouts.load_cases(data))
        layouts.load_slices(data, size=8)

    only_our_errors(read)


@few
@given(text=st.text(max_size=40))
def test_labels(text):
    assert labels.canonical(text) in labels.KNOWN or labels.canonical(text) == text.lower()


# ---- documents -------------------------------------------------------------------------------------------------------

JSONISH = st.recursive(LEAVES, TREES, max_leaves=6)


def places(document, at=()) -> list[tuple]:
    """Paths to everything in a document."""
    inner = (document.items() if isinstance(document, dict)
             else enumerate(document) if isinstance(document, list) else ())
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


def replaced(document, place: tuple, value, drop: bool):
    """A copy with what is at ``place`` replaced by ``value``, or taken out."""
    if not place:
        return value
    document = copy.deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    if drop:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return document


def small(document, keep: int = 2):
    """The document with its long lists and tables cut: faults in the first entries are faults in all."""
    if isinstance(document, dict):
        return {key: small(value, keep) for key, value in document.items()}
    return [small(value, keep) for value in document[:keep]] if isinstance(document, list) else document


REGISTRY = yaml.safe_load((project.DATA / "sources.yaml").read_text(encoding="utf-8"))
REGISTRY = {**REGISTRY, "sources": small(dict(list(REGISTRY["sources"].items())[:2]))}
REPORTED = small(yaml.safe_load((project.REPORTED / "dcgan.yaml").read_text(encoding="utf-8")))
METRICS = small(json.loads(sorted(project.RESULTS.glob("03_dcgan*.json"))[0].read_text(encoding="utf-8")))
STUDY = small(json.loads(sorted(studies.FOLDER.glob("*.json"))[0].read_text(encoding="utf-8")))
NOTEBOOK = small(json.loads((project.ROOT / "book" / "03_dcgan.ipynb").read_text(encoding="utf-8")))


def _registry(path: Path) -> None:
    sources._registry.cache_clear()
    for source in sources.registry(path).values():
        assert source.name and (source.size is None or source.size >= 0)


def _judge(path: Path) -> None:
    report.compare(report.load_reported(str(path)), METRICS)


READERS = {
    "registry": (REGISTRY, "yaml", _registry),
    "reported": (REPORTED, "yaml", _judge),
    "metrics": (METRICS, "json", lambda path: report.compare(REPORTED, report.load_metrics(path))),
    "study": (STUDY, "json", lambda path: studies.read_document(path, "collected")),
    "notebook": (NOTEBOOK, "json", read_notebook),
}


@pytest.mark.parametrize("kind", READERS)
@few
@given(data=st.data())
def test_documents(folder, kind, data):
    document, language, read = READERS[kind]
    path = folder / f"{kind}.{language}"
    way = data.draw(st.sampled_from(["value", "value", "value", "drop", "text", "bytes"]))
    if way == "bytes":
        path.write_bytes(data.draw(st.binary(max_size=60)))
    else:
        place = data.draw(st.sampled_from(places(document)))
        made = replaced(document, place, data.draw(JSONISH), way == "drop")
        text = json.dumps(made, ensure_ascii=data.draw(st.booleans()))  # JSON is YAML
        if way == "text":
            at = data.draw(st.integers(0, len(text)))
            text = text[:at] + data.draw(st.text(max_size=6)) + text[at + data.draw(st.integers(0, 9)):]
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    only_our_errors(lambda: read(path))


# ---- settings --------------------------------------------------------------------------------------------------------


def _configs() -> dict[str, type]:
    import importlib

    found = {}
    for path in sorted(project.REPORTED.glob("*.yaml")):
        module = importlib.import_module(f"covlib.papers.{path.stem}.method")
        if hasattr(module, "Config"):
            found[path.stem] = module.Config
    return found


@pytest.mark.parametrize("paper", [path.stem for path in sorted(project.REPORTED.glob("*.yaml"))])
@few
@given(data=st.data())
def test_config(paper, data):
    config = _configs().get(paper)
    if config is None:
        pytest.skip("no Config of that name")
    names = st.one_of(st.sampled_from(list(config.__dataclass_fields__)), st.text(max_size=8))
    odd = st.sampled_from([0, 1, 2**31, 10**30, 0.5, -1.0, math.inf, math.nan, "4", "1e3"])
    numbers = st.one_of(st.integers(-5, 300), odd)
    values = st.one_of(numbers, numbers.map(str), JSONISH, st.lists(numbers, max_size=3).map(tuple))
    profile = data.draw(st.one_of(st.sampled_from(PROFILES), st.text(max_size=6), st.none()))
    overrides = data.draw(st.one_of(st.dictionaries(names, values, max_size=3), JSONISH))

    def make():
        made = config.for_profile(profile, overrides)
        json.dumps(made.as_dict(), allow_nan=False)

    only_our_errors(make)


@few
@given(given_=st.dictionaries(st.one_of(st.sampled_from(["profile", "seed", "out", "overrides", "checkpoint"]),
                                        st.text(max_size=6)), JSONISH, max_size=3), text=st.text(max_size=12))
def test_parameters(given_, text):
    known = {"profile": "cpu", "data": "phantom", "seed": 0, "device": "auto", "out": "x", "checkpoint": None,
             "resume": True, "overrides": {}}
    only_our_errors(lambda: check_parameters(given_, known))
    only_our_errors(lambda: parse_value(text))


def test_pydicom_is_the_one_that_is_used():
    """The base file of the DICOM test is one that reads."""
    assert pydicom.dcmread(io.BytesIO(DICOM)).pixel_array.shape == (8, 8)
    assert images.read_image("x.png", PNGS[0]).shape == (8, 8)
