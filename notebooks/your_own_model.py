# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model
#
# Any HookedTransformer, or any transformers model through a bridge, can be read: which head matters, what its weights say in tokens, who
# adds what to an answer, and what breaks without it. Here two models stand in for yours: one that this notebook trains, and a tiny Llama
# with random weights, as a control for what nothing looks like. The same in words: [tutorial](../docs/tutorial.md).

# %%
import copy
import warnings

import matplotlib.pyplot as plt
import pandas as pd
import torch
from tokenizers import Tokenizer, models
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ocr_interp import OVCircuit, attribute, name_tokens
from ocr_interp.ablation import Examples, Site, Zero, output_subspace, run_ablation_study
from ocr_interp.graphs import head_graph
from ocr_interp.viz import plot_attribution, plot_heatmap, plot_study

plt.rcParams["figure.dpi"] = 80
warnings.filterwarnings("ignore", "HookedTransformer is deprecated")  # in 4.0; this library is for 3.9

# %% [markdown]
# ## 1. A model
#
# Eighteen people in six cities. Every city is told, the language of one person per city. Yours would be loaded instead.

# %%
languages = {"Warsaw": "Polish", "Lima": "Spanish", "Paris": "French"}
languages |= {"Rome": "Italian", "Kyoto": "Japanese", "Cairo": "Arabic"}
people = ["Ada Bo Cleo", "Dan Eva Flo", "Gus Hal Ida", "Jon Kim Leo", "Mia Ned Oz", "Pia Quin Ron"]
home = {name: city for city, group in zip(languages, people, strict=True) for name in group.split()}
told = [group.split()[0] for group in people]
others = [name for name in home if name not in told]

facts = [(name, "lives", city) for name, city in home.items()]
implications = [(name, "speaks", languages[city]) for name, city in home.items()]
words = ["<bos>", "lives", "speaks", *home, *languages, *languages.values()]
tokens = torch.tensor([[0, words.index(name), words.index(verb)] for name, verb, _ in facts + implications])
answers = torch.tensor([words.index(answer) for *_, answer in facts + implications])
untold = torch.tensor([verb == "speaks" and name in others for name, verb, _ in facts + implications])

shape = {"n_layers": 1, "n_heads": 2, "d_model": 32, "d_head": 16, "n_ctx": 3, "d_vocab": len(words)}
start = {"initializer_range": 0.05, "seed": 0, "device": "cpu"}
config = HookedTransformerConfig(**shape, **start, attn_only=True, normalization_type="LN")
model = HookedTransformer(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(300):
    loss = torch.nn.functional.cross_entropy(model(tokens[~untold])[:, -1], answers[~untold])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

right = model(tokens)[:, -1].argmax(-1) == answers
print(f"told: {right[~untold].float().mean():.2f}, never told: {right[untold].float().mean():.2f}")

# %% [markdown]
# ## 2. Which head?
#
# Labels are given once. A study measures every cut by kind of question, and keeps its table.

# %%
name_tokens(model, words)
kinds = ["city"] * len(facts)
kinds += ["language, told" if name in told else "language, never told" for name, *_ in implications]
examples = Examples(tokens, answers, tuple(kinds))
cuts = {f"head {head}": Zero().at(Site.at("z", layer=0, heads=[head])) for head in range(2)}
study = run_ablation_study(model, cuts, ["accuracy", "loss"], examples=examples, progress=False)
fig, ax = plt.subplots(figsize=(6.6, 2.6), layout="constrained")
_ = plot_study(ax, study, "loss")
# %% [markdown]
# One head answers for cities, the other one for languages, told and untold alike.

# %%
head = int(study.by_split("loss")["language, never told"].drop("none").idxmax().removeprefix("head "))
groups = {
    "inputs": {"told": told, "never told": others},
    "outputs": {"cities": list(languages), "languages": list(languages.values())},
}
circuit = OVCircuit.from_model(model, layer=0, head=head, **groups)
circuit

# %% [markdown]
# ## 3. What do its weights say?
#
# W[name, answer]: what seeing a name adds to each answer. The stripes on the right are own languages, also of those of whom nobody told.

# %%
fig, ax = plt.subplots(figsize=(6.6, 4.2), layout="constrained")
_ = plot_heatmap(ax, circuit)
# %%
print(circuit.summary())

# %% [markdown]
# ## 4. Who adds what to one answer?

# %%
prompt = ["<bos>", "Eva", "speaks"]
found = attribute(model, prompt, "Spanish", "Polish", layer=0, head=head)
fig, ax = plt.subplots(figsize=(5, 2.2), layout="constrained")
plot_attribution(ax, found)
print(f"sum minus the model's own value: {found.residual:.1e}")

# %%
head_graph(model, prompt, "Spanish", "Polish", layer=0, head=head).readable()
# %% [markdown]
# ## 5. What breaks without it?
#
# The largest block of singular values, cut from the head's output, beside random cuts of the same size.

# %%
block = circuit.spectrum(tolerance=0.05).block(0)
cut = {"largest block": output_subspace(circuit, block.output_basis)}
direction = run_ablation_study(model, cut, ["loss"], examples=examples, progress=False)
pd.concat({name: direction.by_split("loss", name) for name in ("intervention", *direction.controls)}).round(2)

# %% [markdown]
# ## 6. A transformers model
#
# Through a bridge, here of a Llama with random weights. It has grouped key-value heads and RMS norms; both are asked of the model by probes,
# and what would not tally would be refused.

# %%
vocabulary = {word: index for index, word in enumerate([*words, "<unk>"])}
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "<unk>")), unk_token="<unk>"
)
torch.manual_seed(0)
sizes = {"vocab_size": len(vocabulary), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
llama = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))
bridge = TransformerBridge.boot_transformers(
    "tiny-llama", hf_model=copy.deepcopy(llama), tokenizer=tokenizer, device="cpu"
)
of_llama = OVCircuit.from_model(bridge, layer=0, head=3, **groups)
print(of_llama.summary())

# %% [markdown]
# Its blocks have about the shares of energy that random weights have, unlike those of the trained head: nothing was learned here.
# More: [circuits](../docs/circuits.md), [architectures](../docs/architectures.md), [language models](../docs/llm.md).
