"""Steps between embedding and concepts."""

from skact.preprocessing._join_layers import JoinLayers
from skact.preprocessing._norm_clip import NormClip
from skact.preprocessing._pooling import TokenPooling
from skact.preprocessing._position_context import PositionContext
from skact.preprocessing._scaler import TokenScaler
from skact.preprocessing._select_layer import SelectLayer

__all__ = [
    "JoinLayers",
    "NormClip",
    "PositionContext",
    "SelectLayer",
    "TokenPooling",
    "TokenScaler",
]
