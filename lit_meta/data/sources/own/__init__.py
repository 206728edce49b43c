"""Sources of the user's own data: image folders, arrays, tables, tensors, Hugging Face data sets, event recordings."""
