"""What is given in memory is checked before anything is trained: kinds of arguments, and vocabularies."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
from small_facts import SMALL

from ocr_interp.errors import ModelError
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.finetune import finetune

WRONG = """
from ocr_interp import llm
bare = llm.tiny_model("mistral", llm.tiny_tokenizer(["a b"])).model
facts, train = llm.FactConfig(), llm.FinetuneConfig(model="tiny", device="cpu")
for call in (
    lambda: llm.finetune(llm.LLMRunConfig(facts, train), lm=bare),
    lambda: llm.inspect_models(bare, bare, llm.make_facts(facts)),
    lambda: llm.LLMRunConfig(train, facts),
):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_arguments_of_another_kind_are_refused_with_the_right_one():
    """In a process of its own, as the tests' type checks would come first."""
    found = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, check=True).stdout
    lines = found.splitlines()
    assert lines[0].startswith(
        "ModelError lm must be an llm.LanguageModel, got a MistralForCausalLM: pass llm.Lang"
    )
    assert lines[1].startswith("ModelError before must be an llm.LanguageModel, got a MistralForCausalLM")
    assert lines[2].startswith("ConfigError facts must be a FactConfig, got a FinetuneConfig")


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(make_model):
    lm = make_model()
    size = len(lm.model.get_input_embeddings().weight)
    larger = replace(lm, tokenizer=copy.deepcopy(lm.tokenizer))
    larger.tokenizer.add_tokens([f"word{k}" for k in range(size)])
    with pytest.raises(
        ModelError, match=rf"has {len(larger.tokenizer)} tokens, the model embeds only {size}"
    ):
        finetune(LLMRunConfig(SMALL, FinetuneConfig(model="tiny", steps=1, device="cpu")), lm=larger)


@pytest.mark.parametrize("command_words", [("evaluate", "x"), ("inspect", "x"), ("finetune", "x")])
@pytest.mark.parametrize("threads", ["0", "-1"])
def test_no_threads_are_refused(command_words, threads, command):
    code, _, err = command("llm", *command_words, "--threads", threads)
    assert code == 2
    assert f"threads (--threads) must be >= 1, got {threads}" in err
