"""Commands that make pictures and pages: one file per verb."""
