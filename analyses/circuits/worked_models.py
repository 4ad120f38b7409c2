"""Small models that are trained to a known mechanism, each once per process: induction and modular addition.

    python -m analyses.circuits.worked_models [--seed 0]

trains both and prints what the tools say of them that know nothing of the mechanism. Sequences, starts and
the order of data follow from the seed alone, on one thread and the CPU.
"""

import warnings
from functools import cache
from itertools import count

import torch
from torch.nn.functional import cross_entropy

INDUCTION_VOCABULARY, INDUCTION_LENGTH, INDUCTION_PERIODS = 24, 24, (6, 12)
INDUCTION_PENALTY, INDUCTION_RAMP = 0.02, 400
MODULUS = 23


def induction_batch(prompts, generator):
    """Random tokens that repeat, [prompt, position], with a period of each prompt's own, and these periods.

    Tokens of a period differ, so that what came after a token's last appearance is the answer; since periods
    differ, no position tells where that was.
    """
    least, most = INDUCTION_PERIODS
    drawn = torch.rand(prompts, INDUCTION_VOCABULARY, generator=generator).argsort(1)
    periods = torch.randint(least, most + 1, (prompts,), generator=generator)
    places = torch.arange(INDUCTION_LENGTH)[None] % periods[:, None]
    return drawn.gather(1, places), periods


def induction_answers(tokens, periods):
    """Where the next token can be known (the current one was seen before), and that token."""
    known = torch.arange(tokens.shape[1] - 1)[None] >= periods[:, None]
    return known, tokens[:, 1:]


def untrained_induction_model(seed=0):
    """A two-layer attention-only HookedTransformer as it is before training."""
    model = _hooked(
        seed,
        n_layers=2,
        n_heads=8,
        d_model=64,
        d_head=16,
        d_vocab=INDUCTION_VOCABULARY,
        n_ctx=INDUCTION_LENGTH,
        attn_only=True,
        normalization_type=None,
    )
    # Larger embeddings than usual: a position can then be told from the next one from the start.
    model.W_pos.data.mul_(10)
    model.W_E.data.mul_(5)
    return model


@cache
def induction_model(seed=0):
    """A two-layer attention-only HookedTransformer that continues repeated random tokens, accuracy ~1.

    A growing penalty on the size of every head's W_V and W_O (group lasso) leaves few of its 16 heads: some
    that attend to the previous token in layer 0, some that attend to what came after the current token's
    last appearance in layer 1. The others write little.
    """
    model = untrained_induction_model(seed)
    generator, step = torch.Generator().manual_seed(seed), count()

    def loss():
        tokens, periods = induction_batch(32, generator)
        known, answers = induction_answers(tokens, periods)
        wrong = cross_entropy(model(tokens)[:, :-1][known], answers[known])
        penalty = INDUCTION_PENALTY * min(1.0, next(step) / INDUCTION_RAMP)
        return wrong + penalty * sum(_sizes(block.attn).sum() for block in model.blocks)

    return _trained(model, loss, steps=700, lr=5e-3)


def _sizes(attention):
    """Frobenius norm of W_V and W_O of every head together."""
    squares = attention.W_O.pow(2).sum((1, 2)) + attention.W_V.pow(2).sum((1, 2))
    return squares.clamp(min=1e-12).sqrt()


def head_patterns(model, seed=1000):
    """How much of their attention heads [layer, head] pay to the previous token, and to the token after the
    current one's last appearance, on new repeated random tokens."""
    tokens, periods = induction_batch(100, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    known = induction_answers(tokens, periods)[0]
    queries = torch.arange(INDUCTION_LENGTH - 1)[None].expand_as(known)
    prompts = torch.arange(len(tokens))[:, None].expand_as(known)[known]
    previous, after = [], []
    for layer in range(model.cfg.n_layers):
        pattern = cache["pattern", layer]
        previous.append(pattern.diagonal(-1, -2, -1)[..., 1:].mean((0, 2)))
        keys = (queries - periods[:, None] + 1)[known]
        after.append(pattern[prompts, :, queries[known], keys].mean(0))
    return torch.stack(previous), torch.stack(after)


def induction_accuracy(model, seed=1000):
    """Share of right answers where the next token can be known."""
    tokens, periods = induction_batch(200, torch.Generator().manual_seed(seed))
    known, answers = induction_answers(tokens, periods)
    with torch.no_grad():
        return float((model(tokens)[:, :-1].argmax(-1) == answers)[known].double().mean())


def additions():
    """Every prompt a, b, = of the modular sum, [pair, 3], and its answer; "=" is the last token."""
    a, b = torch.meshgrid(torch.arange(MODULUS), torch.arange(MODULUS), indexing="ij")
    prompts = torch.stack([a.flatten(), b.flatten(), torch.full((MODULUS**2,), MODULUS)], dim=1)
    return prompts, (prompts[:, 0] + prompts[:, 1]) % MODULUS


@cache
def modular_addition_model(seed=0):
    """A one-layer HookedTransformer with an MLP that adds modulo 23; it has 24 tokens and 23 outputs."""
    model = _hooked(
        seed,
        n_layers=1,
        n_heads=4,
        d_model=48,
        d_head=12,
        d_mlp=128,
        act_fn="relu",
        d_vocab=MODULUS + 1,
        d_vocab_out=MODULUS,
        n_ctx=3,
        normalization_type=None,
    )
    prompts, answers = additions()
    return _trained(model, lambda: cross_entropy(model(prompts)[:, -1], answers), steps=400, lr=5e-3)


def addition_accuracy(model):
    """Share of all pairs that are added right."""
    prompts, answers = additions()
    with torch.no_grad():
        return float((model(prompts)[:, -1].argmax(-1) == answers).double().mean())


def _hooked(seed, **fields):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    with warnings.catch_warnings():
        # 3.9 announces that the class goes away in 4.0; the dependency is capped below 4.
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        return HookedTransformer(HookedTransformerConfig(**fields, seed=seed, device="cpu"))


def _trained(model, loss, steps, lr):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1, (t + 1) / 50) * (1 - t / steps))
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        warmup.step()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def describe_induction(seed=0):
    """Who composes with whom, and which edges carry the answer, in words."""
    from ocr_interp.circuits import composition
    from ocr_interp.discovery import Contrast, evaluate_circuit, find_circuit

    model = induction_model(seed)
    found = composition(model)
    generator = torch.Generator().manual_seed(seed + 1000)
    tokens, donors = (induction_batch(32, generator)[0] for _ in range(2))
    contrast = Contrast.of(model, tokens[:, :-1], donors[:, :-1], tokens[:, -1])
    circuit = find_circuit(model, contrast, size=25)
    return (
        f"induction: {induction_accuracy(model):.1%} right\npairs furthest from random matrices:\n"
        f"{found.table().head(5).to_string(index=False)}\n{circuit.table().head(10).to_string(index=False)}\n"
        f"{evaluate_circuit(model, circuit, contrast, random_circuits=5).summary()}"
    )


def describe_addition(seed=0):
    """Who writes the sum, in words; its 23 outputs are no tokens."""
    from ocr_interp.circuits import direct_attribution

    model = modular_addition_model(seed)
    prompts, answers = additions()
    some = torch.arange(0, len(prompts), 25)
    found = direct_attribution(model, prompts[some], answers[some], (answers[some] + 1) % MODULUS)
    return f"addition modulo {MODULUS}: {addition_accuracy(model):.1%} right\n{found.summary()}"


if __name__ == "__main__":
    from argparse import ArgumentParser

    parser = ArgumentParser(description="Train both models and say what carries their answers.")
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    print(f"{describe_induction(seed)}\n\n{describe_addition(seed)}")
