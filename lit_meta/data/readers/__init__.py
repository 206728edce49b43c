"""Readers of file formats: each checks what it reads and reports in one sentence what is wrong."""
