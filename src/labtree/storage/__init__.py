"""The cellar: files, arrays and catalogues; knows nothing of neuroscience."""
