"""Networks that judge synthetic images: ``classifiers`` (is this COVID-19?) and ``features`` (what FID measures on)."""
