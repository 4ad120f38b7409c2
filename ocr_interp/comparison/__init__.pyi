from .circuits import BlockChange as BlockChange
from .circuits import CircuitChange as CircuitChange
from .circuits import compare as compare
from .graphs import GraphChange as GraphChange
from .graphs import compare_graphs as compare_graphs
from .models import ModelChange as ModelChange
from .models import compare_models as compare_models
