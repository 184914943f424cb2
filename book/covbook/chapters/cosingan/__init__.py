"""Chapter 05: roles of the slices, experiments, tables."""
