"""What `analyses.llm.parts` claims."""
