"""Does a synthetic folder give its training images away? Compared with images of patients it has not seen."""
from covbook.chapters.privacy import audit
from covlib.files.layouts import load_slices

made, train, held_out = (load_slices(folder, size=64) for folder in ("made", "train", "held_out"))
found = audit(made.images, train.images, held_out.images, patients=train.patients,
              held_out_patients=held_out.patients, seed=0)
print(found.verdict)
print("membership AUC", found.membership_auc.text(2), "near copies", found.near_copies.text(2))
