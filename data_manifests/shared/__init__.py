"""What several builders use."""
