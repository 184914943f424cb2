"""Virtual patients: a seeded 3-D thorax in Hounsfield units with lung and lesion masks, slices and X-rays of it.

``generate(number)`` makes a CT scan, ``phantom_slices`` a set of slices, ``xray`` and ``phantom_xrays`` projections.
Made to show methods, not anatomy: nobody's scan, no diagnostic worth.
"""

from covlib.phantom.generator import Subject, generate, phantom_slices, scan_subject, slice_heights
from covlib.phantom.patient import MODALITIES, Patient, sample
from covlib.phantom.xray import phantom_xrays, xray

__all__ = [
    "MODALITIES",
    "Patient",
    "Subject",
    "generate",
    "phantom_slices",
    "phantom_xrays",
    "sample",
    "scan_subject",
    "slice_heights",
    "xray",
]
