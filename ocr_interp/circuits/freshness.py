"""Whether a model still has the weights that a circuit was read from."""

from __future__ import annotations

from torch import Tensor

from ocr_interp.circuits.matrix import OVMatrix
from ocr_interp.circuits.reading import weights_of, weights_of_model
from ocr_interp.errors import ModelError, StaleCircuitError
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel, check_model
from ocr_interp.hooked.provenance import fingerprint_of
from ocr_interp.models.trained import TrainedModel


def require_fresh(circuit: OVMatrix, source: HookedModel | AdaptedModel | TrainedModel) -> None:
    """Requires that the model still has the weights that a circuit was read from.

    Raises:
        StaleCircuitError: they have changed.
    """
    now = fingerprint_of(weights_now(circuit, source))
    if now != circuit.provenance.fingerprint:
        raise StaleCircuitError(
            f"the circuit was read from weights {circuit.provenance.fingerprint}, the model now has {now}: "
            "read it again with OVCircuit.from_run or OVCircuit.from_model"
        )


def weights_now(circuit: OVMatrix, source: HookedModel | AdaptedModel | TrainedModel) -> dict[str, Tensor]:
    """The current weights of a model, Run or Snapshot that the circuit depends on.

    Raises:
        ModelError: a model of another kind.
    """
    circuit = circuit.whole or circuit
    task = circuit.task
    if task is None:
        if isinstance(source, TrainedModel):
            source = source.model
        where = circuit.provenance
        return weights_of(source, where.layer, where.head, circuit.inputs.ids, circuit.outputs.ids, where.of)
    if isinstance(source, TrainedModel):
        return source.of_route(circuit.route).weights.used(
            task, list(circuit.outputs.ids), circuit.provenance.of
        )
    if isinstance(circuit.route, tuple):
        raise ModelError(
            "the circuit of a prompt depends on the mixture of its run: check it with the Run or Snapshot"
        )
    if circuit.provenance.of != "merged":
        raise ModelError(
            f"the {circuit.provenance.of} of a run cannot be told from its HookedTransformer, which has the "
            "merged W_OV: pass the run"
        )
    weights = weights_of_model(task, check_model(source), circuit.has_factors, circuit.route or 0)
    return weights.used(task, list(circuit.outputs.ids))
