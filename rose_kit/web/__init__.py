"""The ROSE framework: a gate, search, prompts that tell more, and masks checked against images."""
