"""Audits of images and judges: what a good number may be hiding."""
