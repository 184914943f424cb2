"""Which blocks of a scan count as its "pulmonary region" (Mangalagiri et al., Section IV-A, Table II)."""

import numpy as np

from covlib.data.case import Case
from covlib.data.lungs import lung_mask
from covlib.errors import DataError

PULMONARY_BLOCKS = 4  # "limited to 4 voxel (32x32x32 each) over pulmonary area"


def pulmonary_blocks(case: Case, n: int = PULMONARY_BLOCKS, block: int = 32) -> np.ndarray:
    """First voxels, int64 (n, 3), of the ``n`` blocks of the undivided grid that hold most lung.

    Which four blocks the paper took is not said: ours. A case without a lung mask gets one by threshold. DataError:
    fewer than ``n`` whole blocks, or no lung.
    """
    lung = (case.lung if case.lung is not None else lung_mask(case.hu, case.spacing)) > 0
    counts = [s // block for s in lung.shape]
    if np.prod(counts) < n or not lung.any():
        raise DataError(f"case {case.name}: {int(np.prod(counts))} whole blocks of {block} and {int(lung.sum())} "
                        f"voxels of lung; {n} blocks with lung in them are wanted")
    inner = lung[tuple(slice(c * block) for c in counts)]
    z, y, x = counts
    share = inner.reshape(z, block, y, block, x, block).sum((1, 3, 5)).ravel()
    best = np.argsort(-share, kind="stable")[:n]
    return np.stack(np.unravel_index(best, counts), 1) * block


def side_for(litres: float, spacing: tuple[float, float, float], n: int = PULMONARY_BLOCKS) -> int:
    """Voxels a side of ``n`` cubes that hold so many litres together, at voxels of ``spacing`` (mm). The paper's four
    of 32 voxels hold 0.26 litres, at 0.7 x 0.7 x 4 mm (assumed)."""
    return max(2, round((litres * 1e6 / n / float(np.prod(spacing))) ** (1 / 3)))
