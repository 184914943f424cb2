"""What judges a synthetic image by number: one small module per family.

* ``image``: a synthetic image beside its real counterpart (PSNR, SSIM, MS-SSIM, RMSE).
* ``generative``: a synthetic set beside a real set, on features (FID, KID, precision and recall).
* ``overlap``: a predicted mask beside the drawn one (Dice, sensitivity, specificity).
* ``classification``: a classifier's answers (accuracy, sensitivity, AUC, positive rate, skew).
* ``intervals``: what uncertainty to print beside a number, with the patient as its unit; and spreads, which are none.
* ``neighbours``: how far apart two images are, and which real one is nearest.

Where papers define a metric differently, each definition is a function of its own that names paper and equation. Every
function raises ``DataError`` on NaN and on shapes that do not belong together; none returns a number for such input.
"""
