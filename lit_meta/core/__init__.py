"""The engine: rules, their memory, and the session that binds them to a network."""
