"""The accessors: thin classes, whose methods call the functions of other packages."""
