"""Chapter 04: roles of the slices, experiments, tables."""
