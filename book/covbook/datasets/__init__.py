"""The registered data sets: the registry, downloads, and the layouts in which they come; ``covlib.files.layouts`` knows
those as soon as this package is imported."""

from covbook.datasets import own_layouts
from covlib.files import layouts

layouts.OWN.update(own_layouts.LAYOUTS)
