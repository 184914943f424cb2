"""All methods on one protocol (chapter 08): the same patients, the same split, the same seconds of training.

``settings`` says what there is and how large, ``tasks`` deals the patients, ``training`` turns a budget of seconds into
a number of steps and trains, ``scores`` measures, ``show`` makes the table and the picture. An arm is one method in one
task, "mask-spade" say; ``covlib sweep side_by_side`` runs arms apart.
"""
