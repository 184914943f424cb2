"""The registered data sets: the registry, downloads, and the layouts in which they come."""
