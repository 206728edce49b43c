"""File formats: each reader checks what it reads and says in one sentence what is wrong."""
