"""Scans and images as arrays: windows, masks, splits, augmentation, blocks."""
