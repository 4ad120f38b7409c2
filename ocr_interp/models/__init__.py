"""Models of the fact-recall task: configurations, starts, the token-count form, HookedTransformers."""
