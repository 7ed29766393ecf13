"""Why Stoa answers otherwise than Synapse: (pattern over "operation | Stoa | Synapse", what decides)."""

EXPLAINED: list[tuple[str, str]] = []
