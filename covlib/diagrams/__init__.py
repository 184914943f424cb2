"""Diagrams drawn by code, in one visual language for all chapters.

Data are images, tensors are boxes with CxHxW, networks are trapezoids (narrow where the tensor is small), losses are
circles, gradients are dashed lines in the colour of the network they change, frozen parts are grey. Every function
returns a matplotlib figure; ``figure.savefig("x.svg")`` keeps it sharp at any size.
"""

from covlib.diagrams.canvas import Canvas
from covlib.diagrams.conditional import global_local
from covlib.diagrams.overview import judging, pipeline
from covlib.diagrams.single_slice import cosingan
from covlib.diagrams.translation import cyclegan
from covlib.diagrams.unconditional import dcgan, dcgan_layers, shapes
from covlib.diagrams.volumes import cgan3d, growing

__all__ = ["Canvas", "cgan3d", "cosingan", "cyclegan", "dcgan", "dcgan_layers", "global_local", "growing", "judging",
           "pipeline", "shapes"]
