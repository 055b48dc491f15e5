"""Runs of NeMo RL on disk: what they hold, and their checkpoints as Hugging Face folders. Never unpickles."""
