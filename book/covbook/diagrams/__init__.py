"""Diagrams drawn by code, in one visual language for all chapters.

Data are images, tensors are boxes with CxHxW, networks are trapezoids (narrow where the tensor is small), losses are
circles, gradients are dashed lines in the colour of the network they change, frozen parts are grey. Every function
returns a matplotlib figure; ``figure.savefig("x.svg")`` keeps it sharp at any size.
"""

from covbook.diagrams.canvas import Canvas
from covbook.diagrams.conditional import global_local
from covbook.diagrams.overview import judging, pipeline
from covbook.diagrams.paper_map import paper_map
from covbook.diagrams.single_slice import cosingan
from covbook.diagrams.translation import cyclegan
from covbook.diagrams.unconditional import dcgan
from covbook.diagrams.volumes import cgan3d, growing

__all__ = ["Canvas", "cgan3d", "cosingan", "cyclegan", "dcgan", "global_local", "growing", "judging", "paper_map",
           "pipeline"]
