"""The OV circuit of one attention head in token space: what seeing a token adds to each answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ocr_interp.circuits.baseline import random_circuit
from ocr_interp.circuits.freshness import require_fresh
from ocr_interp.circuits.geometry.alignment import AlignmentReport, Prediction, align
from ocr_interp.circuits.geometry.embeddings import Embeddings
from ocr_interp.circuits.geometry.of_a_task import of_a_task
from ocr_interp.circuits.matrix import RAW, OVMatrix
from ocr_interp.circuits.reading import read_run, read_side
from ocr_interp.circuits.summary import summarize
from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.copies import as_hooked
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel
from ocr_interp.hooked.tokens.ids import Tokens
from ocr_interp.hooked.tokens.labels import labels_of, output_labels_of
from ocr_interp.hooked.tokens.task_tokens import task_inputs, task_outputs
from ocr_interp.hooked.tokens.token_set import token_set_of
from ocr_interp.models.trained import Route, TrainedModel
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True, repr=False)
class OVCircuit(OVMatrix):
    """An OV circuit between two token sets, W[input, output] = left @ right, in float64 on the CPU.

    Of a fact-recall model it is the effective circuit diag(a) W_OV, from which logits are computed;
    `from_run(run, raw=True)` gives the raw W_OV. Made by `from_run` or `from_model`. All arrays are copies:
    further training does not change them, and `check_fresh` raises if the model has changed since.

    The attributes are those of `OVMatrix`.
    """

    @classmethod
    def from_run(
        cls,
        run: TrainedModel,
        outputs: str = "answers",
        *,
        raw: bool = False,
        expert: int | None = None,
        prompt: Sequence[str] | None = None,
        of: str = "merged",
    ) -> OVCircuit:
        """The circuit of a fact-recall model: all input tokens by answers (or the whole vocabulary).

        Args:
            run: a Run, or a Snapshot from run.at(step).
            outputs: "answers" or "vocabulary".
            raw: W_OV without attention instead. Signs and sizes of its rows mean little by themselves: the
                attention a absorbs any scale of them, also a negative one.
            of: of a parameterisation with a frozen base (ov="low_rank"), "merged" (what the model uses),
                "base" or "update" = merged - base.
            expert: of routed experts, whose circuit it is. A model that routes prompts has one per expert and
                none of its own.
            prompt: of a model that routes prompts, the prompt (labels, EOS last) whose mixture of the experts
                is read.

        Returns: diag(a) W_OV, the matrix behind logits, margins and norms. With softmax attention each
            sequence is still divided by its sum of a.

        Raises:
            WeightsError: NaN or infinite weights.
            ModelError: an expert or a prompt of a model that has none such, or neither where there is no
                single circuit.
            UnknownNameError: another value of `outputs` or `of`.
            ConfigError: a side of a parameterisation without a base.
        """
        columns = task_outputs(run.task, outputs)
        route, said = _route_of(run, expert, prompt)
        run = run.of_route(route)
        factors, scores = read_run(run, columns.ids, of)
        provenance = factors.provenance
        head = route if isinstance(route, int) else 0
        flags = (*provenance.flags, *said)
        provenance = dataclasses.replace(provenance, head=head, kv_head=head, flags=flags)
        circuit = cls(
            left=_as_array(factors.left),
            right=_as_array(factors.right),
            bias=_as_array(factors.bias),
            inputs=task_inputs(run.task),
            outputs=columns,
            provenance=dataclasses.replace(provenance, flags=(*provenance.flags, RAW)) if raw else provenance,
            task=run.task,
            attention=run.config.model.attention,
            scores=_as_array(scores),
            linear_map=run.weights.linear_map,
            has_factors=run.weights.linear_map.has_factors or of == "update",
            has_noise=run.config.has_noise,
            route=route,
        )
        return circuit if raw else circuit.effective

    @classmethod
    def from_model(
        cls,
        model: HookedModel | AdaptedModel,
        *,
        layer: int,
        head: int,
        inputs: Tokens,
        outputs: Tokens,
        labels: Sequence[str] | None = None,
        output_labels: Sequence[str] | None = None,
        of: str = "merged",
        step: int | None = None,
        seed: int | None = None,
    ) -> OVCircuit:
        """The circuit of a head of any HookedTransformer, TransformerBridge or PeftModel between token sets.

        W = W_E W_V W_O W_U restricted to the sets; a matrix over the whole vocabulary is never formed.
        Gains and centring of ln1 and of the final norm are folded in, their scales frozen at 1; grouped
        key-value heads are looked up; biases go to `bias`; `provenance.folded` and `.flags` say so.

        Args:
            model: left as it is. Adapters are read without merging by hand: of a PeftModel every kind that
                changes weights (in a copy, kept as long as the PeftModel), of a bridge of its base those that
                the bridge runs (not of a joint projection).
            layer, head: which attention head (of the queries, if key-value heads are grouped).
            inputs, outputs: ids, labels or strings of one token each, or named groups of them.
            labels: a label for every token id; else those attached (`name_tokens`) or the tokenizer's.
            output_labels: a label for every logit, where the outputs are another vocabulary.
            of: of a model with adapters, "merged" (what the model uses), "base" (without them) or "update",
                merged - base.
            step, seed: for the provenance, if known.

        Raises:
            ModelError: no hooked model, an unknown layer or head, overlapping token sets, norms after
                attention, or `of` a side that the model's adapters do not have.
            UnknownNameError: an unknown token, with the close matches.
            WeightsError: NaN or infinite weights.
        """
        hooked = as_hooked(model, "base" if of == "base" else "merged")
        names = labels_of(hooked, labels)
        rows = token_set_of(hooked, inputs, names, "inputs")
        names = output_labels_of(hooked, labels, output_labels)
        columns = token_set_of(hooked, outputs, names, "outputs")
        factors = read_side(model, layer, head, rows.ids, columns.ids, of)
        return cls(
            left=_as_array(factors.left),
            right=_as_array(factors.right),
            bias=_as_array(factors.bias),
            inputs=rows,
            outputs=columns,
            provenance=dataclasses.replace(factors.provenance, step=step, seed=seed),
        )

    # --- measurements -----------------------------------------------------------------------------

    def embeddings(self, null_tolerance: float = 1e-10) -> Embeddings:
        """Features of inputs and outputs from the balanced SVD; see `Embeddings`."""
        return Embeddings.of(self, null_tolerance)

    def alignment(
        self,
        prediction: Prediction,
        *,
        task: FactRecallTask | None = None,
        tokens: Mapping[str, str | int] | None = None,
        untrained: TrainedModel | OVMatrix | None = None,
        other: TrainedModel | OVMatrix | None = None,
        random_seeds: Sequence[int] = (0, 1, 2),
    ) -> AlignmentReport:
        """How the circuit compares with a predicted one: cosines, β, angles, geometry, beside baselines.

        Of a run it is diag(a) W_OV. Of a head of any other model it is W per unit of attention, and `task`
        says which tokens are subjects, relations and answers. A constant that lifts all answers alike counts
        in the cosines and not in β. Beside the nuclear-norm solution of a balanced task with m_train < m_test
        stands the saddle, where gradient descent from a small start goes.

        Args:
            prediction: a Solution (`solve(task)`), a SaddleSolution, or anything with .W [subjects and
                relations, answers] in the order of the task.
            task: for the circuit of another model than a run; its labels name the circuit's tokens.
            tokens: label of the task -> label, string or id of the circuit's token, where they differ, e.g.
                {"r1": "lives in", "r2": "speaks"}.
            untrained: the circuit (or Snapshot) before training.
            other: of another model: another parameterisation of W_OV, seed or recipe.
            random_seeds: of random circuits of the same size, as in `random_like`.

        Raises:
            ModelError: neither a run's circuit nor a task; one expert's circuit; a baseline of another task,
                an `untrained` that has been trained, or an `other` with the same weights.
            UnknownNameError: a token of the task that the circuit does not have, with the close matches.
            ConfigError: a prediction of another shape or task, or one that is not finite or zero.
        """
        given = (self, _circuit_of(untrained), _circuit_of(other))
        if task is not None:
            given = tuple(None if one is None else of_a_task(one, task, tokens) for one in given)
        elif tokens is not None:
            raise ModelError("tokens name those of a task: pass task as well")
        measured, before, beside = given
        assert measured is not None
        return align(measured, prediction, untrained=before, other=beside, random_seeds=random_seeds)

    def random_like(self, seed: int) -> OVCircuit:
        """A baseline: normal factors of the same shapes (W itself without factors), same Frobenius norm.

        Tokens, task and attention scores stay; rows of an effective circuit are drawn with the attention
        included. `provenance` says that it is random, which weights it was scaled to, and the seed.

        Args:
            seed: of the draw.

        Raises:
            ConfigError: a seed that is no whole number >= 0.
        """
        return random_circuit(self, seed)

    # --- freshness ------------------------------------------------------------------------------

    def check_fresh(self, source: HookedModel | AdaptedModel | TrainedModel) -> None:
        """Requires that the model still has the weights that the circuit was read from.

        Args:
            source: the model, Run or Snapshot; for a circuit of a Run also its HookedTransformer.

        Raises:
            StaleCircuitError: they have changed.
        """
        require_fresh(self, source)

    def summary(self) -> str:
        """Readable text: provenance, size, norms and shares of energy beside those of random weights."""
        return summarize(self)


def _route_of(
    run: TrainedModel, expert: int | None, prompt: Sequence[str] | None
) -> tuple[Route, tuple[str, ...]]:
    """Which circuit of routed experts is meant, and what the provenance says of it."""
    if expert is not None and prompt is not None:
        raise ModelError("the circuit of an expert or that of a prompt: pass expert or prompt, not both")
    if prompt is not None:
        shares = ", ".join(f"{share:.3g}" for share in run.mixture(prompt))
        return tuple(prompt), (f"mixture of the experts for {' '.join(prompt)}: {shares}",)
    return (None, ()) if expert is None else (expert, (f"expert {expert} of routed experts",))


def _circuit_of(source: TrainedModel | OVMatrix | None) -> OVMatrix | None:
    return OVCircuit.from_run(source) if isinstance(source, TrainedModel) else source


def _as_array(tensor: Tensor) -> Float[np.ndarray, "..."]:
    """A float64 copy on the CPU; used for small, restricted tensors only."""
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float64)
