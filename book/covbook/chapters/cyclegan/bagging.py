"""Bagged decision trees on a network's pooled features: the "DenseNet-121 + BGT" of Zunair and Ben Hamza (section 4.6).

The paper refers to Kassani et al. (2020) for it and gives no setting. Ours: scikit-learn's BaggingClassifier, fully
grown trees, each on a bootstrap sample of the images, class probabilities averaged over the trees.
"""

from collections.abc import Callable

import numpy as np

from covlib.judges import classifiers
from covlib.seeding import derive


def bagged_trees(network: classifiers.Classifier, images, labels: np.ndarray, *, trees: int, seed: int) -> Callable:
    """``trees`` grown on the penultimate features of a network from ``classifiers.build``, which is not changed.

    Args:
        images: (N, C, H, W) in [-1, 1]. labels: (N,), all of the network's classes among them.

    Returns:
        A function of images to class probabilities float32 (N, classes), the mean over the trees.
    """
    from sklearn.ensemble import BaggingClassifier
    from sklearn.tree import DecisionTreeClassifier

    state = derive(seed, "bagged trees") % 2**32
    forest = BaggingClassifier(DecisionTreeClassifier(), n_estimators=trees, random_state=state)
    forest.fit(classifiers.embed(network, images), labels)
    return lambda x: forest.predict_proba(classifiers.embed(network, x)).astype(np.float32)
