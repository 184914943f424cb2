"""Chapter 07: scans in blocks and whole, judged."""
