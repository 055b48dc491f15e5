"""One module per kind of job; `control_plane.jobs.catalog` lists them."""
