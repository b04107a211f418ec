"""What a run file drives: schema, towers, loop."""
