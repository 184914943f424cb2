"""The four methods that Jiang et al. (chapter 04) compare theirs with: pix2pix, pix2pixHD, SPADE and SEAN."""
