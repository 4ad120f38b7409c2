"""A two-layer model written out in float64, with a stream of its own for every reader: oracle of edges."""

import torch

PARTS = ("q", "k", "v")


def normed(model, module, x):
    """LayerNorm or RMSNorm by its definition."""
    kind = model.cfg.normalization_type
    if kind is None:
        return x
    if kind.startswith("LN"):
        x = x - x.mean(-1, keepdim=True)
    x = x / (x.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    if kind.endswith("Pre"):
        return x
    return x * module.w + (module.b if kind == "LN" else 0)


def forward(model, tokens, edges=(), donor=None):
    """Logits, and what each writer writes, of a HookedTransformer without rotary positions.

    A reader's input is the sum of what the writers before it write (donor's for marked edges), and biases.
    """
    cfg = model.cfg
    group = cfg.n_heads // (cfg.n_key_value_heads or cfg.n_heads)
    written = {"input": model.W_E[tokens] + model.pos_embed.W_pos[: tokens.shape[1]]}
    bias = torch.zeros(cfg.d_model, dtype=torch.float64)

    def into(reader):
        total = sum((donor if f"{name}->{reader}" in edges else written)[name] for name in written)
        return total + bias

    for layer, block in enumerate(model.blocks):
        attention, new = block.attn, {}
        for head in range(cfg.n_heads):
            seen = {}
            for part in PARTS:
                shared = group > 1 and part != "q"
                name = f"a{layer}.kv{head // group}<{part}>" if shared else f"a{layer}.h{head}<{part}>"
                W, b = (getattr(attention, f"{x}_{part.upper()}")[head] for x in "Wb")
                seen[part] = normed(model, block.ln1, into(name)) @ W + b
            scores = seen["q"] @ seen["k"].mT / cfg.d_head**0.5
            causal = torch.ones(scores.shape[-2:]).tril().bool()
            pattern = scores.masked_fill(~causal, -torch.inf).softmax(-1)
            new[f"a{layer}.h{head}"] = pattern @ seen["v"] @ attention.W_O[head]
        written |= new
        bias = bias + attention.b_O
        if not cfg.attn_only:
            mlp, x = block.mlp, normed(model, block.ln2, into(f"m{layer}"))
            hidden = torch.nn.functional.gelu(x @ mlp.W_in + mlp.b_in)
            written[f"m{layer}"] = hidden @ mlp.W_out + mlp.b_out
    final = normed(model, model.ln_final, into("logits")) if cfg.normalization_type else into("logits")
    return final @ model.W_U + model.b_U, written
