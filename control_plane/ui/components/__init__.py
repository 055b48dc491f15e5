"""Browser components (Streamlit components v2), one file each beside its script and style sheet."""
