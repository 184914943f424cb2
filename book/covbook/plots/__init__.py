"""Every figure the book shows, one function each; all return matplotlib figures on opaque white, at most 1200 px wide.

Pictures are shown as they lie in memory: patient's right on the left, spine down. Colours are Okabe and Ito's.
"""

from covbook.plots.audits import cam_overlay, nearest_distances, nearest_pairs, planted_examples, planting, probe_bars
from covbook.plots.conditions import (
           TERNARY,
           condition_editing,
           condition_panels,
           enlarged_methods,
           listening,
           map_colours,
           method_comparison,
           zoom_box,
)
from covbook.plots.curves import confidence_plot, loss_curves, set_scatter, smooth
from covbook.plots.embedding import umap_embed, umap_embedding
from covbook.plots.game import right_curves
from covbook.plots.pictures import pick, picture_blocks, sample_grid, volume_views, which_is_which
from covbook.plots.single_slice import (
           image_rows,
           infection_edits,
           scales_and_stages,
           term_panels,
           ways_of_painting,
)
from covbook.plots.translation import (
           class_bars,
           confidence_by_training,
           translation_panels,
           translations_beside,
           umap_by_training,
)
from covbook.plots.volumes3d import close_ups, difference_images, gains, hu_distribution, seams, three_planes

__all__ = ["TERNARY", "cam_overlay", "class_bars", "close_ups", "condition_editing", "condition_panels",
           "confidence_by_training", "confidence_plot", "difference_images", "enlarged_methods", "gains",
           "hu_distribution", "image_rows", "infection_edits", "listening", "loss_curves", "map_colours",
           "method_comparison", "nearest_distances", "nearest_pairs", "pick", "picture_blocks", "planted_examples",
           "planting", "probe_bars", "right_curves", "sample_grid", "scales_and_stages", "seams", "set_scatter",
           "smooth", "term_panels", "three_planes", "translation_panels", "translations_beside", "umap_by_training",
           "umap_embed", "umap_embedding", "volume_views", "ways_of_painting", "which_is_which", "zoom_box"]
