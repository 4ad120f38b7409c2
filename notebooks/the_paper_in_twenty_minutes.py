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
# # The paper in twenty minutes
#
# *Generalization or Hallucination? Understanding Out-of-Context Reasoning in Transformers* (Huang et al., NeurIPS 2025), in one
# notebook: the task, the two models, what theory says, where training goes, and what the paper does not say. All models are
# trained here, in about a minute on one core. Words: [glossary](../docs/glossary.md).
#
# **The question.** Ada and Bo live in Warsaw, and Ada speaks Polish. Does a model that is taught just that answer that Bo speaks
# Polish? And if all who live in Warsaw like blue, as far as it was told?

# %%
import matplotlib.pyplot as plt
import numpy as np

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, certify, solve, sweep, train
from ocr_interp.graphs import mechanism_graph
from ocr_interp.theory import saddle_solution
from ocr_interp.training.long_descent import long_descent
from ocr_interp.viz import plot_ov_circuit, plot_runs, plot_spectrum

plt.rcParams["figure.dpi"] = 80

# %% [markdown]
# ## 1. The task
#
# Ten pairs of a fact b and an implication c. Each pair has one subject whose implication is told, and three of whom the fact alone is
# told. To the model, Warsaw, Polish and blue are just symbols.

# %%
task = FactRecallTask(n_pairs=10, m_train=1, m_test=3)
print(task.tokens("noise0", "s1", "r1", "EOS"), "->", "b0, told")
print(task.tokens("noise0", "s1", "r2", "EOS"), "->", "c0, never told: s1 is a held-out subject")

# %% [markdown]
# ## 2. Two models, one difference
#
# One layer, one head. The *factorized* model trains W_V and W_O, as transformers do; the *non-factorized* one trains their product as
# one matrix. Both can express the same functions, and both start from the same weights.

# %%
recipe = TrainConfig(steps=600, lr=0.01, batch_size=120, log_every=20)
runs = {
    kind: train(task, ModelConfig(ov=kind, init_scale=0.2, attention_init="uniform"), recipe, progress=False)
    for kind in ("factorized", "non_factorized")
}
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
titles = {"train_loss": "What is told", "held_out_implication/loss": "What nobody told"}
for ax, (column, title) in zip(axes, titles.items(), strict=True):
    plot_runs(ax, runs, column)
    ax.set_title(title)

# %% [markdown]
# Both learn what they are told. Only the factorized model answers what nobody told it; the other one guesses (ln 10 = 2.3).

# %%
fig, axes = plt.subplots(2, 1, figsize=(8, 6), layout="constrained")
for ax, (kind, run) in zip(axes, runs.items(), strict=True):
    W = run.subjects_and_relations_W / run.history["train_margin"].iloc[-1]
    plot_ov_circuit(ax, W, task, limit=1.0, unit="at margin 1")
    ax.set_title(kind)

# %% [markdown]
# The framed block is what nobody told: held-out subjects by implications. One model fills it, the other one leaves it empty. The whole
# mechanism as a diagram, the untold edge in its own colour:

# %%
mechanism_graph(runs["factorized"]).readable()
# %% [markdown]
# ## 3. Why: the norm that is made small
#
# Weights that only have to be right are free to be small. Two factors make the *nuclear* norm of W_OV small, one matrix the *Frobenius*
# norm. β is how strongly the untold implication is written, relative to the told one.

# %%
for norm in ("nuclear", "frobenius"):
    solution = solve(task, norm)
    print(f"{norm:10} norm {solution.objective:.3f}, rank {solution.rank}, beta {solution.beta:.3f}")
print(f"sqrt(m_train / m_test) = {(1 / 3) ** 0.5:.3f}")

# %% [markdown]
# Sharing directions between facts and implications makes the nuclear norm smaller, and a shared direction does not know who was told. That
# is the paper's Theorem 2. Any weights can be held against it: a certificate proves how far they are from the smallest norm.

# %%
print(certify(runs["factorized"].subjects_and_relations_W, task, "nuclear").summary())

# %%
fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
plot_spectrum(ax, np.linalg.svd(solve(task, "nuclear").W, compute_uv=False), label="smallest nuclear norm")
plot_spectrum(
    ax, np.linalg.svd(solve(task, "frobenius").W, compute_uv=False), label="smallest Frobenius norm"
)
_ = ax.legend()
# %% [markdown]
# ## 4. Where gradient descent goes
#
# Not quite there. From a small start descent on two factors goes to a *saddle* whose norm is 0.3 % above the smallest and whose β is near the
# fourth root of m_train / m_test. It stays at times that nobody can wait for ([finding](../docs/findings/descent.md)).

# %%
times = [2, 5, 10, 30, 100]
betas = [long_descent(task, entries=0.001, log10_time=time).beta for time in times]
fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
ax.semilogx([10.0**time for time in times], betas, "o-", label="gradient descent")
ax.axhline(saddle_solution(task).beta, ls="--", color="black", label="saddle")
ax.axhline(solve(task).beta, ls=":", color="black", label="smallest norm")
ax.set(xlabel="time: steps × learning rate", ylabel="β", ylim=(0, 1))
_ = ax.legend(ncols=3)

# %% [markdown]
# ## 5. What else decides
#
# The optimiser does. Muon fits the same facts and pushes the untold answer *away* ([finding](../docs/findings/optimisers.md)).

# %%
axes_of_sweep = {"optimizer": ["adamw", "muon"], "seed": [0, 1]}
swept = sweep(
    axes_of_sweep,
    task=task,
    model=ModelConfig(ov="factorized", init_scale=0.2, attention_init="uniform"),
    train=TrainConfig(steps=600, lr=0.01, batch_size=120, weight_decay=0.0, log_every=200),
    progress=False,
)
columns = ["training_fact/accuracy", "held_out_implication/accuracy_in_set", "beta"]
swept.final().groupby("optimizer")[columns].mean().round(2)

# %% [markdown]
# And without anything to deduce from, there is no deduction: when no implication is told, the model guesses. (Guessing among ten has a loss of
# ln 10 = 2.30; a model can be worse than that, since nobody told it not to be sure.)

# %%
control = FactRecallTask(n_pairs=10, m_train=0, m_test=4)
silent = train(control, ModelConfig(ov="factorized"), recipe, progress=False)
print(f"loss among the implications {silent.history['held_out_implication/loss_in_set'].iloc[-1]:.2f}")

# %% [markdown]
# ## 6. What this does not show
#
# One layer proves nothing about language models; there the same question is asked with controls
# ([language models](../docs/llm.md)). Which of the paper's claims survive, theorem by theorem and figure by figure:
# [the table](../docs/findings/paper.md). Now with a model of your own: [your_own_model](your_own_model.ipynb).
