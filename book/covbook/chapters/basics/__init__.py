"""Chapters 01 and 02: the data, and how an image is judged."""
