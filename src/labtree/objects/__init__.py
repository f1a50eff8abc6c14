"""What can be stored: one module for each kind of object, which registers itself."""

__all__ = ["KIND_MODULES"]

#: Modules that add kinds when they are imported, which the registry does when it is first
#: asked. Others may add theirs.
KIND_MODULES = [
    f"labtree.objects.{name}"
    for name in (
        "datasets",
        "numpy_arrays",
        "frames",
        "values",
        "sparse",
        "spike_data",
        "rate_data",
        "rate_slice_stack",
        "spike_slice_stack",
        "pairwise",
        "psth",
    )
]
