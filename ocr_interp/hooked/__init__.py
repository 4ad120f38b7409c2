"""Any hooked model: its protocol, its heads read out as factors, its tokens, and where weights came from."""
