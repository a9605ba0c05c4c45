"""What a user writes, for mypy and pyright: names, parameters and results have types."""

from typing import assert_type

import numpy as np

import skact

X = skact.TokenArray.from_list([np.zeros((2, 3), np.float32), np.ones((4, 3), np.float32)])
assert_type(X, skact.TokenArray)
assert_type(X[:1], skact.TokenArray)
assert_type(X.n_tokens, int)

scaled = skact.TokenScaler().fit(X)
assert_type(scaled, skact.TokenScaler)

concepts = skact.LinearSeparator(weight_decay=0.1).fit(X, [0, 1])
assert_type(concepts, skact.LinearSeparator)
detector = skact.SuperActivator(delta=0.1).fit(concepts.transform(X), [0, 1])
assert_type(detector, skact.SuperActivator)
assert_type(skact.depth_to_block(0.5, 12), int)
