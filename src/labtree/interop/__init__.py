"""Foreign formats and libraries, one file each."""
