"""One module per kind of upload that is let in; `control_plane.admission.catalog` lists them."""
