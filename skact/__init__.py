"""Find out whether and where a human concept is present in what a transformer sees.

Token activations flow through rooms of scikit-learn estimators: ``embedding`` turns raw text or
images into tokens, ``preprocessing`` scales them, ``concepts`` scores them, ``detection`` decides
per sample, ``localization`` says where, ``model_selection`` and ``metrics`` choose and judge. What
users need is importable from here; the names are listed in
``__init__.pyi`` and heavy libraries load with the first name that needs them.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
