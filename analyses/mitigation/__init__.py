"""The study of mitigations: keep the deduction that is wanted, lose the one that is not."""
