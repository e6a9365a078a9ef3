"""Pages that pip, uv and people read, made of a catalog alone: no files, no network, no clock."""
