"""Chapter 05: roles of the slices, trainings, tables. Names alone here, so that listing studies needs no PyTorch."""

MODELS = ("pix2pix", "enhanced", "cosingan")  # in the order of Table 1
SETS = ("sin_ts", "o_sts", "rc_sts", "two_ts", "if_sts", "oc_ts")  # in the order of Tables 2 to 4
# Rivals with the length of Section 3.2.3, the first stage of one scale, in place of CoSinGAN's number of updates.
STATED = {"pix2pix_as_stated": "pix2pix", "enhanced_as_stated": "enhanced"}
OURS = ("painted_sts",)  # the masks without CoSinGAN
SET_NAMES = {"sin_ts": "Sin-TS", "o_sts": "O-STS", "rc_sts": "RC-STS", "two_ts": "Two-TS", "if_sts": "IF-STS",
             "oc_ts": "OC-TS", "painted_sts": "painted (ours)", "sin_relabelled": "Sin-TS, relabelled (ours)"}
