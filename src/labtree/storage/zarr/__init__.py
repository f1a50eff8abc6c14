"""Trees in zarr stores, through zarr-python."""
