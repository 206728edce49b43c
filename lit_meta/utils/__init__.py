"""What every room needs: files, paths, names, modes and the checks of arguments."""
