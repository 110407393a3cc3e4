"""What `llm-calls doctor` finds out: what there is, and what becomes of each client's call."""
