"""Long work in processes of its own: the worker, what runs one job, and one module per kind of job."""
