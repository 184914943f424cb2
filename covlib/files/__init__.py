"""Reading and writing scans, images and whole data sets."""
