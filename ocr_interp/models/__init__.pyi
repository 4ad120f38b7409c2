from .hooked39 import build_model as build_model
from .saved import load_model as load_model
from .saved import save_model as save_model
