"""Every figure the book shows, one function each; all return matplotlib figures on opaque white, at most 1200 px wide.

Pictures are shown as they lie in memory: patient's right on the left, spine down. Colours are Okabe and Ito's.
"""

from covlib.plots.curves import (
    confidence_plot,
    hu_histogram,
    loss_curves,
    metric_intervals,
    set_scatter,
    smooth,
)
from covlib.plots.embedding import umap_embed, umap_embedding
from covlib.plots.pictures import (
    pick,
    sample_grid,
    slice_panels,
    training_strip,
    volume_views,
    which_is_which,
    xray_panel,
)

__all__ = ["confidence_plot", "hu_histogram", "loss_curves", "metric_intervals", "pick", "sample_grid", "set_scatter",
           "slice_panels", "smooth", "training_strip", "umap_embed", "umap_embedding", "volume_views",
           "which_is_which", "xray_panel"]
