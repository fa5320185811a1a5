"""Looking things up on the web: a gate, search, prompts, and masks checked against pictures (the ROSE framework)."""
