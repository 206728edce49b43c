"""Shared by all rooms: files, paths, registries, modes and checks of arguments."""
