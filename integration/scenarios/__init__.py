"""What users do, on a real cluster. One file a story; `docs/` explains the features they show."""
