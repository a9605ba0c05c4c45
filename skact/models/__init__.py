"""A live transformer made readable: loading, identity, blocks, hooks, geometry, the forward pass.

Knows neither estimators nor stores. The names of this package are listed beside it, in
``__init__.pyi``, and load with their first use, so that importing it loads neither torch nor
transformers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
