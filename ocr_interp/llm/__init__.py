"""Out-of-context reasoning in real language models: facts, fine-tuning, measurement, a look inside.

Needs the extra [llm]. The other rooms of the package never import this one; only the command line does.
"""
