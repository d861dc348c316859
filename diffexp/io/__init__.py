"""Files, text and terminals: atomic writes, strict JSON, no secrets, progress. No torch here."""
