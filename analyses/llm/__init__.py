"""SmolLM2-135M fine-tuned on fictitious facts: Table 1, Muon against AdamW, ablations of the update."""
