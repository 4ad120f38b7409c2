from .circuits import BlockChange as BlockChange
from .circuits import CircuitChange as CircuitChange
from .circuits import compare as compare
from .graphs import GraphChange as GraphChange
from .graphs import compare_graphs as compare_graphs
from .model_change import ModelChange as ModelChange
from .model_change import UnitChange as UnitChange
from .models import compare_models as compare_models
