"""Pure view-models: what pages show, from what services return. No Streamlit, no clock, no I/O."""
