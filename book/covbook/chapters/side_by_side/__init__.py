"""All methods on one protocol (chapter 08): the same patients, the same split, the same seconds of training.

``settings`` says what there is and how large, ``tasks`` deals the patients, ``budget`` turns seconds into a number of
steps, by what ``cost`` measured of a step, ``arms`` trains and synthesises, ``scores`` measures, ``show`` and
``tables`` make what the page shows. An arm is one method in one task, "mask-spade" say; ``covlib sweep side_by_side``
runs arms apart.
"""
