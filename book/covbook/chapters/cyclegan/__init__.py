"""Chapter 06: translation of a set, detection, tables."""
