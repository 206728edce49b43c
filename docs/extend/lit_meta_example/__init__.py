"""An example of a package that adds to lit_meta by entry points; see its pyproject.toml."""
