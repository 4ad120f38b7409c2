"""The max-margin problem with its symmetries used: small blocks instead of one large matrix."""
