"""Packed DICOM pixels: JPEG (lossless too), JPEG-LS and JPEG 2000 by imagecodecs, as a plugin of pydicom.

The decoders that pydicom finds by itself are passed by: GDCM ends the whole process on damaged files, Pillow has no
lossless JPEG and no JPEG-LS, pylibjpeg's is under the GPL. RLE is pydicom's own.
"""

import numpy as np
from pydicom import uid

NAME = "imagecodecs"
JPEGS = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
PACKED = (*JPEGS, *JPEG_LS, *JPEG_2000)
DECODER_DEPENDENCIES = {syntax: (NAME,) for syntax in PACKED}


def is_available(syntax: str) -> bool:
    """Whether frames of this transfer syntax are decoded here; pydicom asks."""
    return syntax in PACKED


def decode_frame(src: bytes, runner) -> bytes:
    """The values of one grey frame, as pydicom wants them: little-endian, in 1 or 2 bytes each.

    Raises:
        ValueError: colour. ``imagecodecs``' own errors: damaged, or another size than the header claims (which is
            seen before anything of that size is allocated).
    """
    import imagecodecs

    if runner.samples_per_pixel != 1:
        raise ValueError("colour is not decoded")
    syntax, shape = runner.transfer_syntax, (runner.rows, runner.columns)
    decode = (imagecodecs.jpegls_decode if syntax in JPEG_LS else imagecodecs.jpeg2k_decode if syntax in JPEG_2000
              else imagecodecs.jpeg8_decode)
    errors = []
    for dtype in ("u2", "i2", "u1", "i1"):  # the stream's own, which need not be the header's
        out = np.zeros(shape, dtype)
        try:
            decode(src, out=out)
        except Exception as error:  # of as many kinds as there are codecs
            errors.append(error)
            continue
        runner.set_option("bits_allocated", 8 * out.dtype.itemsize)
        return out.astype(out.dtype.newbyteorder("<"), copy=False).tobytes()
    raise errors[0]


def register() -> None:
    """Make pydicom know these decoders; once is enough, more does no harm."""
    from pydicom.pixels import get_decoder

    for syntax in PACKED:
        decoder = get_decoder(syntax)
        if NAME not in decoder.available_plugins:
            decoder.add_plugin(NAME, (__name__, "decode_frame"))
