"""Bagged decision trees on a network's pooled features: the "DenseNet-121 + BGT" of Zunair and Ben Hamza (section 4.6).

The paper refers to Kassani et al. (2020) for it and gives no setting. Ours: scikit-learn's BaggingClassifier, fully
grown trees, each on a bootstrap sample of the images, class probabilities averaged over the trees.
"""

import numpy as np

from covlib.errors import DataError
from covlib.judges import classifiers
from covlib.metrics.checks import finite
from covlib.seeding import derive


class BaggedTrees:
    """Trees that read the penultimate features of a classifier from ``classifiers.build``.

    Args:
        network: gives the features; it is not changed.
        trees: how many. seed: of the bootstrap samples.
    """

    def __init__(self, network: classifiers.Classifier, *, trees: int = 100, seed: int = 0):
        self.network, self.trees, self.seed, self.forest = network, trees, seed, None

    @property
    def note(self) -> str:
        """What the features come from and what reads them, in words for a caption."""
        return f"{self.trees} bagged trees on features of {self.network.name} ({self.network.note})"

    def fit(self, images, labels) -> "BaggedTrees":
        """Grow the trees on ``images`` (N, C, H, W) in [-1, 1] with ``labels`` (N,), of at least two classes."""
        from sklearn.ensemble import BaggingClassifier
        from sklearn.tree import DecisionTreeClassifier

        labels = finite("labels", labels, ndim=1).astype(np.int64)
        if len(np.unique(labels)) < 2:
            raise DataError("labels are all of one class; a classifier needs at least two")
        if len(labels) != len(images):
            raise DataError(f"{len(labels)} labels for {len(images)} images; one each is wanted")
        state = derive(self.seed, "bagged trees") % 2**32
        self.forest = BaggingClassifier(DecisionTreeClassifier(), n_estimators=self.trees, random_state=state)
        self.forest.fit(classifiers.embed(self.network, images), labels)
        return self

    def predict(self, images) -> np.ndarray:
        """Class probabilities float32 (N, classes), the mean over the trees."""
        if self.forest is None:
            raise DataError("the trees have not grown yet: call fit(images, labels) first")
        known = self.forest.predict_proba(classifiers.embed(self.network, images))
        probs = np.zeros((len(known), self.network.n_classes), np.float32)
        probs[:, self.forest.classes_] = known
        return probs
