"""Which edges a circuit keeps: those on paths from input to logits, and those that ablation asks for."""
