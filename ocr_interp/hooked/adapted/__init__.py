"""Models with adapters: what is switched off, and bridges of copies of a PeftModel."""
