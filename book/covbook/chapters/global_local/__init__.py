"""Chapter 04: roles of the slices, segmentation, tables. Names alone here, so that listing studies needs no PyTorch."""

METHODS = ("global_local", "sean", "spade", "pix2pixhd", "pix2pix")  # in the order of Table II
RIVALS = METHODS[1:]
