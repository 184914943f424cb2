"""Judge one folder of images against another: has it collapsed, how far is it, how much of it lies among the other."""
from covlib.files.layouts import load_slices
from covlib.judges.features import get_extractor
from covlib.metrics import generative, variety

real, made = (load_slices(folder, size=64) for folder in ("real", "made"))
print(variety.variety(made.images, real.images).collapsed or "as varied as real images")
see = get_extractor("lite2-24")  # an ImageNet network that comes with the installation
a, b = generative.equal_n(see(real.images), see(made.images))
among = generative.precision_recall(a, b, k=3)
print(f"Frechet distance {generative.fid(a, b):.2f}, precision {among.precision:.2f}, recall {among.recall:.2f}")
