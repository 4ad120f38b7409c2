"""The table of architectures: a sample of its rows asked again, and the page written from its JSON."""

import dataclasses
import json

import pytest

from analyses.architectures.table import PAGE, RESULTS, page

TABLE = json.loads(RESULTS.read_text(encoding="utf-8"))
ROWS = {row["name"]: row for row in TABLE["rows"]}


def test_the_page_is_written_from_the_json():
    assert PAGE.read_text(encoding="utf-8") == page(TABLE), "python -m analyses.architectures.table --page"


def test_no_answer_is_a_traceback_and_every_refusal_has_a_reason():
    for name, row in ROWS.items():
        if row["tried"]:
            continue
        for column in ("circuit", "attribution", "path", "inspect"):
            answer = row[column]
            assert answer["outcome"] in ("read", "read with flags", "refused"), (name, column, answer)
            assert bool(answer["why"]) == (answer["outcome"] != "read"), (name, column)


@pytest.mark.slow
def test_every_architecture_of_transformer_lens_has_a_row():
    from analyses.architectures.table import bridged

    assert list(ROWS) == bridged()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["GPT2LMHeadModel", "JambaForCausalLM", "StableLmForCausalLM", "BertForMaskedLM", "Gemma3ForCausalLM"],
)
def test_a_sample_of_rows_is_what_is_found_today(name):
    from analyses.architectures.asking import EQUAL, ask_architecture

    now, then = dataclasses.asdict(ask_architecture(name)), ROWS[name]
    same = {key: value for key, value in now.items() if key != "logits"}
    assert same == {key: value for key, value in then.items() if key != "logits"}
    assert (now["logits"] <= EQUAL) == (then["logits"] <= EQUAL)


@pytest.mark.slow
def test_every_bridge_that_would_install_packages_is_left_out():
    """Those whose adapter says that it has parts for images or sound beside text."""
    import inspect

    import transformers
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    asked = 0
    for name, adapter in SUPPORTED_ARCHITECTURES.items():
        sources = [inspect.getsource(each) for each in adapter.__mro__[:2]]
        said = [each for each in sources if "self.cfg.is_multimodal = " in each][:1]  # the last word
        if said and "self.cfg.is_multimodal = True" in said[0] and hasattr(transformers, name):
            assert "install" in str(ROWS[name]["tried"]), name
            asked += 1
    assert asked > 10
