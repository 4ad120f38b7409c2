"""Models that the tests of interventions share."""

import pytest
from micro_model import CONFIG, TASK, weights

from ocr_interp.models.hooked39 import build_model


@pytest.fixture(scope="session")
def model():
    return build_model(TASK, CONFIG, device="cpu", weights=weights())


@pytest.fixture(scope="session")
def llama_bridge():
    import hooked_models

    return hooked_models.bridge(hooked_models.hugging_face_model("Llama"))
